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
_COMMIT_BYTES = 20
_TRIES = 5


class KeptBranch(msgspec.Struct, kw_only=True):
    """A branch as it is kept: `commit` is that of the version of main which its own first version follows.

    `base` is the version of main that it was brought up to last, and `content`
    what cluster and draft have in common (canonical JSON), kept here since that
    version may be pruned. `merged` is the version that went into the cluster last.
    """

    id: str
    number: int
    name: str
    base: int
    commit: bytes
    content: bytes
    note: str
    by: str
    at: int
    merged: int = 0


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
        return [_branch(document) for document in found]

    async def named(self, key: bytes, name: str) -> KeptBranch | None:
        """A draft by its name; None when there is none."""
        return next((one for one in await self.of(key) if one.name == name), None)

    async def add(self, key: bytes, branch: KeptBranch) -> KeptBranch:
        """Keep a new draft under the next free number. Raises AlreadyExists for a name that is taken, TooLarge."""
        packed = zstandard.compress(branch.content)
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
            if await self._branches.insert_new([{"_id": place, **_plain(branch), "content": packed}]):
                return branch
        raise AlreadyExists(f"{branch.id} has a branch {branch.name}", remedy="Choose another name.")

    async def remove(self, key: bytes, number: int) -> None:
        """Forget a branch; its versions are removed before."""
        await self._branches.delete(key + number.to_bytes(2, "big"))

    async def set_base(self, key: bytes, branch: KeptBranch) -> None:
        """Note what cluster and draft have in common from now on, as `base`, `content` and `merged` say."""
        packed = zstandard.compress(branch.content)
        changes = {"base": branch.base, "content": packed, "merged": branch.merged}
        await self._branches.update(key + branch.number.to_bytes(2, "big"), changes)

    async def keep_draft(self, place: bytes, draft: Draft) -> None:
        """Keep what belongs to a recorded version, before the version itself.

        `place` is the version's `_id` and commit: of two that are recorded in one
        place at once, one gets no version, and must not leave its text with the other's.
        """
        packed = zstandard.compress(draft.text.encode())
        await self._drafts.put({"_id": place, **_plain(draft), "text": packed})

    async def drafts(self, places: Iterable[bytes]) -> dict[bytes, Draft]:
        """What belongs to recorded versions, by their places, at most 1,000."""
        found = await self._drafts.find({"_id": one_of(places)}, limit=1000)
        return {bytes(document["_id"]): _draft(document) for document in found}

    async def forget_drafts(self, first: bytes, last: bytes) -> None:
        """Remove what belongs to the versions from one `_id` to another."""
        place = gte(first + bytes(_COMMIT_BYTES)) & lte(last + b"\xff" * _COMMIT_BYTES)
        await self._drafts.delete_many({"_id": place})


def _of(key: bytes) -> Any:
    return gte(key + b"\0\1") & lte(key + _LAST.to_bytes(2, "big"))


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    return msgspec.to_builtins(value, builtin_types=(bytes,))


def _branch(document: dict[str, Any]) -> KeptBranch:
    content = zstandard.decompress(bytes(document["content"]), max_output_size=8 * MAX_DRAFT)
    return msgspec.convert({**document, "content": content}, KeptBranch)


def _draft(document: dict[str, Any]) -> Draft:
    text = zstandard.decompress(bytes(document["text"]), max_output_size=2 * MAX_DRAFT).decode()
    return msgspec.convert({**document, "text": text}, Draft)
