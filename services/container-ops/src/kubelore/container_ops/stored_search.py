"""Search through segments in the order of time: windows of blocks, each searched by threads.

Segments are taken as their edge comes up, newest or oldest first, and their
filters are asked before any block is opened. After each window it is known up
to which time everything was found (the frontier), so that a page can end early,
or when its time has run out.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import accumulate, count
from typing import Any, NamedTuple, TypeVar

from kubelore.common.contracts.log_search import SearchWork
from kubelore.common.errors import NotFound
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_places import Places
from kubelore.container_ops.segment_blocks import PieceSealer, PlainBlock, unpack_block
from kubelore.container_ops.segment_filtering import SegmentFilters
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import Block, Segment, StreamGap, StreamKey
from kubelore.container_ops.text_scanning import TextScanner, needs_of_filter

THREADS = min(4, os.cpu_count() or 1)
FIRST_WINDOW, WINDOW = 8, 64
"""Blocks that are searched before it is asked whether that is enough: each time twice as many."""
AT_ONCE = 8
"""Blocks of one segment that are read together."""
OPENED = 32
"""Segments whose filters are asked together."""
PAGE = 200
CLOCKS_NS = 60_000_000_000
"""How far the clocks of two replicas may differ: one merges while the other searches."""

T = TypeVar("T")


class Match(NamedTuple):
    """A line of a block: its time, the place of its stream, its number."""

    at: int
    stream: int
    number: int


Collect = Callable[[Segment, int, PlainBlock, list[Match]], T]
"""What is made of the matches in a block (its number is given), within a thread."""


class _Opened(NamedTuple):
    segment: Segment
    wanted: frozenset[int]
    sealer: PieceSealer


class StoredSearch:
    """One search through what is stored; `work` says what it did, `gaps` what is missing among the lines."""

    def __init__(
        self,
        store: SegmentStore,
        filters: SegmentFilters,
        places: Places,
        line_filter: LineFilter,
        *,
        newest_first: bool,
    ) -> None:
        self._store = store
        self._filters = filters
        self._places = places
        self._filter = line_filter
        self._scanner = TextScanner(line_filter)
        self._needs = needs_of_filter(line_filter.asked)
        self._newest_first = newest_first
        self._pending: deque[Segment] = deque()
        self._after: list[Any] | None = None
        self._ended = False
        self._began = time.time_ns() - CLOCKS_NS
        self._taken: set[str] = set()
        self._covered: set[str] = set()
        """Parts of merged segments that are taken."""
        self._heap: list[tuple[int, int, _Opened, int]] = []
        asked = line_filter.asked
        self._bound = asked.until if newest_first else asked.since
        self._count = count()
        self._window = FIRST_WINDOW
        self.work = SearchWork()
        self.gaps: list[tuple[StreamKey, StreamGap]] = []

    async def windows(self, collect: Collect[T]) -> AsyncGenerator[tuple[list[T], int | None]]:
        """What was collected from the next blocks, and the frontier: the time from which on (newest first: up to
        which) something may still be found; None when everything was searched."""
        await self._more_segments()
        while self._pending or self._heap:
            await self._open_due()
            window = self._next_window()
            if window:
                yield await self._search(window, collect), self._frontier()

    def _frontier(self) -> int | None:
        edges = [self._heap[0][0]] if self._heap else []
        edges += [self._edge(self._pending[0])] if self._pending else []
        return (-min(edges) if self._newest_first else min(edges)) if edges else None

    @property
    def moved(self) -> bool:
        """Whether everything at the time where the search begins was found: then a page can end."""
        frontier = self._frontier()
        if frontier is None or not (bound := self._bound):
            return True
        return frontier < bound - 1 if self._newest_first else frontier > bound

    def _edge(self, one: Segment | Block) -> int:
        """Where something begins in the order of the search, at the earliest where the search does."""
        if self._newest_first:
            return -min(one.last, self._bound - 1) if self._bound else -one.last
        return max(one.first, self._bound)

    async def _more_segments(self) -> None:
        """Look up the next page of segments when all that are known were opened."""
        if self._pending or self._ended:
            return
        found = await self._store.repository.overlapping(
            self._places.scope(self._filter.asked),
            newest_first=self._newest_first,
            began=self._began,
            after=self._after,
            limit=PAGE,
        )
        self._ended = len(found) < PAGE
        if found:
            last = found[-1]
            self._after = [last.last if self._newest_first else last.first, last.id]
            self._pending.extend(self._due(found))
        if not self._pending and not self._ended:
            await self._more_segments()

    def _due(self, found: Sequence[Segment]) -> list[Segment]:
        """Those whose lines are still to be found: neither as part of a merged segment, nor already by its parts.

        A merged segment comes before its parts, or beside them, since it begins and
        ends with them. One that was made after its place was passed is not met: then
        its parts are searched, those still to come too.
        """
        due: set[str] = set()
        for one in sorted(found, key=lambda one: (not one.merges, -one.written)):
            if one.id not in self._covered:
                if not self._taken.isdisjoint(one.merges):
                    continue
                due.add(one.id)
            self._covered.update(one.merges)
        self._taken |= due
        return [one for one in found if one.id in due]

    async def _open_due(self) -> None:
        """Open segments until the next block in order is known."""
        while self._pending and (not self._heap or self._edge(self._pending[0]) <= self._heap[0][0]):
            chosen = [self._pending.popleft() for _ in range(min(OPENED, len(self._pending)))]
            for opened, numbers in await asyncio.gather(*map(self._open, chosen)):
                for number in numbers:
                    block = opened.segment.index.blocks[number]
                    heapq.heappush(self._heap, (self._edge(block), next(self._count), opened, number))
            await self._more_segments()

    async def _open(self, segment: Segment) -> tuple[_Opened, list[int]]:
        """The blocks of a segment that may hold what is sought."""
        asked, index = self._filter.asked, segment.index
        wanted = frozenset(place for place, one in enumerate(index.streams) if self._places.matches(one.key))
        self.work.segments += bool(wanted)
        self._note_gaps(segment, wanted)
        numbers = [
            number
            for number, block in enumerate(index.blocks)
            if block.last >= asked.since
            and not (asked.until and block.first >= asked.until)
            and any(place in wanted for place in range(block.first_stream, block.last_stream + 1))
        ]
        opened = _Opened(segment, wanted, self._store.sealer(segment))
        if numbers and self._needs:
            try:
                candidates = await self._filters.candidates(segment, self._needs)
            except NotFound:
                return opened, []  # It has expired meanwhile.
            if candidates is not None:
                self.work.passed_over += sum(number not in candidates for number in numbers)
                numbers = [number for number in numbers if number in candidates]
        return opened, numbers

    def _note_gaps(self, segment: Segment, wanted: frozenset[int]) -> None:
        asked = self._filter.asked
        for place in wanted:
            stream = segment.index.streams[place]
            self.gaps += [
                (stream.key, gap)
                for gap in stream.gaps
                if (gap.until or gap.since) >= asked.since and not (asked.until and gap.since >= asked.until)
            ]

    def _next_window(self) -> list[tuple[_Opened, list[int]]]:
        """Blocks that come before any in a segment that was not opened, by segment."""
        barrier = self._edge(self._pending[0]) if self._pending else None
        chosen: dict[str, tuple[_Opened, list[int]]] = {}
        for _ in range(self._window):
            if not self._heap or (barrier is not None and self._heap[0][0] > barrier):
                break
            _, _, opened, number = heapq.heappop(self._heap)
            chosen.setdefault(opened.segment.id, (opened, []))[1].append(number)
        self._window = min(2 * self._window, WINDOW)
        return [
            (opened, part)
            for opened, numbers in chosen.values()
            for start in range(0, len(numbers), AT_ONCE)
            if (part := sorted(numbers)[start : start + AT_ONCE])
        ]

    async def _search(self, window: list[tuple[_Opened, list[int]]], collect: Collect[T]) -> list[T]:
        room = asyncio.Semaphore(THREADS)

        async def search(opened: _Opened, numbers: list[int]) -> list[T]:
            async with room:
                try:
                    sealed = await self._store.read(opened.segment, numbers)
                except NotFound:
                    return []  # It has expired meanwhile.
                lines, raw_bytes = await asyncio.to_thread(self._collect, opened, numbers, sealed, collect)
                self.work.blocks += len(numbers)
                self.work.raw_bytes += raw_bytes
                return lines

        found = await asyncio.gather(*(search(opened, numbers) for opened, numbers in window))
        return [one for several in found for one in several]

    def _collect(
        self, opened: _Opened, numbers: Sequence[int], sealed: Sequence[bytes], collect: Collect[T]
    ) -> tuple[list[T], int]:
        """What is found in blocks, and how many bytes of text those hold."""
        found: list[T] = []
        raw_bytes = 0
        for number, piece in zip(numbers, sealed, strict=True):
            block = unpack_block(opened.sealer.open(piece, number))
            raw_bytes += len(block.text)
            matches = self._matches(block, opened.wanted)
            if matches:
                found.append(collect(opened.segment, number, block, matches))
        return found, raw_bytes

    def _matches(self, block: PlainBlock, wanted: frozenset[int]) -> list[Match]:
        numbers = self._scanner.matching(block.text)
        if not numbers:
            return []
        runs = block.columns.runs
        if runs[0][0] == runs[-1][0] and runs[0][0] not in wanted:
            return []
        ends = list(accumulate(length for _, length in runs))
        times = block.columns.times()
        in_time = self._filter.in_time
        return [
            Match(times[number], stream, number)
            for number in numbers
            if in_time(times[number]) and (stream := runs[bisect_right(ends, number)][0]) in wanted
        ]
