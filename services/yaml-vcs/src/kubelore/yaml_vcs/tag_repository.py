"""The queries about tags: names for versions, unique per object.

A tag's `_id` is its object's key and six bytes of its name's hash, so that the
tags of an object lie side by side, and a name is there once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kubelore.common.contracts.branches import MAX_TAGS
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.store import Database, gte, lte, one_of

_NAME_BYTES = 6
_CHUNK = 500


class KeptTag(msgspec.Struct, kw_only=True):
    """A tag as it is kept; `at` in milliseconds since 1970, `commit` the tagged version's, signed with the rest."""

    id: str
    cluster: str
    namespace: str
    name: str
    branch: int
    number: int
    commit: bytes
    note: str
    alert: bool
    by: str
    at: int
    drifted: int = 0
    signature: bytes = b""


class TagRepository:
    """Everything that is kept about tags."""

    def __init__(self, database: Database) -> None:
        self._tags = database.collection("version_tags")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._tags.ensure_index([("cluster", 1), ("name", 1), ("namespace", 1)])
        await self._tags.ensure_index([("alert", 1)], only={"alert": True})

    async def of(self, key: bytes) -> list[KeptTag]:
        """The tags of an object by name."""
        found = await self._tags.find({"_id": _of(key)}, limit=MAX_TAGS + _CHUNK)
        return sorted((_kept(document) for document in found), key=lambda one: one.name)

    async def tagged(self, key: bytes) -> set[tuple[int, int]]:
        """Which versions of an object have a tag, as (branch, number)."""
        found = await self._tags.find({"_id": _of(key)}, limit=MAX_TAGS + _CHUNK, fields=("branch", "number"))
        return {(document["branch"], document["number"]) for document in found}

    async def get(self, key: bytes, name: str) -> KeptTag | None:
        """A tag by its name; None when the object has none of it."""
        found = await self._tags.find_one({"_id": _place(key, name)})
        return _kept(found) if found is not None else None

    async def add(self, tags: Iterable[tuple[bytes, KeptTag]]) -> int:
        """Add tags to the objects of some keys; how many were new. One that is there stays as it is."""
        added = 0
        for chunk in _chunks([_document(key, tag) for key, tag in tags]):
            added += await self._tags.insert_new(chunk)
        return added

    async def put(self, key: bytes, tag: KeptTag) -> None:
        """Write a tag over the one of its name, or as a new one."""
        await self._tags.put(_document(key, tag))

    async def remove(self, key: bytes, name: str) -> None:
        """Take a tag away; nothing happens when there is none."""
        await self._tags.delete(_place(key, name))

    async def with_name(
        self, cluster: str, name: str, *, namespace: str = "", after: bytes | None, limit: int
    ) -> list[tuple[bytes, KeptTag]]:
        """Tags of a name in a cluster, behind a position; each with its own position."""
        where: dict[str, Any] = {"cluster": cluster, "name": name}
        if namespace:
            where["namespace"] = namespace
        found = await self._tags.find(where, limit=limit, after=None if after is None else [after])
        return [(bytes(document["_id"]), _kept(document)) for document in found]

    async def alerting(self, after: bytes | None = None) -> list[tuple[bytes, KeptTag]]:
        """Up to 500 of the tags that are to alert, behind a position; each with its own position."""
        found = await self._tags.find({"alert": True}, limit=_CHUNK, after=None if after is None else [after])
        return [(bytes(document["_id"]), _kept(document)) for document in found]

    async def note_drift(self, key: bytes, tag: KeptTag, version: int) -> None:
        """Remember which version departed from a tag, 0 for none; nothing happens when the tag has changed."""
        expected = {"drifted": tag.drifted, "number": tag.number, "branch": tag.branch}
        with suppress(Conflict, NotFound):
            await self._tags.update(_place(key, tag.name), {"drifted": version}, expect=expected)

    async def having(self, keys: Sequence[bytes], name: str) -> set[bytes]:
        """Which objects have a tag of that name."""
        places = {_place(key, name): key for key in keys}
        found: set[bytes] = set()
        for chunk in _chunks(list(places)):
            documents = await self._tags.find({"_id": one_of(chunk)}, limit=_CHUNK, fields=("number",))
            found.update(places[bytes(document["_id"])] for document in documents)
        return found


def _place(key: bytes, name: str) -> bytes:
    return key + hashlib.sha256(name.encode()).digest()[:_NAME_BYTES]


def _of(key: bytes) -> Any:
    return gte(key + bytes(_NAME_BYTES)) & lte(key + b"\xff" * _NAME_BYTES)


def _document(key: bytes, tag: KeptTag) -> dict[str, Any]:
    return {"_id": _place(key, tag.name), **msgspec.to_builtins(tag, builtin_types=(bytes,))}


def _kept(document: dict[str, Any]) -> KeptTag:
    return msgspec.convert(document, KeptTag)


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
