"""Backup policies: made, shown, changed, paused and run by people. The schedule is followed by `policy_runs`.

A policy keeps the mandate of whoever made or last changed it, since that is who
says what may be read from then on. Whoever pauses it or lets it run changes
neither what it does nor for whom.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from kubelore.common.authz import Caller, Namespaces
from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts.backup_policies import (
    BackupPolicy,
    CreatePolicy,
    DeletedPolicy,
    ListPolicies,
    ListRuns,
    PausePolicy,
    PolicyPage,
    PolicyRef,
    PolicyRun,
    PolicyRuns,
    PolicySpec,
    UpdatePolicy,
)
from kubelore.common.contracts.identity import check_cluster_name, check_namespaces, is_cluster_name
from kubelore.common.crypto import Keyring
from kubelore.common.errors import AlreadyExists, Conflict, Invalid, NotFound
from kubelore.common.kube.selectors import LabelSelector
from kubelore.common.mandates import Mandate, renewed
from kubelore.yaml_vcs.policy_repository import Policy, PolicyRepository, Run
from kubelore.yaml_vcs.scheduling import Schedule

MAX_CLUSTERS = 100
MAX_TYPES = 100
MAX_KEEP = 10_000
MAX_DAYS = 3650
SHOWN_RUNS = 3

Clock = Callable[[], float]


class BackupPolicies:
    """What people do with policies. `clock` tells seconds since 1970."""

    def __init__(
        self, repository: PolicyRepository, keyring: Keyring, bus: Bus, clock: Clock = time.time
    ) -> None:
        self._repository = repository
        self._keyring = keyring
        self._bus = bus
        self._clock = clock

    async def create(self, asked: CreatePolicy) -> BackupPolicy:
        """A new policy. Raises Invalid, AlreadyExists, Forbidden, NotFound, and Unauthenticated for a passing login."""
        caller, now = current_caller(), self._clock()
        if not is_cluster_name(asked.name):
            raise Invalid(
                f"{asked.name[:80]!r} is no name for a policy",
                remedy="Use lower-case letters, digits and '-'.",
            )
        check_spec(asked.spec, now)
        check_right(caller, asked.spec)
        uid = secrets.token_hex(8)
        policy = Policy(
            name=asked.name,
            uid=uid,
            spec=asked.spec,
            subject=caller.subject,
            mandate=await self._mandate(uid),
            created_at=now,
            updated_at=now,
            considered=now,
        )
        try:
            await self._repository.insert(policy)
        except AlreadyExists as error:
            raise AlreadyExists(
                f"there is a policy {asked.name!r}", remedy="Take another name, or change that one."
            ) from error
        return await self._shown(policy)

    async def list(self, asked: ListPolicies) -> PolicyPage:
        """A page of those policies whose whole scope the caller may read."""
        caller, limit = current_caller(), max(1, min(asked.limit, 500))
        visible: list[Policy] = []
        after = asked.after
        while len(visible) < limit:
            found = await self._repository.page(after, 500)
            visible += [policy for policy in found if is_visible(caller, policy.spec)]
            if len(found) < 500:
                break
            after = found[-1].name
        page = visible[:limit]
        items = [await self._shown(policy) for policy in page]
        return PolicyPage(items, page[-1].name if len(visible) > limit else "")

    async def get(self, asked: PolicyRef) -> BackupPolicy:
        """One policy. Raises NotFound."""
        return await self._shown(await self._visible(asked.name))

    async def update(self, asked: UpdatePolicy) -> BackupPolicy:
        """Say anew what a policy does; from now on it acts for the caller. Raises as `create`, and Conflict."""
        caller, now = current_caller(), self._clock()
        policy = await self._own(asked.name)
        check_spec(asked.spec, now)
        check_right(caller, asked.spec)
        if asked.revision not in (None, policy.revision):
            raise Conflict(
                f"the policy {policy.name!r} was changed by somebody else",
                remedy="Read it again and try again.",
            )
        policy.mandate = await self._mandate(policy.uid)
        policy.spec, policy.subject, policy.updated_at = asked.spec, caller.subject, now
        return await self._changed(policy, now)

    async def pause(self, asked: PausePolicy) -> BackupPolicy:
        """Pause a policy or go on with it. Raises NotFound, Forbidden, Conflict."""
        policy = await self._own(asked.name)
        policy.spec.paused, policy.updated_at = asked.paused, self._clock()
        return await self._changed(policy, self._clock())

    async def delete(self, asked: PolicyRef) -> DeletedPolicy:
        """Delete a policy; its backups stay. Raises NotFound, Forbidden."""
        policy = await self._own(asked.name)
        kept = len(await self._repository.with_backups(policy))
        await self._repository.delete(policy)
        return DeletedPolicy(policy.name, kept)

    async def run(self, asked: PolicyRef) -> PolicyRun:
        """Let a policy run now, for whom it always does. Raises NotFound, Forbidden, and Conflict while one is going."""
        policy, now = await self._own(asked.name), self._clock()
        if await self._repository.going(policy):
            raise Conflict(
                f"a run of {policy.name!r} is still going",
                remedy="Wait for it: `kubelore backup policy get`.",
            )
        run = Run(
            id=f"{policy.uid}:{secrets.token_hex(6)}",
            policy=policy.uid,
            name=policy.name,
            state="pending",
            due=now,
        )
        await self._repository.begin(run)
        return shown_run(run, policy)

    async def runs(self, asked: ListRuns) -> PolicyRuns:
        """The last runs of a policy. Raises NotFound."""
        policy = await self._visible(asked.name)
        found = await self._repository.runs(policy, max(1, min(asked.limit, 500)))
        return PolicyRuns([shown_run(run, policy) for run in found])

    async def _mandate(self, uid: str) -> bytes:
        # Traded at once, so that it names what outlives a login, or is refused to whom nothing does.
        mandate = await renewed(self._bus, Mandate.of_request(lasting=True))
        return mandate.seal(self._keyring, context=mandate_context(uid))

    async def _visible(self, name: str) -> Policy:
        try:
            policy = await self._repository.get(name) if is_cluster_name(name) else None
        except NotFound:
            policy = None
        if policy is None or not is_visible(current_caller(), policy.spec):
            raise NotFound(
                f"there is no policy {name[:80]!r}", remedy="`kubelore backup policy list` shows them."
            )
        return policy

    async def _own(self, name: str) -> Policy:
        policy = await self._visible(name)
        check_right(current_caller(), policy.spec)
        return policy

    async def _changed(self, policy: Policy, now: float) -> BackupPolicy:
        expected, policy.revision = policy.revision, policy.revision + 1
        policy.considered = max(policy.considered, now)
        await self._repository.change(policy, expected)
        return await self._shown(policy)

    async def _shown(self, policy: Policy) -> BackupPolicy:
        last = (await self._repository.last([policy])).get(policy.uid)
        return shown(policy, last, self._clock())


def mandate_context(uid: str) -> str:
    """What a policy's mandate is sealed to."""
    return f"backup-policy/{uid}"


