"""Lines that match, over what is stored and what runs now: pages in the order of time, and counts over time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.log_search import (
    MAX_BUCKETS,
    MAX_FOUND,
    MAX_SEARCH_S,
    CountedLogs,
    CountedSpan,
    CountLogs,
    FoundGap,
    FoundPosition,
    SearchedLogs,
    SearchLogs,
)
from kubelore.common.contracts.logs import LogFilter
from kubelore.common.errors import BadRequest, DeadlineExceeded
from kubelore.container_ops.found_lines import Hit, best, origin_of, page_of, rfc3339, shown
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.live_search import LiveHits, LiveSearch
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_places import Places
from kubelore.container_ops.segment_blocks import PlainBlock
from kubelore.container_ops.segment_filtering import SegmentFilters
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import Segment, StreamGap, StreamKey
from kubelore.container_ops.stored_search import Match, StoredSearch

T = TypeVar("T")
U = TypeVar("U")

MAX_GAPS = 100
OVERTIME_S = 10.0
"""So much longer than asked for is searched where nothing would be sure otherwise."""
_NARROW = "Narrow it to a shorter time, or to a namespace or pod."
MINUTE_NS = 60 * 10**9
COUNTED_NS = 24 * 3600 * 1_000_000_000
"""How far back is counted where no beginning is named."""


class LogSearch:
    """Answers SEARCH_LOGS and COUNT_LOGS for callers who may read the pods."""

    def __init__(self, store: SegmentStore, live: LiveSearch) -> None:
        self._store = store
        self._filters = SegmentFilters(store)
        self._live = live

    async def search(self, request: SearchLogs) -> SearchedLogs:
        """A page of lines. Raises NotFound and Forbidden for places, BadRequest for a filter that cannot be."""
        if not 1 <= request.limit <= MAX_FOUND:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_FOUND}")
        deadline = time.monotonic() + _seconds(request.seconds)
        places = Places(request.places, current_caller())
        wanted = LineFilter(_behind(request))
        newest_first = request.direction == "backward"
        stored = StoredSearch(self._store, self._filters, places, wanted, newest_first=newest_first)
        live, (hits, frontier) = await _together(
            self._live_hits(request, places, wanted), _first_hits(stored, request, deadline)
        )
        hits += [hit for hit in live.hits if _sure(hit, frontier, newest_first=newest_first)]
        page, following = page_of(hits, request.after, newest_first=newest_first, limit=request.limit)
        if following is None and frontier is not None:
            following = _at_frontier(frontier, newest_first=newest_first)
        stored.work.live_containers = live.containers
        return SearchedLogs(
            items=[shown(hit) for hit in page],
            next=following,
            gaps=[_gap(key, gap) for key, gap in stored.gaps[:MAX_GAPS]],
            partial=bool(live.problems),
            problems=live.problems,
            work=stored.work,
        )

    async def count(self, request: CountLogs) -> CountedLogs:
        """How many lines match over time. Raises as `search` does."""
        if not 1 <= request.buckets <= MAX_BUCKETS:
            raise BadRequest(f"{request.buckets} spans are not between 1 and {MAX_BUCKETS}")
        deadline = time.monotonic() + _seconds(request.seconds)
        until = request.filter.until or _soon()
        since = request.filter.since or until - COUNTED_NS
        if since >= until:
            raise BadRequest("what is counted ends before it begins")
        places = Places(request.places, current_caller())
        asked = msgspec.structs.replace(request.filter, since=since, until=until)
        wanted = LineFilter(asked)
        spans = _Spans(since, until, request.buckets)
        stored = StoredSearch(self._store, self._filters, places, wanted, newest_first=True)
        counting = _count(stored, spans, deadline if request.stored else None)
        live, complete_from = await _together(
            self._live_hits(request, places, wanted, strictly=True), counting
        )
        spans.add([Counter(spans.place(hit.at) for hit in live.hits)])
        stored.work.live_containers = live.containers
        return CountedLogs(
            items=spans.shown(),
            step_s=spans.step / 1e9,
            total=sum(spans.counts),
            complete_from=rfc3339(complete_from),
            partial=bool(live.problems) or complete_from > since,
            problems=live.problems,
            work=stored.work,
        )

    async def _live_hits(
        self, request: SearchLogs | CountLogs, places: Places, wanted: LineFilter, *, strictly: bool = False
    ) -> LiveHits:
        if not request.live:
            return LiveHits()
        return await self._live.search(
            places, wanted, beyond_stored=request.stored, strictly=strictly, seconds=request.seconds
        )


def _soon() -> int:
    """The end of this minute: who asks twice within it sees the same spans, and can compare them."""
    return (time.time_ns() // MINUTE_NS + 1) * MINUTE_NS


def _seconds(asked: float) -> float:
    if not 0 < asked <= MAX_SEARCH_S:
        raise BadRequest(f"a search takes up to {MAX_SEARCH_S} s, not {asked}")
    return asked


def _behind(request: SearchLogs) -> LogFilter:
    """The filter, narrowed to what can lie behind the position."""
    asked, after = request.filter, request.after
    if after is None:
        return asked
    if request.direction == "forward":
        return msgspec.structs.replace(asked, since=max(asked.since, after.at))
    return msgspec.structs.replace(asked, until=min(asked.until or after.at + 1, after.at + 1))


def _at_frontier(frontier: int, *, newest_first: bool) -> FoundPosition:
    """Where the next page begins when everything was found on this side of a time, and nothing at it is sure.

    Names of clusters, with which every origin begins, lie between the two texts.
    """
    return FoundPosition(frontier, "~" if newest_first else "", -1)


def _sure(hit: Hit, frontier: int | None, *, newest_first: bool) -> bool:
    """Whether all that comes before a hit is known."""
    return frontier is None or (hit.at > frontier if newest_first else hit.at < frontier)


async def _first_hits(
    stored: StoredSearch, request: SearchLogs, deadline: float
) -> tuple[list[Hit], int | None]:
    """Stored hits enough for the page, and the time behind which there may be more (None: there are none)."""
    newest_first = request.direction == "backward"
    begun_at = request.after.at if request.after is not None else None
    hits: list[Hit] = []
    frontier: int | None = None
    if not request.stored:
        return hits, None
    limit = 2 * request.limit + 1
    async with aclosing(stored.windows(_collect(newest_first, begun_at, limit))) as windows:
        async for found, frontier in windows:
            hits += (hit for several in found for hit in several)
            hits = best(hits, begun_at, newest_first=newest_first, limit=limit)
            sure = [hit for hit in hits if _sure(hit, frontier, newest_first=newest_first)]
            enough = sum(hit.at != begun_at for hit in sure) > request.limit
            if enough or (stored.moved and time.monotonic() > deadline):
                break
            if time.monotonic() > deadline + OVERTIME_S:
                raise DeadlineExceeded("the search takes too long", remedy=_NARROW)
    return [hit for hit in hits if _sure(hit, frontier, newest_first=newest_first)], frontier


def _collect(
    newest_first: bool, begun_at: int | None, limit: int
) -> Callable[[Segment, int, PlainBlock, list[Match]], list[Hit]]:
    def collect(segment: Segment, number: int, block: PlainBlock, matches: list[Match]) -> list[Hit]:
        """The first hits of a block, and all that have the time of the last of them."""
        matches = best(matches, begun_at, newest_first=newest_first, limit=limit)
        lines, cuts = block.text.split(b"\n"), set(block.columns.cuts)
        keys = {one.stream: segment.index.streams[one.stream].key for one in matches}
        origins = {place: origin_of(key) for place, key in keys.items()}
        return [
            Hit(
                at,
                origins[stream],
                (segment.first, segment.written, number, line),
                keys[stream],
                LogLine(at, lines[line], line not in cuts),
                stored=True,
            )
            for at, stream, line in matches
        ]

    return collect


async def _together(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Both results; when the other fails, the one is cancelled."""
    task = asyncio.create_task(one)
    try:
        result = await other
        return await task, result
    finally:
        task.cancel()


