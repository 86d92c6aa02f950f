"""Several logs as one, in the order of their lines' times. Pure: the caller says what time it is.

Every log is a lane that holds a few batches. A line goes out when no lane can
bring an earlier one any more: one that still reads what was written long ago is
waited for, for a moment; one that is quiet is taken to have nothing up to a
tenth of a second ago. Within a lane the order of the file is kept, even where
its times go back (stdout and stderr are stamped apart).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kubelore.container_ops.following import LogGap, LogNote
from kubelore.container_ops.lines import Cursor, LogLine

LATENCY_S = 0.1
"""How long the way from a container to here may take; a line is held for as long, for others to come before it."""
GRACE_S = 0.25
"""How long a lane that reads old lines may take for the next ones."""
OPENING_S = 3.0
BEHIND_NS = 2_000_000_000
LINES_AT_ONCE = 1000
BYTES_AT_ONCE = 192 * 1024

Origin = TypeVar("Origin")
Marker = LogGap | LogNote


@dataclass(slots=True)
class Batch:
    """Lines in the order of their file, and the position in the log after them; or a marker between lines."""

    lines: list[LogLine]
    cursor: Cursor
    arrived: float
    marker: Marker | None = None
    next: int = 0


@dataclass(slots=True, eq=False)
class Lane(Generic[Origin]):
    """One log on its way into the merge. `cursor` is the position after what went out; None before the first line."""

    origin: Origin
    opened: float
    cursor: Cursor | None = None
    fed: Cursor | None = None
    """The position after what came in; None before the first line."""
    ended: bool = False
    started: bool = False
    held_bytes: int = 0
    batches: deque[Batch] = field(default_factory=deque)
    reached: int = 0
    """The latest time of a line that went out (ns)."""
    arrived: float = 0.0
    newest: int = 0
    """The time of the last line that came."""

    def feed(self, lines: list[LogLine], cursor: Cursor, now: float) -> None:
        """Lines that came, with the position behind them."""
        self.started, self.arrived = True, now
        if not lines:
            return
        self.newest, self.fed = lines[-1].at, cursor
        self.held_bytes += sum(len(line.text) for line in lines)
        self.batches.append(Batch(lines, cursor, now))

    def mark(self, marker: Marker, cursor: Cursor, now: float) -> None:
        """Something that happened between lines."""
        self.started = True
        self.batches.append(Batch([], cursor, now, marker))

    def position(self, now: float) -> Cursor | None:
        """Where to go on; None where it should begin as it did."""
        empty = self.started and not self.batches and now - self.opened > OPENING_S
        return Cursor() if self.cursor is None and empty else self.cursor

    @property
    def spent(self) -> bool:
        """Whether nothing is left and nothing comes."""
        return self.ended and not self.batches

    def waited_for(self, now: float, wall_ns: int) -> bool:
        """Whether lines that are earlier than those of others may come any moment."""
        if self.ended or self.batches:
            return False
        if not self.started:
            return now - self.opened < OPENING_S
        return self.newest < wall_ns - BEHIND_NS and now - self.arrived < GRACE_S


@dataclass(frozen=True, slots=True)
class Out(Generic[Origin]):
    """Lines of one lane that go out one behind the other; or a marker."""

    lane: Lane[Origin]
    lines: list[LogLine]
    marker: Marker | None = None


_Due = tuple[int, int, int, LogLine | None, Marker | None]
"""The time that a line goes by, the number of its lane and its place there; the line, or a marker."""


class Merge(Generic[Origin]):
    """The lanes of one stream."""

    def __init__(self) -> None:
        self.lanes: list[Lane[Origin]] = []

    def take(self, now: float, wall_ns: int) -> list[Out[Origin]]:
        """What can go out at this moment, in order: about LINES_AT_ONCE lines; their lanes' cursors move on."""
        if len(self.lanes) == 1:
            return _head(self.lanes[0])
        if any(lane.waited_for(now, wall_ns) for lane in self.lanes):
            return []
        return _merged(self.lanes, self._bound(now, wall_ns))

    def _bound(self, now: float, wall_ns: int) -> int:
        """Up to which time lines may go out: what is old enough, or has been held for long enough."""
        bound = wall_ns - int(LATENCY_S * 1e9)
        for lane in self.lanes:
            if lane.batches and (first := lane.batches[0]).lines and first.arrived + LATENCY_S <= now:
                # Its clock is ahead of ours: it waits for no longer than the others.
                bound = max(bound, first.lines[-1].at)
        # Behind what a lane holds more may come that is earlier than what others hold.
        behind = [
            lane.newest
            for lane in self.lanes
            if lane.batches and not lane.ended and lane.newest < wall_ns - BEHIND_NS
        ]
        return min([bound, *behind])


