"""The queries about what is not known: gaps of types, and changes that could not be taken when they came."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kubelore.common.store import Database, gte, lt, lte, one_of

MAX_MARKS = 500
"""The newest of a page, a version or a snapshot; a history with more holes than that is hardly one."""


class Mark(msgspec.Struct, kw_only=True):
    """A gap of a type, or a change that was parked (`parked` is its number); seconds since 1970.

    `until` is 0 while a gap is open, and of a change that is missing. A change that
    was replayed behind newer versions is `late`, with what it held: `frame`, `hash`.
    """

    id: str
    scope: str
    at: float
    after_rv: str = ""
    until: float = 0.0
    parked: int = 0
    reason: str = ""
    open: bool = True
    late: bool = False
    kind: str = ""
    frame: bytes = b""
    hash: bytes = b""


class GapRepository:
    """Reads the marks that recording leaves, and settles those of changes that are replayed."""

    def __init__(self, database: Database) -> None:
        self._marks = database.collection("version_gaps")

    async def of(self, scopes: Iterable[str], since: int, until: int | None) -> list[Mark]:
        """The newest 500 marks of some scopes between two times (milliseconds since 1970), oldest first."""
        at = gte(since / 1000) if until is None else gte(since / 1000) & lte(until / 1000)
        found = await self._marks.find(
            {"scope": one_of(scopes), "at": at}, sort=[("at", -1), ("_id", -1)], limit=MAX_MARKS
        )
        return [_mark(document) for document in reversed(found)]

    async def settle(self, scope: str, parked: int) -> None:
        """A parked change has a version now, or needs none: nothing is missing."""
        await self._marks.delete_many({"scope": scope, "parked": parked})

    async def keep_late(self, mark: Mark) -> None:
        """Keep what a change held that came behind newer versions, in place of its mark."""
        plain = msgspec.to_builtins(mark, builtin_types=(bytes,))
        await self._marks.put({"_id": plain.pop("id"), **plain})

    async def redact(self, id_: str, hashed: bytes) -> None:
        """Take a content out of the late changes of an object."""
        await self._marks.update_many({"scope": parked_scope(id_), "hash": hashed}, {"frame": b""})

    async def prune(self, id_: str, before: int) -> None:
        """Forget the late changes of an object from before its oldest version (milliseconds since 1970)."""
        await self._marks.delete_many({"scope": parked_scope(id_), "late": True, "at": lt(before / 1000)})


def parked_scope(id_: str) -> str:
    """Whose marks of parked changes."""
    return f"parked/{id_}"


def _mark(document: dict[str, Any]) -> Mark:
    document["id"] = document.pop("_id")
    return msgspec.convert(document, Mark)
