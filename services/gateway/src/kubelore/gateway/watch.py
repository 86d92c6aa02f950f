"""Watching across clusters: the change feed, narrowed to a selection, as server-sent events.

Events are `added`, `modified`, `deleted`, `removed` (the object left the
selection), `reset` (changes were missed: list again), and `bookmark`, which
moves the id on so that a client which saw nothing for an hour still resumes.
A slow reader fills its own small queue and slows nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import zstandard

from kubelore.common.bus import Feed, FeedReset
from kubelore.common.contracts.changes import Change, Gap, Record
from kubelore.common.errors import Gone, KubeloreError, TooManyRequests
from kubelore.common.kube import facts
from kubelore.common.kube.selectors import FieldSelector, LabelSelector
from kubelore.common.telemetry import get_logger
from kubelore.gateway.fanout import FanOut
from kubelore.gateway.roster import Roster

log = get_logger(__name__)

QUEUE = 256
HEARTBEAT_S = 10.0
MAX_OBJECT = 16 * 1024 * 1024


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants to see; empty means everything."""

    types: list[str]
    clusters: list[str]
    namespaces: frozenset[str]
    labels: str
    fields: str
    since: str


class Selection:
    """Decides what of the feed a client sees, as which event."""

    def __init__(self, asked: WatchRequest, types: frozenset[str], clusters: frozenset[str] | None) -> None:
        self._types = types
        self.clusters = clusters
        self._namespaces = asked.namespaces
        self._labels = LabelSelector.parse(asked.labels)
        self._fields = FieldSelector.parse(asked.fields)
        self._decompress = zstandard.ZstdDecompressor().decompress

    def concerns(self, cluster: str, type_name: str) -> bool:
        """Whether anything of this type in this cluster can be part of the selection."""
        if self._types and type_name not in self._types:
            return False
        return self.clusters is None or cluster in self.clusters

    def event(self, change: Change) -> tuple[str, bytes] | None:
        """The event's name and the object, or None when the client does not see this change."""
        if change.kind == "observed" or not self.concerns(change.cluster, change.type):
            return None
        namespace = change.id.split(":", 3)[2]
        if self._namespaces and namespace not in self._namespaces:
            return None
        raw = self._decompress(change.object, max_output_size=MAX_OBJECT) if change.object else b"null"
        if not self._labels and not self._fields:
            return _NAMES[change.kind], raw
        return self._selected(change, raw)

    def _selected(self, change: Change, raw: bytes) -> tuple[str, bytes] | None:
        found = facts.read(change.type, raw)
        identity = {"metadata.name": found.meta.name, "metadata.namespace": found.meta.namespace}
        fields = dict(zip(facts.field_paths(change.type), found.fields, strict=True))
        now = self._matches(found.meta.labels or {}, identity | fields)
        before = now
        if change.was is not None:
            before = self._matches(change.was.labels, identity | change.was.fields)
        if change.kind in ("created", "deleted"):
            return (_NAMES[change.kind], raw) if now else None
        if now:
            return ("modified" if before else "added"), raw
        return ("removed", raw) if before else None

    def _matches(self, labels: dict[str, str], fields: dict[str, str]) -> bool:
        return self._labels.matches(labels) and self._fields.matches(fields)


_NAMES = {"created": "added", "updated": "modified", "deleted": "deleted"}


class Watches:
    """Opens watch streams, at most `limit` at once."""

    def __init__(self, feed: Feed, fan_out: FanOut, roster: Roster, limit: int) -> None:
        self._feed = feed
        self._fan_out = fan_out
        self._roster = roster
        self._limit = limit
        self._open = 0

    async def open(self, asked: WatchRequest) -> AsyncIterator[bytes]:
        """The bytes of a stream. Raises BadRequest, NotFound or TooManyRequests before anything is sent."""
        if self._open >= self._limit:
            raise TooManyRequests(
                f"{self._limit} watches are open already",
                remedy="Close some, or ask again later.",
                retry_after_s=10,
            )
        clusters = frozenset(self._roster.select(asked.clusters)) if asked.clusters else None
        types = frozenset(await self._fan_out.resolve_types(asked.types)) if asked.types else frozenset()
        selection = Selection(asked, types, clusters)
        position = asked.since or await self._feed.position()
        return self._stream(selection, position)

    async def _stream(self, selection: Selection, position: str) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        self._open += 1
        pump = asyncio.create_task(self._pump(selection, position, queue))
        try:
            yield b": connected\n\n"
            while (chunk := await queue.get()) is not None:
                yield chunk
        finally:
            self._open -= 1
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, selection: Selection, position: str, queue: asyncio.Queue[bytes | None]) -> None:
        seen = _Seen(position)
        heart = asyncio.create_task(_beat(seen, queue))
        try:
            while True:
                try:
                    await self._follow(selection, seen, queue)
                except Gone:
                    seen.id = await self._feed.position()
                    await queue.put(_frame("reset", seen.id, {"cluster": "", "type": ""}))
        except KubeloreError as error:
            log.warning("watch ended", reason=error.reason, detail=error.detail)
            await queue.put(_frame("error", seen.id, {"reason": error.reason, "detail": error.detail}))
        finally:
            heart.cancel()
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    async def _follow(self, selection: Selection, seen: _Seen, queue: asyncio.Queue[bytes | None]) -> None:
        async for event_id, record in self._feed.follow(seen.id, selection.clusters):
            chunk = _render(selection, event_id, record)
            if chunk is not None:
                await queue.put(chunk)
            seen.id = event_id


class _Seen:
    """The id up to which a stream has been read; the heartbeat sends it along."""

    def __init__(self, event_id: str) -> None:
        self.id = event_id


async def _beat(seen: _Seen, queue: asyncio.Queue[bytes | None]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await queue.put(_frame("bookmark", seen.id, {}))


def _render(selection: Selection, event_id: str, record: Record | FeedReset) -> bytes | None:
    if isinstance(record, Change):
        event = selection.event(record)
        if event is None:
            return None
        name, raw = event
        body = {
            "id": record.id,
            "cluster": record.cluster,
            "type": record.type,
            "rv": record.rv,
            "old_rv": record.old_rv,
            "object": msgspec.Raw(raw),
        }
        return _frame(name, event_id, body)
    if isinstance(record, Gap) and selection.concerns(record.cluster, record.type):
        return _frame("reset", event_id, {"cluster": record.cluster, "type": record.type})
    if isinstance(record, FeedReset):
        return _frame("reset", event_id, {"cluster": record.cluster, "type": ""})
    return None


def _frame(name: str, event_id: str, body: object) -> bytes:
    data = msgspec.json.encode(body)
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), event_id.encode(), data)