async def _count(stored: StoredSearch, spans: _Spans, deadline: float | None) -> int:
    """Count what is stored (nothing without a deadline); the time from which on the counts are complete."""
    if deadline is None:
        return spans.since
    async with aclosing(stored.windows(spans.collect)) as windows:
        async for counted, frontier in windows:
            spans.add(counted)
            if frontier is not None and stored.moved and time.monotonic() > deadline:
                return frontier + 1
            if time.monotonic() > deadline + OVERTIME_S:
                raise DeadlineExceeded("counting takes too long", remedy=_NARROW)
    return spans.since


class _Spans:
    """Counts over equal spans of time."""

    def __init__(self, since: int, until: int, buckets: int) -> None:
        self.since = since
        self.step = max(1, -(-(until - since) // buckets))
        self.counts = [0] * -(-(until - since) // self.step)

    def place(self, at: int) -> int:
        return (at - self.since) // self.step

    def collect(
        self, _segment: Segment, _number: int, _block: PlainBlock, matches: list[Match]
    ) -> Counter[int]:
        return Counter(self.place(one.at) for one in matches)

    def shown(self) -> list[CountedSpan]:
        return [
            CountedSpan(rfc3339(self.since + place * self.step), number)
            for place, number in enumerate(self.counts)
        ]

    def add(self, counted: Iterable[Counter[int]]) -> None:
        for one in counted:
            for place, number in one.items():
                self.counts[place] += number


def _gap(key: StreamKey, gap: StreamGap) -> FoundGap:
    return FoundGap(
        cluster=key.cluster,
        namespace=key.namespace,
        pod=key.pod,
        container=key.container,
        since=rfc3339(gap.since) if gap.since else "",
        until=rfc3339(gap.until) if gap.until else "",
        reason=gap.reason,
    )
