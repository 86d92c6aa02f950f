"""The queries about backup policies and their runs.

A run's `_id` is its policy's and its slot, so that no slot is run twice,
whoever holds the lease. What a policy is scheduled by is changed by
compare-and-set: of a replica that lost the lease nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kubelore.common.contracts.backup_policies import MAX_POLICIES, PolicySpec, RunState
from kubelore.common.errors import AlreadyExists, Conflict, NotFound
from kubelore.common.store import Database, gt, lt, one_of

MAX_RUNS = 5000
_ADVANCED = ("considered", "late_told", "last_success")


class Policy(msgspec.Struct, kw_only=True):
    """A policy as it is kept, under its name. `uid` is its own for good: a later one of the same name has another.

    Slots up to `considered` are done with; `late_told` is the slot whose lateness
    was told; all in seconds since 1970. `mandate` is sealed to the uid.
    """

    name: str
    uid: str
    spec: PolicySpec
    subject: str
    mandate: bytes
    created_at: float
    updated_at: float
    revision: int = 1
    considered: float = 0.0
    late_told: float = 0.0
    last_success: float = 0.0


class Run(msgspec.Struct, kw_only=True):
    """One run. `backup_id` is its backup's from the moment it is set going, `gone` says that it was deleted since."""

    id: str
    policy: str
    name: str
    state: RunState
    due: float
    slot: float = 0.0
    caught_up: bool = False
    started: float = 0.0
    ended: float = 0.0
    not_before: float = 0.0
    backup_id: str = ""
    error: str = ""
    remedy: str = ""
    untold: bool = False
    """It failed, and the alert has yet to be published."""
    gone: bool = False


