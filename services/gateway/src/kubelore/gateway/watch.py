"""Watching across clusters: the change feed, narrowed to a selection, as server-sent events.

Events are `added`, `modified`, `deleted`, `removed` (the object left the
selection), `reset` (list again: `reason` says why), `status` (a cluster is no
longer live, or is so again), `error` (the stream ends: resume it), and
`bookmark`, which moves the id on so that a client which saw nothing for an hour
still resumes. Nothing is queued: a slow reader holds up
its own place in the feed and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

import msgspec
import zstandard

from kubelore.common.authz import Caller
from kubelore.common.bus import Feed, FeedReset
from kubelore.common.bus.feed_window import Passed, Position
from kubelore.common.contracts.changes import UNPUBLISHED, Change, Gap, Record
from kubelore.common.errors import BadRequest, Gone, KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.gateway.event_stream import EventStream, Slots
from kubelore.gateway.fanout import FanOut
from kubelore.gateway.roster import Roster
from kubelore.gateway.selection import Selection
from kubelore.gateway.standing import Standing

log = get_logger(__name__)

HEARTBEAT_S = 10.0
RETRY_S = 1.0

Reason = Literal["missed", "joined", "left", "too-large"]


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants to see; empty means everything that its caller may see, and `since` from now on."""

    standing: Standing
    types: list[str]
    clusters: list[str]
    namespaces: list[str]
    labels: str
    fields: str
    since: str

    @property
    def caller(self) -> Caller:
        """Who wants to see it."""
        return self.standing.caller


class Watches:
    """Opens watch streams, at most `limit` at once."""

    def __init__(self, feed: Feed, fan_out: FanOut, roster: Roster, limit: int) -> None:
        self._feed = feed
        self._fan_out = fan_out
        self._roster = roster
        self.slots = Slots(limit)

    async def open(self, asked: WatchRequest) -> EventStream:
        """The answer. Raises BadRequest, NotFound, Unavailable or TooManyRequests before anything is sent."""
        caller = asked.caller
        self.slots.check(caller.subject)
        self._roster.select(caller, asked.clusters)
        types = await self._fan_out.resolve_types(caller, asked.types) if asked.types else []
        refuse_unpublished(types)
        selection = Selection(types, asked.namespaces, asked.labels, asked.fields, caller)
        since = str(Position.parse(asked.since)) if asked.since else await self._feed.position()
        stream = _Stream(self._feed, self._roster, selection, asked, since)
        return EventStream(stream.chunks(), self.slots, caller.subject)


def refuse_unpublished(types: list[str]) -> None:
    """A stream that could never say anything must not look like a quiet one."""
    silent = sorted(UNPUBLISHED.intersection(types))
    if silent:
        raise BadRequest(
            f"{', '.join(silent)} are not in the stream of changes: they change all the time",
            remedy="List them instead, again and again if need be.",
        )


