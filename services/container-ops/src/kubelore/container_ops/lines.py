"""Lines of logs: from the bytes of the log API, with the position after each. Pure.

The log API is asked with timestamps, so that each line begins with RFC 3339 and
a space. A line that has none was written by the kubelet itself: it says so why
a log ends.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from kubelore.common.errors import BadRequest

PIECE_BYTES = 256 * 1024
"""A longer line comes in pieces of this size, so that one without an end costs no memory."""

_SECOND_NS = 1_000_000_000
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")
_LONGEST_STAMP = 36
_CURSOR = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,12})-([0-9a-f]{1,8})-([0-9a-f]{1,8})\Z")


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """One line without its end. `at` is nanoseconds since 1970.

    `whole` is False for a piece of a long line that goes on in the next
    LogLine, which has the same time.
    """

    at: int
    text: bytes
    whole: bool = True


class LineSplitter:
    """Cuts chunks, as they come from the log API, into lines; holds less than one piece.

    `said` collects what has no timestamp: words of the kubelet about the log (the last 20).
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self._rest = b""
        self._at: int | None = None
        """The time of a line of which pieces were given out already."""
        self._second = b""
        self._second_at = 0

    def feed(self, chunk: bytes) -> list[LogLine]:
        """The lines that end in this chunk, and pieces of one that has grown too long."""
        texts = (self._rest + chunk).split(b"\n")
        self._rest = texts.pop()
        lines: list[LogLine] = []
        for text in texts:
            self._add(lines, text)
        while len(self._rest) > PIECE_BYTES + _LONGEST_STAMP:
            self._piece(lines)
        return lines

    def finish(self) -> list[LogLine]:
        """What came after the last line end, for a log that ended and was not cut off."""
        lines: list[LogLine] = []
        if self._rest or self._at is not None:
            self._add(lines, self._rest)
            self._rest = b""
        return lines

    def _add(self, lines: list[LogLine], text: bytes) -> None:
        if self._at is not None:
            at, self._at = self._at, None
        else:
            at, text = self._stamped(text)
        if at < 0:
            self.said = [*self.said[-19:], text[:500].decode(errors="replace")]
            return
        while len(text) > PIECE_BYTES:
            lines.append(LogLine(at, text[:PIECE_BYTES], False))
            text = text[PIECE_BYTES:]
        lines.append(LogLine(at, text))

    def _piece(self, lines: list[LogLine]) -> None:
        if self._at is None:
            at, text = self._stamped(self._rest)
            # The kubelet's own words are short: what is so long is a line of the container, whatever its time.
            self._at = max(at, 0)
        else:
            text = self._rest
        lines.append(LogLine(self._at, text[:PIECE_BYTES], False))
        self._rest = text[PIECE_BYTES:]

    def _stamped(self, text: bytes) -> tuple[int, bytes]:
        """The time of a line and its text; -1 and all of it when it has no time."""
        if text[:19] == self._second and text[19:20] == b"." and text[29:31] == b"Z ":
            return self._second_at + int(text[20:29]), text[31:]
        match = _STAMP.match(text)
        if match is None:
            return -1, text
        second, fraction, zone = match.groups()
        try:
            whole = datetime.fromisoformat((second + zone).decode().replace("Z", "+00:00"))
        except ValueError:
            return -1, text
        at = int(whole.timestamp()) * _SECOND_NS
        if zone == b"Z":
            self._second, self._second_at = second, at
        return at + int((fraction or b"0").ljust(9, b"0")), text[match.end() :]


class Cursor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A position in a container's log: after the `count`-th line with the time `at` (ns) of the run `run`.

    `digest` is of those lines, so that a position in another log is known as
    such. `run` is the restart count. The empty cursor is before everything.
    """

    at: int = 0
    count: int = 0
    digest: int = 0
    run: int = 0

    def moved(self, lines: Sequence[LogLine], run: int | None = None) -> Cursor:
        """The position after more lines (pieces count as lines) of a run, by default the same one."""
        run = self.run if run is None else run
        start = self if run == self.run else Cursor(run=run)
        if not lines:
            return start
        at = lines[-1].at
        first = len(lines) - 1
        while first and lines[first - 1].at == at:
            first -= 1
        count, digest = (start.count, start.digest) if first == 0 and start.at == at else (0, 0)
        for line in lines[first:]:
            digest = zlib.crc32(line.text, digest)
        return Cursor(at, count + len(lines) - first, digest, run)

    @property
    def since_time(self) -> str:
        """The `sinceTime` to ask for: the API server cuts it to whole seconds, so what follows is skipped by `Seen`."""
        return datetime.fromtimestamp(self.at // _SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def __str__(self) -> str:
        return f"{self.at:x}-{self.count:x}-{self.digest:x}-{self.run:x}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote. Raises BadRequest."""
        match = _CURSOR.match(text)
        if match is None:
            raise BadRequest("that is no position in a log")
        return cls(*(int(part, 16) for part in match.groups()))


SLACK_NS = 200_000_000
"""How much earlier than the line before it a line may be: stdout and stderr are stamped apart."""
HELD = 2000


class Seen:
    """Takes away, from a log read again, what was seen up to a cursor: nothing lost, nothing twice.

    Lines up to the cursor's own are dropped in the order of the file, not by
    their times, because two streams of a container are not stamped in order.
    Lines that are later than the cursor, before it was met, are held back until
    it is met (then they were seen) or cannot come any more (then it is gone:
    `missing`, which means that lines between may be gone too).
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._count = 0
        self._digest = 0
        self._held: list[LogLine] = []
        self.settled = cursor.count == 0
        self.missing = False
        self.trusted = False
        """Set by the reader who knows that this is the cursor's log although the cursor's line is gone."""

    def unseen(self, lines: list[LogLine]) -> list[LogLine]:
        """Those of the next lines that were not seen."""
        if self.settled:
            return lines
        for place, line in enumerate(lines):
            if self._met(line):
                self._held.clear()
                self.settled = True
                return lines[place + 1 :]
            if line.at > self._cursor.at:
                self._held.append(line)
                if line.at > self._cursor.at + SLACK_NS or len(self._held) > HELD:
                    return self.settle() + lines[place + 1 :]
        return []

    def settle(self) -> list[LogLine]:
        """What was held back, when nothing more comes for the moment: it is new."""
        if not self._held:
            return []
        held, self._held = self._held, []
        self.settled = self.missing = True
        return held

    def _met(self, line: LogLine) -> bool:
        if line.at != self._cursor.at:
            return False
        self._count += 1
        self._digest = zlib.crc32(line.text, self._digest)
        return self._count == self._cursor.count and self._digest == self._cursor.digest