def schedule_of(policy: Policy) -> Schedule:
    """When a policy is due."""
    spec = policy.spec
    return Schedule(spec.schedule, spec.time_zone, spec.jitter_s, policy.uid)


def late_slot(policy: Policy, now: float) -> int | None:
    """The slot by which a backup should have been completed by now, and was not; None when all is well."""
    if policy.spec.paused:
        return None
    since = max(policy.updated_at, policy.last_success)
    return schedule_of(policy).latest(now - policy.spec.late_after_s, since)


def shown(policy: Policy, last: Run | None, now: float) -> BackupPolicy:
    """A policy as people see it."""
    coming = [] if policy.spec.paused else schedule_of(policy).coming(now, SHOWN_RUNS)
    return BackupPolicy(
        name=policy.name,
        spec=policy.spec,
        subject=policy.subject,
        created_at=iso(policy.created_at),
        updated_at=iso(policy.updated_at),
        revision=policy.revision,
        next_runs=[iso(moment) for moment in coming],
        last_run=shown_run(last, policy) if last else None,
        last_success=iso(policy.last_success),
        late=late_slot(policy, now) is not None,
    )


def shown_run(run: Run, policy: Policy) -> PolicyRun:
    """A run as people see it."""
    return PolicyRun(
        id=run.id.removeprefix(f"{policy.uid}:"),
        state=run.state,
        slot=iso(run.slot),
        due_at=iso(run.due),
        started_at=iso(run.started),
        ended_at=iso(run.ended),
        caught_up=run.caught_up,
        backup_id=run.backup_id,
        error=run.error,
    )


def iso(at: float) -> str:
    """A time in UTC by the second; empty for 0."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""


def check_spec(spec: PolicySpec, now: float) -> None:
    """Raise Invalid or BadRequest for what no policy can be."""
    if not 0 < len(spec.clusters) <= MAX_CLUSTERS:
        raise Invalid(f"a policy names between 1 and {MAX_CLUSTERS} clusters")
    for cluster in spec.clusters:
        check_cluster_name(cluster)
    check_namespaces(spec.namespaces)
    if len(spec.types) > MAX_TYPES or any(not 0 < len(name) <= 253 for name in spec.types):
        raise Invalid(f"a policy names at most {MAX_TYPES} types")
    LabelSelector.parse(spec.labels)
    Schedule(spec.schedule, spec.time_zone, spec.jitter_s).check(now)
    if not 0 <= spec.keep_count <= MAX_KEEP or not 0 <= spec.keep_days <= MAX_DAYS:
        raise Invalid(f"keep at most {MAX_KEEP} backups, for at most {MAX_DAYS} days; 0 is without limit")
    if not 60 <= spec.late_after_s <= 30 * 86_400:
        raise Invalid("a backup is late between a minute and 30 days after it was due")


def is_visible(caller: Caller, spec: PolicySpec) -> bool:
    """Whether somebody may read all of a scope."""
    return all(_covers(caller.namespaces(cluster), spec.namespaces) for cluster in spec.clusters)


def check_right(caller: Caller, spec: PolicySpec) -> None:
    """Raise NotFound or Forbidden unless somebody may read, and has the right `backup`, in all of a scope."""
    for cluster in spec.clusters:
        for namespace in spec.namespaces or [""]:
            caller.check_right("backup", cluster, namespace)


def _covers(granted: Namespaces, namespaces: list[str]) -> bool:
    return granted.everything or bool(namespaces and all(map(granted.matches, namespaces)))
