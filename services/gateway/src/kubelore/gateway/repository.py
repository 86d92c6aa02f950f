"""The only place with queries to MongoDB: the entries of the audit log."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from kubelore.common.crypto.chain import Link
from kubelore.common.store import Condition, Database, gt, gte, lt, lte, one_of, position, present
from kubelore.gateway.audit.entries import Entry

NEWEST_FIRST: Sequence[tuple[str, Literal[1, -1]]] = (("at", -1), ("_id", -1))
MAX_LIMIT = 10_000
_FILTERED = ("actor", "action", "resource", "cluster", "outcome")
_AROUND = ("_id", "hash", "shown")
"""Fields of a document that are no part of the entry that was hashed."""
PAGE = 250
STRETCH = 50


class Written(NamedTuple):
    """An entry as it lies in the database: `content` is all that the hash covers, `shown` is not."""

    id: str
    link: Link
    content: dict[str, Any]
    shown: bool


def entry_id(chain: str, number: int) -> str:
    """The `_id` of an entry: those of one chain stand in their order."""
    return f"{chain}/{number:012d}"


class AuditRepository:
    """Entries in their chains. Nothing here changes one; `shown` stands beside it.

    An act has two entries; once the second is there, the first need not be
    `shown` any more. That is kept beside the entries, so that lists need one index.
    """

    def __init__(self, database: Database) -> None:
        self._entries = database.collection("audit")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        shown = {"shown": True}
        await self._entries.ensure_index(NEWEST_FIRST, only=shown)
        for field in _FILTERED:
            await self._entries.ensure_index([(field, 1), *NEWEST_FIRST], only=shown)
        await self._entries.ensure_index([("at", 1)])
        await self._entries.ensure_index([("closes", 1)], only={"closes": present()})

    async def append(self, chain: str, links: Sequence[Link], contents: Sequence[dict[str, Any]]) -> None:
        """Write entries behind each other, acknowledged and on disk; to repeat it does no harm."""
        await self._entries.insert_new(
            [
                {
                    **content,
                    "_id": entry_id(chain, link.number),
                    "hash": link.hash,
                    "shown": True,
                }
                for link, content in zip(links, contents, strict=True)
            ]
        )

    async def hide(self, ids: Sequence[str]) -> None:
        """Show the intents no longer whose ends were written."""
        await self._entries.update_many({"_id": one_of(ids)}, {"shown": False})

    async def page(
        self, where: Mapping[str, str | Condition], limit: int, after: Sequence[Any] | None
    ) -> list[tuple[list[Any], Entry, str]]:
        """At most `limit` of what is shown, newest first: position, entry and id."""
        found = await self._entries.find(
            {**where, "shown": True}, sort=NEWEST_FIRST, limit=limit, after=after
        )
        return [(position(document, NEWEST_FIRST), _entry(document), document["_id"]) for document in found]

    async def closed(self, intents: Sequence[str]) -> set[str]:
        """Those of some intents whose ends were written."""
        found: set[str] = set()
        for start in range(0, len(intents), 1000):
            ends = await self._entries.find(
                {"closes": one_of(intents[start : start + 1000])}, limit=1000, fields=("closes",)
            )
            found.update(document["closes"] for document in ends)
        return found

    async def chains(self) -> AsyncIterator[str]:
        """The chains that have entries, each found by one look behind the last."""
        after = ""
        while True:
            found = await self._entries.find({"_id": gt(after)}, limit=1, fields=("_id",))
            if not found:
                return
            name = str(found[0]["_id"]).rpartition("/")[0]
            yield name
            after = f"{name}0"

    async def along(self, chain: str, *, before: float = math.inf) -> AsyncIterator[Written]:
        """The entries of a chain in their order, up to the first one that was not made `before` a time."""
        count = 0
        async for document in self._entries.scan({"_id": _within(chain)}, page=PAGE):
            if not _made(document) < before:
                return
            count += 1
            if count % STRETCH == 0:
                # Hashing is quick, but a page of it would keep every request waiting.
                await asyncio.sleep(0)
            yield Written(
                document["_id"], _link(document), _content(document), document.get("shown") is not False
            )

    async def newest(self, chain: str) -> Written | None:
        """The last entry of a chain; None when it has none."""
        found = await self._entries.find_one({"_id": _within(chain)}, sort=(("_id", -1),))
        return Written(found["_id"], _link(found), _content(found), True) if found else None

    async def count(self) -> int:
        """How many entries there are in all chains."""
        return await self._entries.count()

    async def age_of(self, number: int) -> float:
        """When the `number`-th oldest entry was made; of those further up the 10,000th tells it."""
        found = await self._entries.find({}, sort=(("at", 1),), limit=min(number, MAX_LIMIT), fields=("at",))
        return _made(found[-1]) if found else 0.0

    async def prune(self, chain: str, number: int) -> int:
        """Delete the entries of a chain up to a number; how many they were."""
        return await self._entries.delete_many(
            {"_id": gte(entry_id(chain, 0)) & lte(entry_id(chain, number))}
        )


def _within(chain: str) -> Condition:
    return gt(f"{chain}/") & lt(f"{chain}0")


def _link(document: Mapping[str, Any]) -> Link:
    number, digest = str(document["_id"]).rpartition("/")[2], document.get("hash")
    return Link(int(number) if number.isdecimal() else -1, digest if isinstance(digest, bytes) else b"")


def _made(document: Mapping[str, Any]) -> float:
    at = document.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _AROUND}


def _entry(document: Mapping[str, Any]) -> Entry:
    """What a document says; whoever meddled with it shall not hide the others by it."""
    try:
        return msgspec.convert(_content(document), Entry)
    except msgspec.ValidationError:
        return Entry(at=_made(document), action="unreadable", outcome="unknown")