class PolicyRepository:
    """Everything that is kept about policies."""

    def __init__(self, database: Database) -> None:
        self._policies = database.collection("backup_policies")
        self._runs = database.collection("backup_policy_runs")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._runs.ensure_index([("policy", 1), ("due", -1)])
        await self._runs.ensure_index([("state", 1), ("due", 1)])
        await self._runs.ensure_index([("untold", 1)], only={"untold": True})

    # policies

    async def insert(self, policy: Policy) -> None:
        """Keep a new policy. Raises AlreadyExists, Conflict."""
        if await self._policies.count() >= MAX_POLICIES:
            raise Conflict(f"there are {MAX_POLICIES} policies", remedy="Delete some first.")
        await self._policies.insert(_document(policy, "name"))

    async def get(self, name: str) -> Policy:
        """One policy. Raises NotFound."""
        return _of(await self._policies.get(name), "name", Policy)

    async def page(self, after: str, limit: int) -> list[Policy]:
        """Policies by name."""
        found = await self._policies.find({"_id": gt(after)}, limit=limit)
        return [_of(document, "name", Policy) for document in found]

    async def all(self) -> list[Policy]:
        """Every policy."""
        return [_of(d, "name", Policy) for d in await self._policies.find({}, limit=MAX_POLICIES + 500)]

    async def change(self, policy: Policy, expected: int) -> None:
        """Write what people say of a policy, if its revision is still `expected`. Raises NotFound, Conflict."""
        document = _document(policy, "name")
        changes = {field: value for field, value in document.items() if field not in ("_id", *_ADVANCED[1:])}
        await self._policies.update(policy.name, changes, expect={"revision": expected, "uid": policy.uid})

    async def advance(self, policy: Policy, field: str, to: float) -> None:
        """Move `considered`, `late_told` or `last_success` on; never back, and not in a policy that is gone."""
        if field not in _ADVANCED:
            raise ValueError(f"{field} is not advanced")
        with suppress(NotFound, Conflict):
            await self._policies.update(policy.name, {field: to}, expect={"uid": policy.uid, field: lt(to)})

    async def reseal(self, policy: Policy, mandate: bytes) -> bool:
        """Keep the same mandate under another key, if it is still the one that was read; whether it was."""
        try:
            await self._policies.update(
                policy.name, {"mandate": mandate}, expect={"uid": policy.uid, "mandate": policy.mandate}
            )
        except (Conflict, NotFound):
            return False
        return True

    async def delete(self, policy: Policy) -> None:
        """Forget a policy and what of its runs holds no backup."""
        await self._policies.delete(policy.name, expect={"uid": policy.uid})
        await self._runs.delete_many(
            {"policy": policy.uid, "state": one_of(("pending", "skipped")), "backup_id": ""}
        )

    # runs

    async def begin(self, run: Run) -> bool:
        """Keep a new run; whether it is new."""
        try:
            await self._runs.insert(_document(run, "id"))
        except AlreadyExists:
            return False
        return True

    async def claim(self, run: Run, now: float) -> bool:
        """Set a pending run going, with the id that its backup has; whether nobody else has."""
        return await self._moved(
            run, "pending", {"state": "running", "started": now, "backup_id": run.backup_id}
        )

    async def postpone(self, run: Run, until: float) -> None:
        """Let a run that could not begin wait again."""
        await self._moved(run, "running", {"state": "pending", "not_before": until})

    async def finish(self, run: Run, state: RunState, now: float, error: str = "", remedy: str = "") -> bool:
        """End a run that is going; whether it was this that ended it. A failure is untold until it was told."""
        ended: dict[str, Any] = {"state": state, "ended": now, "error": error, "remedy": remedy}
        return await self._moved(run, "running", {**ended, "untold": state == "failed"})

    async def told(self, run: Run) -> None:
        """The failure of a run was told."""
        with suppress(NotFound):
            await self._runs.update(run.id, {"untold": False})

    async def untold(self) -> list[Run]:
        """Failures that were not told yet."""
        return _runs(await self._runs.find({"untold": True}, limit=100))

    async def in_state(self, state: RunState, limit: int = MAX_RUNS) -> list[Run]:
        """Runs in a state, the oldest first."""
        return _runs(await self._runs.find({"state": state}, sort=[("due", 1)], limit=limit))

    async def going(self, policy: Policy) -> bool:
        """Whether a run of the policy waits or goes on."""
        states = one_of(("pending", "running"))
        return await self._runs.count({"policy": policy.uid, "state": states}, limit=1) > 0

    async def last(self, policies: Sequence[Policy]) -> dict[str, Run]:
        """The newest run of each policy, by its uid."""
        found: dict[str, Run] = {}
        for policy in policies:
            if runs := await self.runs(policy, 1):
                found[policy.uid] = runs[0]
        return found

    async def runs(self, policy: Policy, limit: int) -> list[Run]:
        """The last runs of a policy, newest first."""
        return _runs(await self._runs.find({"policy": policy.uid}, sort=[("due", -1)], limit=limit))

    async def with_backups(self, policy: Policy) -> list[Run]:
        """Ended runs of a policy whose backups were not deleted."""
        where = {
            "policy": policy.uid,
            "state": one_of(("completed", "failed")),
            "gone": False,
            "backup_id": gt(""),
        }
        return _runs(await self._runs.find(where, sort=[("due", -1)], limit=MAX_RUNS))

    async def forget_backup(self, run: Run) -> None:
        """The backup of a run was deleted."""
        with suppress(NotFound):
            await self._runs.update(run.id, {"gone": True})

    async def drop_old(self, policy: Policy, before: float) -> None:
        """Forget runs that ended long ago and hold no backup."""
        for more in ({"gone": True}, {"backup_id": ""}):
            await self._runs.delete_many({"policy": policy.uid, "ended": gt(0.0) & lt(before), **more})

    async def _moved(self, run: Run, state: RunState, changes: dict[str, Any]) -> bool:
        try:
            await self._runs.update(run.id, changes, expect={"state": state})
        except (Conflict, NotFound):
            return False
        return True


def _document(kept: Policy | Run, key: str) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(kept, builtin_types=(bytes,))
    return {"_id": document.pop(key), **document}


def _of(document: dict[str, Any], key: str, kind: type[Any]) -> Any:
    named = {**document, key: document["_id"]}
    return msgspec.convert(named, kind)


def _runs(documents: list[dict[str, Any]]) -> list[Run]:
    return [_of(document, "id", Run) for document in documents]