def _head(lane: Lane[Origin]) -> list[Out[Origin]]:
    """The next lines of a lane that is alone: there is nothing to wait for."""
    if not lane.batches:
        return []
    batch = lane.batches[0]
    lines, size = batch.lines, 0
    if batch.next or len(lines) > LINES_AT_ONCE or lane.held_bytes > BYTES_AT_ONCE:
        lines = lines[batch.next : batch.next + LINES_AT_ONCE]
        for place, line in enumerate(lines):
            size += len(line.text)
            if size > BYTES_AT_ONCE:
                lines = lines[: place + 1]
                break
    _advance(lane, len(lines) or 1)
    return [Out(lane, lines, batch.marker)]


def _merged(lanes: list[Lane[Origin]], bound: int) -> list[Out[Origin]]:
    """What is due of all lanes, in order, and of that the first."""
    due: list[_Due] = []
    for number, lane in enumerate(lanes):
        due += _due(lane, number, bound)
    due.sort(key=_order)
    chosen: list[Out[Origin]] = []
    counts = dict.fromkeys(range(len(lanes)), 0)
    size = 0
    for taken, (_, number, _, line, marker) in enumerate(due):
        size += len(line.text) if line is not None else 0
        if taken >= LINES_AT_ONCE or (taken and size > BYTES_AT_ONCE):
            break
        counts[number] += 1
        lane = lanes[number]
        if line is None:
            chosen.append(Out(lane, [], marker))
        elif chosen and chosen[-1].lane is lane and chosen[-1].marker is None:
            chosen[-1].lines.append(line)
        else:
            chosen.append(Out(lane, [line]))
    for number, count in counts.items():
        _advance(lanes[number], count)
    return chosen


def _order(item: _Due) -> tuple[int, int, int]:
    return item[:3]


def _due(lane: Lane[Origin], number: int, bound: int) -> list[_Due]:
    """The beginning of what a lane holds, each with a time that never goes back, up to the bound."""
    found: list[_Due] = []
    at = lane.reached
    for batch in lane.batches:
        if batch.marker is not None:
            found.append((at, number, len(found), None, batch.marker))
            continue
        for line in batch.lines[batch.next :] if batch.next else batch.lines:
            at = max(at, line.at)
            if at > bound or len(found) > LINES_AT_ONCE:
                return found
            found.append((at, number, len(found), line, None))
    return found


def _advance(lane: Lane[Origin], count: int) -> None:
    """Drop the first lines and markers of a lane, and move its cursor behind them."""
    while count:
        batch = lane.batches[0]
        if batch.marker is not None:
            if lane.cursor is not None:
                lane.cursor = batch.cursor
            lane.batches.popleft()
            count -= 1
            continue
        part = batch.lines[batch.next : batch.next + count]
        lane.held_bytes -= sum(len(line.text) for line in part)
        lane.reached = max(lane.reached, max(line.at for line in part))
        batch.next += len(part)
        count -= len(part)
        if batch.next == len(batch.lines):
            lane.cursor = batch.cursor
            lane.batches.popleft()
        else:
            lane.cursor = (lane.cursor or Cursor()).moved(part, batch.cursor.run)
