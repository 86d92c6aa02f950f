"""Pages of one container's log, forward from a position or backward from it."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import BadRequest
from kubelore.common.reach import Reached
from kubelore.container_ops.lines import SLACK_NS, Cursor, LineSplitter, LogLine
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.scanning import Scan

SCAN_S = 15.0
"""A page is given with what was found by then, and says where to go on."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
FIRST_WINDOW = 1000
LAST_WINDOW = 1 << 26
_POSITION = re.compile(r"(?P<cursor>[0-9a-f-]{7,40})(?:\.(?P<window>[0-9]{1,9}))?\Z")


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read: whose log, of which run, which lines, and how many at most."""

    reached: Reached
    target: ContainerId
    filter: LineFilter
    limit: int
    previous: bool = False
    tail: int | None = None

    @property
    def since_time(self) -> str | None:
        """For the API server, which thinks in whole seconds."""
        since = self.filter.asked.since
        return Cursor(since).since_time if since else None


@dataclass(slots=True)
class Page:
    """Lines in the order they are shown; `next` is empty at the end."""

    lines: list[LogLine] = field(default_factory=list)
    next: str = ""
    gap: bool = False


async def forward_page(reading: Reading, position: str) -> Page:
    """Lines after a position. Raises BadRequest for a bad position, and what `Scan` does."""
    cursor = Cursor.parse(position) if position else Cursor()
    scan = Scan(
        reading.reached,
        reading.target,
        cursor,
        previous=reading.previous,
        since_time=reading.since_time,
        tail=reading.tail,
    )
    page, size = Page(), 0
    until = reading.filter.asked.until
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SCAN_S
    async with aclosing(aiter(scan)) as batches:
        async for lines in batches:
            page.gap = scan.gap
            for place, line in enumerate(lines):
                if until and line.at > until + SLACK_NS:
                    return page
                if reading.filter.matches(line):
                    page.lines.append(line)
                    size += len(line.text)
                    if len(page.lines) >= reading.limit or size >= MAX_PAGE_BYTES:
                        page.next = str(cursor.moved(lines[: place + 1]))
                        return page
            cursor = cursor.moved(lines)
            if loop.time() > deadline:
                page.next = str(cursor)
                return page
    return page


async def backward_page(reading: Reading, position: str) -> Page:
    """Lines before a position (the end where there is none), the latest first.

    The log API gives only the last lines of a log, so ever more of them are read
    until there are enough. Raises as `forward_page` does.
    """
    before, window = _parsed(position)
    window = min(max(FIRST_WINDOW, window + 2 * reading.limit), LAST_WINDOW)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SCAN_S
    while True:
        found = _Window(reading, before)
        whole = await found.read(window)
        enough = found.full or whole or window >= LAST_WINDOW
        if enough or loop.time() > deadline:
            lines = [line for line, _ in found.kept]
            ended = whole and not found.full
            first = found.kept[0][1] if found.full and found.kept else found.first
            return Page(lines[::-1], "" if ended or first is None else f"{first}.{window}")
        window = min(window * 4, LAST_WINDOW)


class _Window:
    """The last lines of a log, as far as they are before a position."""

    def __init__(self, reading: Reading, before: Cursor | None) -> None:
        self.kept: deque[tuple[LogLine, Cursor]] = deque()
        """Matching lines with the position of each."""
        self.full = False
        self.first: Cursor | None = None
        """The position of the first line that was looked at."""
        self._reading = reading
        self._before = before
        self._size = 0
        self._at = self._count = self._digest = 0

    async def read(self, window: int) -> bool:
        """Read so many lines; whether they began with the first that is meant."""
        reading, received, leading = self._reading, 0, -1
        asked = window if reading.tail is None else min(window, reading.tail)
        stream = reading.reached.client.logs(
            reading.target.namespace,
            reading.target.pod,
            reading.target.container,
            previous=reading.previous,
            timestamps=True,
            tail=asked,
            since_time=reading.since_time,
        )
        passed = False
        async with aclosing(stream):
            async for line in _lines(stream):
                received += line.whole
                leading = line.at if leading < 0 else leading
                passed = passed or self._passes(line)
                if not passed:
                    if self.first is None and line.at != leading:
                        self.first = Cursor(self._at, self._count, self._digest)
                    self._take(line)
        whole = received < asked or asked == reading.tail
        if not whole:
            # Lines with the time of the first one may go on before it, so that their places are not known.
            while self.kept and self.kept[0][0].at == leading:
                self.kept.popleft()
        self.full = len(self.kept) >= reading.limit or self._size >= MAX_PAGE_BYTES
        return whole

    def _passes(self, line: LogLine) -> bool:
        """Whether a line is at the position or behind it. Counts the lines of each nanosecond."""
        if line.at == self._at:
            self._count += 1
            self._digest = zlib.crc32(line.text, self._digest)
        else:
            self._at, self._count, self._digest = line.at, 1, zlib.crc32(line.text)
        before = self._before
        if before is None:
            return False
        if line.at == before.at:
            return self._count == before.count and self._digest == before.digest
        return line.at > before.at + SLACK_NS

    def _take(self, line: LogLine) -> None:
        if not self._reading.filter.matches(line):
            return
        self.kept.append((line, Cursor(self._at, self._count, self._digest)))
        self._size += len(line.text)
        while len(self.kept) > self._reading.limit or (self._size > MAX_PAGE_BYTES and len(self.kept) > 1):
            self._size -= len(self.kept.popleft()[0].text)


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[LogLine]:
    splitter = LineSplitter()
    async for chunk in chunks:
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.finish():
        yield line


def _parsed(position: str) -> tuple[Cursor | None, int]:
    if not position:
        return None, 0
    match = _POSITION.match(position)
    if match is None:
        raise BadRequest("that is no position in a log")
    return Cursor.parse(match["cursor"]), int(match["window"] or 0)