class _Stream:
    """One client's way along the feed. `_at` is the id of the last event that was sent or passed over."""

    def __init__(
        self, feed: Feed, roster: Roster, selection: Selection, asked: WatchRequest, since: str
    ) -> None:
        self._feed = feed
        self._roster = roster
        self._selection = selection
        self._caller = asked.caller
        self._standing = asked.standing
        self._selectors = asked.clusters
        self._at = since
        self._told: dict[str, str] = {}
        """The status of each cluster as the client knows it; live where it was told nothing."""

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Everything that is sent, until the reader leaves or an error ends it."""
        yield b": connected\n\n"
        lapse = asyncio.ensure_future(self._standing.lapse())
        try:
            async with aclosing(self._rounds(lapse)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except KubeloreError as error:
            log.warning("watch ended", reason=error.reason, detail=error.detail)
            yield _frame("error", self._at, {"reason": error.reason, "detail": error.detail})
        finally:
            lapse.cancel()
            await asyncio.gather(lapse, return_exceptions=True)

    async def _rounds(self, lapse: asyncio.Future[NoReturn]) -> AsyncGenerator[bytes]:
        """Follow the feed anew whenever the clusters have changed, and say which came and went."""
        members = self._members()
        while True:
            news = self._roster.news()
            every = not self._selectors and self._caller.unrestricted
            chosen = None if every else frozenset(members)
            async with aclosing(self._until(news, lapse, self._follow(chosen))) as chunks:
                async for chunk in chunks:
                    yield chunk
            before, members = members, self._members()
            for name in sorted(before.keys() | members.keys()):
                if before.get(name) != members.get(name):
                    yield self._reset("joined" if name in members else "left", name)

    def _members(self) -> dict[str, int]:
        """Chosen clusters and which of their name they are: one removed and added again is another."""
        names = self._roster.matching(self._caller, self._selectors)
        return {name: self._roster.generation(name) for name in names}

    async def _until(
        self, news: asyncio.Event, lapse: asyncio.Future[NoReturn], source: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        """What comes from `source`, statuses, and bookmarks while nothing does, until there is news.

        Raises what ends the caller's standing, before anything else is sent.
        """
        changed, turned = asyncio.ensure_future(news.wait()), self._next_turn()
        pending: asyncio.Future[bytes | None] | None = None
        try:
            for status in self._statuses():
                yield status
            while True:
                pending = pending or asyncio.ensure_future(anext(source, None))
                await asyncio.wait(
                    {pending, changed, turned, lapse},
                    timeout=HEARTBEAT_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if lapse.done():
                    lapse.result()
                if turned.done():
                    turned = self._next_turn()
                    for status in self._statuses():
                        yield status
                elif pending.done():
                    chunk, pending = pending.result(), None
                    if chunk is None:
                        return
                    yield chunk
                elif changed.done():
                    return
                else:
                    yield _frame("bookmark", self._at, {})
        finally:
            # At once: a chunk that came meanwhile would be passed over with nobody told.
            waiting: list[asyncio.Future[Any]] = [changed, turned, *([pending] if pending else [])]
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await source.aclose()

    def _next_turn(self) -> asyncio.Future[Literal[True]]:
        return asyncio.ensure_future(self._roster.turn().wait())

    def _statuses(self) -> list[bytes]:
        """What is to be told of chosen clusters whose observer is no longer as the client knows it."""
        names = self._members().keys()
        self._told = {name: status for name, status in self._told.items() if name in names}
        frames: list[bytes] = []
        for name in names:
            observed, told = self._roster.observed(self._caller, name), self._told.get(name, "live")
            if observed is None or observed.status == told:
                continue
            self._told[name] = observed.status
            as_of = datetime.fromtimestamp(observed.as_of, UTC) if observed.as_of is not None else None
            body = {
                "cluster": name,
                "status": observed.status,
                "as_of": as_of,
                "error": observed.error or None,
            }
            frames.append(_frame("status", self._at, body))
        return frames

    async def _follow(self, clusters: frozenset[str] | None) -> AsyncGenerator[bytes]:
        while True:
            try:
                async with aclosing(self._feed.follow(self._at, clusters)) as records:
                    async for event_id, record in records:
                        self._at = event_id
                        chunk = self._render(record)
                        if chunk is not None:
                            yield chunk
            except Gone as error:
                log.info("watch begins anew", detail=error.detail)
                self._at = await self._feed.position()
                yield self._reset("missed")
                await asyncio.sleep(RETRY_S)

    def _render(self, record: Record | FeedReset | Passed) -> bytes | None:
        if isinstance(record, Change):
            return self._render_change(record)
        if isinstance(record, Gap):
            concerned = self._selection.concerns(record.type)
            if concerned and self._selection.reaches(record.cluster, record.namespace):
                return self._reset("missed", record.cluster, record.type)
        if isinstance(record, FeedReset):
            return self._reset("missed", record.cluster)
        return None

    def _render_change(self, change: Change) -> bytes | None:
        try:
            seen = self._selection.see(change)
        except (KubeloreError, zstandard.ZstdError) as error:
            # Passed over, or every resumed stream would end at it again.
            log.error("change not readable", id=change.id, rv=change.rv, error=str(error))
            return self._reset("missed", change.cluster, change.type)
        if seen is None:
            return None
        if seen.happening == "reset":
            return self._reset("too-large", change.cluster, change.type)
        body = {
            "id": change.id,
            "cluster": change.cluster,
            "type": change.type,
            "rv": change.rv,
            "old_rv": change.old_rv,
            "object": msgspec.Raw(seen.object),
        }
        return _frame(seen.happening, self._at, body)

    def _reset(self, reason: Reason, cluster: str = "", type_name: str = "") -> bytes:
        return _frame("reset", self._at, {"cluster": cluster, "type": type_name, "reason": reason})


def _frame(name: str, event_id: str, body: object) -> bytes:
    data = msgspec.json.encode(body)
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), event_id.encode(), data)
