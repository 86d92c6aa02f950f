"""The queries about segments of logs: one document each, which is there once.

A batch's `_id` is its owner and sequence, so that of two who believe they hold
the owner's lease one is refused. A merged segment names those it is made of:
who has met it passes over them. They stay, retired, for as long as a search
may run that had begun among them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import zstandard

from kubelore.common.store import Database, gt, gte, lt, not_lt, one_of, present
from kubelore.common.store.paging import Sort
from kubelore.container_ops.lines import Cursor
from kubelore.container_ops.segments import Resume, Segment, SegmentIndex

_CHUNK = 200
_MAX_INDEX = 64 * 1024 * 1024
_PLAIN: dict[str, Any] = {
    "owner": "",
    "sequence": 0,
    "batch": "",
    "policy": "",
    "cluster": "",
    "first": 0,
    "last": 0,
    "lines": 0,
    "raw": 0,
    "size": 0,
    "level": 0,
    "blob": "",
    "key": b"",
    "written": 0,
}
_HEAD = tuple(_PLAIN)
RETIRED = -1
"""The level of a segment that is part of a merged one."""


class SegmentScope(msgspec.Struct, frozen=True, kw_only=True):
    """Which segments are meant: of these clusters (none: nothing), and of all else that is named.

    They have lines from `since` until before `until` (ns; 0: no end).
    """

    since: int = 0
    until: int = 0
    clusters: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    pod: str = ""
    workload: str = ""
    policy: str = ""


class SegmentRepository:
    """Everything that is kept about segments."""

    def __init__(self, database: Database) -> None:
        self._segments = database.collection("log_segments")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._segments.ensure_index([("owner", 1), ("sequence", -1)])
        await self._segments.ensure_index([("cluster", 1), ("last", -1)])
        await self._segments.ensure_index([("cluster", 1), ("first", 1)])
        await self._segments.ensure_index([("level", 1), ("written", 1)])
        await self._segments.ensure_index([("policy", 1), ("last", 1)])
        await self._segments.ensure_index([("blob", 1)])
        await self._segments.ensure_index([("merges", 1)], unique=True, only={"merges": present()})

    async def add(self, segment: Segment, cursors: dict[str, Cursor] | None = None) -> None:
        """Add a segment. Raises AlreadyExists when its owner has one of that sequence."""
        await self._segments.insert(_document(segment, cursors))

    async def batch_of(self, segment_id: str) -> str:
        """Which batch a segment was made of. Raises NotFound."""
        return (await self._segments.get(segment_id))["batch"]

    async def resume(self, owner: str) -> Resume:
        """The newest sequence of an owner, with the cursors it left."""
        found = await self._segments.find_one({"owner": owner}, sort=[("sequence", -1)])
        if found is None:
            return Resume()
        return Resume(found["sequence"], _cursors(found["cursors"]))

    async def newest(self, owner: str) -> str:
        """The id of the newest segment of an owner; empty where there is none."""
        found = await self._segments.find(
            {"owner": owner}, sort=[("sequence", -1)], limit=1, fields=("sequence",)
        )
        return found[0]["_id"] if found else ""

    async def overlapping(
        self,
        where: SegmentScope,
        *,
        newest_first: bool,
        began: int = 0,
        after: list[Any] | None = None,
        limit: int = _CHUNK,
    ) -> list[Segment]:
        """Segments with lines of a scope, by when they end (newest first) or begin; `after` is the last one's `place`.

        Those that were retired before the search `began` (ns) are left out: it meets the merged ones.
        """
        query: dict[str, Any] = {
            "last": gte(where.since),
            "cluster": one_of(where.clusters),
            "retired": not_lt(began),
        }
        if where.until:
            query["first"] = lt(where.until)
        named = {"pods": where.pod, "workloads": where.workload, "policy": where.policy}
        query.update({field: value for field, value in named.items() if value})
        if where.namespaces:
            query["namespaces"] = one_of(where.namespaces)
        sort: Sort = [("last", -1)] if newest_first else [("first", 1)]
        found = await self._segments.find(query, sort=sort, limit=limit, after=after)
        return [_segment(one) for one in found]

    async def newest_of(self, cluster: str, *, limit: int) -> list[Segment]:
        """The segments of a cluster that end last."""
        query = {"cluster": cluster, "level": gt(RETIRED)}
        found = await self._segments.find(query, sort=[("last", -1)], limit=limit)
        return [_segment(one) for one in found]

    async def of_policy(self, policy: str, *, page: int = _CHUNK) -> AsyncIterator[Segment]:
        """The segments of a policy, retired ones among them, by when they end; without their index."""
        async for found in self._segments.scan(
            {"policy": policy}, sort=[("last", 1)], page=page, fields=_HEAD
        ):
            yield _segment(found)

    async def policies(self) -> list[str]:
        """The policies that something is held of."""
        return await self._segments.distinct("policy")

    async def small(self, below: int, before: int, *, limit: int) -> list[Segment]:
        """Segments of level 0 that were written before a time (ns), the oldest first, without their index."""
        query = {"level": 0, "raw": lt(below), "written": lt(before), "lines": gt(0)}
        found = await self._segments.find(query, sort=[("written", 1)], limit=limit, fields=_HEAD)
        return [_segment(one) for one in found]

    async def with_ids(self, ids: Sequence[str]) -> list[Segment]:
        """Those of the ids that are there, whole."""
        found = await self._segments.find({"_id": one_of(ids)}, limit=max(1, len(ids)))
        return [_segment(one) for one in found]

    async def merged(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids are part of a merged segment by now."""
        found = await self._segments.find({"merges": one_of(ids)}, limit=max(1, len(ids)), fields=("merges",))
        return {one for document in found for one in document["merges"]}.intersection(ids)

    async def retire(self, ids: Sequence[str], now: int) -> None:
        """Mark segments as part of a merged one since `now` (ns)."""
        await self._segments.update_many({"_id": one_of(ids)}, {"level": RETIRED, "retired": now})

    async def remove_retired(self, before: int) -> None:
        """Forget those that were retired before a time (ns)."""
        await self._segments.delete_many({"level": RETIRED, "retired": lt(before)})

    async def blobs(self, keys: Sequence[str]) -> set[str]:
        """Which of these blobs belong to a segment."""
        found = await self._segments.find({"blob": one_of(keys)}, limit=max(1, len(keys)), fields=("blob",))
        return {document["blob"] for document in found}

    async def hollow(self, segment_id: str) -> None:
        """Take the lines of a segment out of its document; how far its owner came stays."""
        empty = {"lines": 0, "raw": 0, "size": 0, "blob": "", "index": _packed(SegmentIndex([], []))}
        await self._segments.update(segment_id, {**empty, "namespaces": [], "pods": [], "workloads": []})

    async def remove(self, ids: Sequence[str]) -> None:
        """Forget segments."""
        await self._segments.delete_many({"_id": one_of(ids)})


