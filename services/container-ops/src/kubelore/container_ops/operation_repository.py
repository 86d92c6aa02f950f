"""The queries of the history of operations in containers.

An id is a UUID of version 7, so that ids are in the order of time and pages are
ranges of one index. What may not be read at rest is in `sealed` and `outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kubelore.common.contracts.container_history import OperationKind, OperationStatus
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.store import Condition, Database, gte, lt, one_of
from kubelore.common.store.filters import Scalar
from kubelore.container_ops.stopping import Process

_OPEN: tuple[OperationStatus, ...] = ("running", "unknown")
_TRIED_S = 24 * 3600.0


class Row(msgspec.Struct, kw_only=True):
    """One operation as it is stored; `seen_at` is when its replica last said that it lives."""

    id: str
    kind: OperationKind
    cluster: str
    namespace: str
    pod: str
    container: str
    status: OperationStatus
    user: str
    at: datetime
    seen_at: datetime
    expires_at: datetime
    replica: str
    sealed: bytes
    outcome: bytes = b""
    finished_at: datetime | None = None
    session: str = ""
    request: str = ""
    process: Process | None = None
    """Which process of its container a command is, once that is known."""


class OperationRepository:
    """Operations in containers, in MongoDB."""

    def __init__(self, database: Database) -> None:
        self._rows = database.collection("container_operations")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._rows.ensure_index([("cluster", 1), ("namespace", 1), ("pod", 1), ("_id", -1)])
        await self._rows.ensure_index([("user", 1), ("_id", -1)])
        await self._rows.ensure_index([("session", 1), ("_id", -1)])
        await self._rows.ensure_index([("status", 1), ("seen_at", 1)])
        await self._rows.ensure_index([("expires_at", 1)], expire_after_s=0)

    async def begin(self, row: Row) -> None:
        """Keep an operation that is about to be done. Raises Unavailable: then it must not be done."""
        fields = msgspec.to_builtins(row, builtin_types=(bytes, datetime))
        await self._rows.insert({"_id": fields.pop("id"), **fields})

    async def end(self, id_: str, status: OperationStatus, outcome: bytes) -> None:
        """Write down how one ended, also where it was taken for lost; what expired meanwhile stays away."""
        ended = {"status": status, "outcome": outcome, "finished_at": datetime.now(UTC)}
        with suppress(Conflict, NotFound):
            await self._rows.update(id_, ended, expect={"status": one_of(_OPEN)})

    async def get(self, id_: str) -> Row:
        """One operation. Raises NotFound."""
        return _read(await self._rows.get(id_))

    async def newest(self, where: dict[str, Scalar | Condition], before: str, limit: int) -> Sequence[Row]:
        """Operations that match with ids below `before` (empty: all), newest first."""
        bounded = {**where, "_id": lt(before)} if before else where
        found = await self._rows.find(bounded, sort=[("_id", -1)], limit=limit)
        return [_read(one) for one in found]

    async def seen(self, id_: str, process: Process) -> None:
        """Write down which process a command is; what has ended meanwhile stays as it is."""
        with suppress(Conflict, NotFound):
            await self._rows.update(id_, {"process": list(process)}, expect={"status": one_of(_OPEN)})

    async def still_running(self, ids: Sequence[str]) -> None:
        """Say of at most 1,000 operations that whoever does them lives, also where they were taken for lost."""
        await self._rows.update_many(
            {"_id": one_of(ids), "status": one_of(_OPEN)},
            {"status": "running", "seen_at": datetime.now(UTC), "finished_at": None, "outcome": b""},
        )

    async def give_up(self, silent_s: float) -> int:
        """Call those unknown of which nothing was heard for so long; how many they were."""
        now = datetime.now(UTC)
        silent = {"status": "running", "seen_at": lt(now - timedelta(seconds=silent_s))}
        return await self._rows.update_many(silent, {"status": "unknown", "finished_at": now})

    async def orphaned(self, silent_s: float, limit: int) -> Sequence[Row]:
        """Operations that were called unknown so long ago and no more than a day, and whose end nobody wrote down.

        Those that were tried last come last, so that those of a cluster that does not answer let the others pass.
        """
        now = datetime.now(UTC)
        silent = lt(now - timedelta(seconds=silent_s))
        where: dict[str, Scalar | Condition] = {
            "status": "unknown",
            "outcome": b"",
            "seen_at": silent,
            "finished_at": silent & gte(now - timedelta(seconds=_TRIED_S)),
        }
        found = await self._rows.find(where, sort=[("seen_at", 1)], limit=limit)
        return [_read(one) for one in found]

    async def claim(self, row: Row) -> bool:
        """Take an orphaned operation on; whether nobody else did. It is orphaned again when nothing comes of it."""
        expected = {"status": "unknown", "seen_at": row.seen_at}
        try:
            await self._rows.update(row.id, {"seen_at": datetime.now(UTC)}, expect=expected)
        except (Conflict, NotFound):
            return False
        return True


def _read(document: dict[str, Any]) -> Row:
    return msgspec.convert({**document, "id": document["_id"]}, Row)
