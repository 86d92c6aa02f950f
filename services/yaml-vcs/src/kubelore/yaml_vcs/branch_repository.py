"""The queries about drafts: the branches of an object, and what their versions hold beside the canonical content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import zstandard

from kubelore.common.contracts.branches import MAX_BRANCHES, MAX_DRAFT
from kubelore.common.errors import AlreadyExists, TooLarge
from kubelore.common.store import Database, gte, lte, one_of

_LAST = 0xFFFF
_TRIES = 5


class KeptBranch(msgspec.Struct, kw_only=True):
    """A branch as it is kept; `base` and `commit` are the version of main that it was branched off."""

    id: str
    number: int
    name: str
    base: int
    commit: bytes
    note: str
    by: str
    at: int


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """Who recorded a version and why, and the text as it was written, comments and all."""

    text: str
    by: str
    change_log: str = ""
    operation_id: str = ""
    signature: bytes = b""


class BranchRepository:
    """Everything that is kept about drafts but their versions."""

    def __init__(self, database: Database) -> None:
        self._branches = database.collection("version_branches")
        self._drafts = database.collection("version_drafts")

    async def of(self, key: bytes) -> list[KeptBranch]:
        """The drafts of an object, in the order of their numbers."""
        found = await self._branches.find({"_id": _of(key)}, limit=MAX_BRANCHES + 1)
        return [msgspec.convert(document, KeptBranch) for document in found]

    async def named(self, key: bytes, name: str) -> KeptBranch | None:
        """A draft by its name; None when there is none."""
        return next((one for one in await self.of(key) if one.name == name), None)

    async def add(self, key: bytes, branch: KeptBranch) -> KeptBranch:
        """Keep a new draft under the next free number. Raises AlreadyExists for a name that is taken, TooLarge."""
        for _ in range(_TRIES):
            known = await self.of(key)
            if any(one.name == branch.name for one in known):
                break
            if len(known) >= MAX_BRANCHES:
                raise TooLarge(
                    f"{branch.id} has {MAX_BRANCHES} branches", remedy="Delete those that are merged."
                )
            branch.number = max((one.number for one in known), default=0) + 1
            place = key + branch.number.to_bytes(2, "big")
            if await self._branches.insert_new([{"_id": place, **_plain(branch)}]):
                return branch
        raise AlreadyExists(f"{branch.id} has a branch {branch.name}", remedy="Choose another name.")

    async def remove(self, key: bytes, number: int) -> None:
        """Forget a branch; its versions are removed before."""
        await self._branches.delete(key + number.to_bytes(2, "big"))

    async def keep_draft(self, place: bytes, draft: Draft) -> None:
        """Keep what belongs to a recorded version, before the version itself; `place` is its `_id`."""
        packed = zstandard.compress(draft.text.encode())
        await self._drafts.put({"_id": place, **_plain(draft), "text": packed})

    async def drafts(self, places: Iterable[bytes]) -> dict[bytes, Draft]:
        """What belongs to recorded versions, by their `_id`s, at most 1,000."""
        found = await self._drafts.find({"_id": one_of(places)}, limit=1000)
        return {bytes(document["_id"]): _draft(document) for document in found}

    async def forget_drafts(self, first: bytes, last: bytes) -> None:
        """Remove what belongs to the versions from one `_id` to another."""
        await self._drafts.delete_many({"_id": gte(first) & lte(last)})


def _of(key: bytes) -> Any:
    return gte(key + b"\0\1") & lte(key + _LAST.to_bytes(2, "big"))


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    return msgspec.to_builtins(value, builtin_types=(bytes,))


def _draft(document: dict[str, Any]) -> Draft:
    text = zstandard.decompress(bytes(document["text"]), max_output_size=2 * MAX_DRAFT).decode()
    return msgspec.convert({**document, "text": text}, Draft)