def _document(segment: Segment, cursors: dict[str, Cursor] | None) -> dict[str, Any]:
    keys = [stream.key for stream in segment.index.streams]
    document = {
        "_id": segment.id,
        **{name: getattr(segment, name) for name in _PLAIN},
        "namespaces": sorted({key.namespace for key in keys}),
        "pods": sorted({key.pod for key in keys}),
        "workloads": sorted({key.workload for key in keys if key.workload}),
        "index": _packed(segment.index),
    }
    if segment.merges:
        document["merges"] = segment.merges
    if cursors is not None:
        document["cursors"] = _packed(cursors)
    return document


def _segment(document: dict[str, Any]) -> Segment:
    index = document.get("index")
    return Segment(
        id=document["_id"],
        **{name: document.get(name, _PLAIN[name]) for name in _PLAIN},
        merges=document.get("merges", []),
        index=_unpacked(index, SegmentIndex) if index else SegmentIndex([], []),
    )


def _cursors(packed: bytes | None) -> dict[str, Cursor]:
    return _unpacked(packed, dict[str, Cursor]) if packed else {}


def _packed(value: Any) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(value))


def _unpacked(packed: bytes, kind: type[Any]) -> Any:
    plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_INDEX)
    return msgspec.msgpack.decode(plain, type=kind)
