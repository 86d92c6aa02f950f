"""The queries of restores: what was asked for and how far it is, and what became of each object.

An item's `_id` is its restore and its number, so that it is written down once
and pages are ranges of one index. Both are kept for 90 days.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.contracts.restores import RESULTS, Result, StartRestore, State
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.store import Database, gt, lt, lte, one_of

KEPT_S = 90 * 24 * 3600
MAX_PAGE = 1000
_UNFINISHED: tuple[State, ...] = ("pending", "verifying", "running")
_LAST = 99_999_999


class Job(msgspec.Struct, kw_only=True):
    """One restore. `scope` is what somebody must be able to read to know of it: (cluster, namespace or all)."""

    id: str
    asked: StartRestore
    created_by: str
    created_at: datetime
    scope: list[tuple[str, str]]
    mandate: bytes
    state: State = "pending"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    total: int = 0
    counts: dict[str, int] = {}
    error: str = ""
    remedy: str = ""
    cancelling: bool = False


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one object; `place` is its id in the target, `source_uid` its uid in the backup."""

    number: int
    source: str
    place: str
    result: Result
    rules: list[str] = []
    source_uid: str = ""
    uid: str = ""
    error: str = ""
    detail: str = ""


class RestoreRepository:
    """Restores and their items in MongoDB."""

    def __init__(self, database: Database) -> None:
        self._restores = database.collection("restores")
        self._items = database.collection("restore_items")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._restores.ensure_index([("state", 1)])
        await self._restores.ensure_index([("created_at", 1)], expire_after_s=KEPT_S)
        await self._items.ensure_index([("restore", 1), ("result", 1), ("number", 1)])
        await self._items.ensure_index([("at", 1)], expire_after_s=KEPT_S)

    async def add(self, job: Job) -> None:
        """Keep a new one. Raises AlreadyExists."""
        await self._restores.insert(_written(job))

    async def get(self, id_: str) -> Job:
        """One restore. Raises NotFound."""
        return _read(await self._restores.get(id_))

    async def newest(self, before: str, limit: int) -> list[Job]:
        """Restores with ids below `before` (empty: all), newest first."""
        where = {"_id": lt(before)} if before else {}
        return [_read(one) for one in await self._restores.find(where, sort=[("_id", -1)], limit=limit)]

    async def unfinished(self, limit: int) -> list[Job]:
        """The oldest that have not ended."""
        found = await self._restores.find({"state": one_of(_UNFINISHED)}, limit=limit)
        return [_read(one) for one in found]

    async def count_unfinished(self) -> int:
        """How many have not ended."""
        return await self._restores.count({"state": one_of(_UNFINISHED)})

    async def reading(self, backup_id: str) -> str:
        """One that has not ended and is of a backup; empty where there is none."""
        where = {"state": one_of(_UNFINISHED), "asked.backup_id": backup_id}
        found = await self._restores.find_one(where)
        return found["_id"] if found else ""

    async def update(self, id_: str, **changes: Any) -> Job:
        """Write down how far one is, unless it has ended. Raises Conflict and NotFound."""
        expect = {"state": one_of(_UNFINISHED)}
        return _read(await self._restores.update(id_, changes, expect=expect))

    async def end(self, id_: str, state: State, **changes: Any) -> None:
        """Write down that one has ended; the first end counts. Its mandate goes."""
        ended = {"state": state, "finished_at": datetime.now(UTC), "mandate": b"", **changes}
        try:
            await self._restores.update(id_, ended, expect={"state": one_of(_UNFINISHED)})
        except (Conflict, NotFound):
            return

    async def record(self, restore: str, outcomes: Sequence[Outcome]) -> None:
        """Keep what became of objects; what is on record already stays as it is."""
        now = datetime.now(UTC)
        for start in range(0, len(outcomes), MAX_PAGE):
            await self._items.insert_new(
                [
                    {
                        "_id": _item_id(restore, one.number),
                        "restore": restore,
                        "at": now,
                        **msgspec.to_builtins(one),
                    }
                    for one in outcomes[start : start + MAX_PAGE]
                ]
            )

    async def page(self, restore: str, result: str, after: int, limit: int) -> list[Outcome]:
        """Items numbered above `after`, in order; of one result when it is named."""
        if result:
            where: Mapping[str, Any] = {"restore": restore, "result": result, "number": gt(after)}
            found = await self._items.find(where, sort=[("number", 1)], limit=limit)
        else:
            found = await self._items.find({"_id": _within(restore, after)}, limit=limit)
        return [msgspec.convert(one, Outcome) for one in found]

    async def done(self, restore: str) -> AsyncIterator[tuple[int, str, str]]:
        """Number, uid in the backup and uid now of everything on record."""
        fields = ("number", "source_uid", "uid")
        async for one in self._items.scan({"_id": _within(restore, -1)}, page=MAX_PAGE, fields=fields):
            yield one["number"], one["source_uid"], one["uid"]

    async def counts(self, restore: str) -> dict[str, int]:
        """How many items there are of each result."""
        return {result: await self._items.count({"restore": restore, "result": result}) for result in RESULTS}


def _item_id(restore: str, number: int) -> str:
    return f"{restore}/{number:08d}"


def _within(restore: str, after: int) -> Any:
    bound = gt(_item_id(restore, after)) if after >= 0 else gt(f"{restore}/")
    return bound & lte(_item_id(restore, _LAST))


def _written(job: Job) -> dict[str, Any]:
    fields = msgspec.to_builtins(job, builtin_types=(bytes, datetime))
    # As pairs: no name that somebody chose becomes the name of a field.
    fields["asked"]["namespace_map"] = list(job.asked.namespace_map.items())
    return {"_id": fields.pop("id"), **fields}


def _read(document: dict[str, Any]) -> Job:
    asked = {**document["asked"], "namespace_map": dict(document["asked"]["namespace_map"])}
    return msgspec.convert({**document, "id": document["_id"], "asked": asked}, Job)
