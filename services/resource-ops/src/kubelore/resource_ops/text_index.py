"""Substring search over many short lines, and which rows each line belongs to.

Lines lie joined in segments, since one `str.find` over a long string is a
hundred times faster than a loop over short ones. A changed line waits beside
its segment and is joined when somebody searches, so that a stream of updates
costs nothing but the updates. What was found of the last few needles is kept,
and kept up to date line by line: who turns pages asks again and again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate

from pyroaring import BitMap

SEGMENT_LINES = 1024
MAX_WAITING = 256
"""Changed lines of one segment that may wait; more are joined at once, which bounds the memory they take."""
DENSE = 192
"""Hits in one segment from which testing each line is quicker than jumping from hit to hit."""
MAX_NEEDLES = 8
"""Needles whose lines are remembered; each changed line is tested for all of them."""


class _Segment:
    __slots__ = ("starts", "text", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, str] = {}
        self._join([""] * SEGMENT_LINES)

    def _join(self, lines: list[str]) -> None:
        self.text = "\n".join(lines)
        lengths = accumulate((len(line) + 1 for line in lines), initial=0)
        self.starts = array("I", lengths)

    def set(self, place: int, line: str) -> None:
        self.waiting[place] = line
        if len(self.waiting) > MAX_WAITING:
            self.settle()

    def get(self, place: int) -> str:
        line = self.waiting.get(place)
        return self.text[self.starts[place] : self.starts[place + 1] - 1] if line is None else line

    def settle(self) -> None:
        if self.waiting:
            lines = self.text.split("\n")
            for place, line in self.waiting.items():
                lines[place] = line
            self.waiting = {}
            self._join(lines)

    def search(self, needle: str) -> list[int]:
        self.settle()
        text, starts = self.text, self.starts
        found: list[int] = []
        position = text.find(needle)
        while position >= 0:
            place = bisect_right(starts, position)
            found.append(place - 1)
            if len(found) > DENSE:
                return [place for place, line in enumerate(text.split("\n")) if needle in line]
            position = text.find(needle, starts[place])
        return found


class Lines:
    """Numbered lines of lower-case text; a number may be used again after its line was cleared."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._found: OrderedDict[str, BitMap] = OrderedDict()

    def set(self, number: int, line: str) -> None:
        """Put a line in place; it must be lower-case and hold no newline."""
        segment, place = divmod(number, SEGMENT_LINES)
        while segment >= len(self._segments):
            self._segments.append(_Segment())
        self._segments[segment].set(place, line)
        for needle, found in self._found.items():
            (found.add if needle in line else found.discard)(number)

    def get(self, number: int) -> str:
        """The line at a number, empty when there is none."""
        segment, place = divmod(number, SEGMENT_LINES)
        return self._segments[segment].get(place) if segment < len(self._segments) else ""

    def search(self, needle: str) -> BitMap:
        """The numbers of the lines that contain the needle (lower-case, not empty); not to be changed by the caller."""
        found = self._found.get(needle)
        if found is None:
            found = self._found[needle] = BitMap(
                [
                    base * SEGMENT_LINES + place
                    for base, segment in enumerate(self._segments)
                    for place in segment.search(needle)
                ]
            )
            if len(self._found) > MAX_NEEDLES:
                self._found.popitem(last=False)
        self._found.move_to_end(needle)
        return found


class Postings:
    """Distinct strings, and the rows that carry each of them.

    A string that one row carries costs no bitmap. Strings are kept once and
    handed out, so that rows share them.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._strings: list[str] = []
        self._rows: list[int | BitMap] = []
        self._free: list[int] = []
        self._lines = Lines()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, string: str) -> bool:
        return string in self._numbers

    def add(self, string: str, row: int) -> str:
        """Note that a row carries the string; returns the shared copy of it."""
        number = self._numbers.get(string)
        if number is None:
            return self._new(string, row)
        rows = self._rows[number]
        if isinstance(rows, BitMap):
            rows.add(row)
        elif rows != row:
            self._rows[number] = BitMap((rows, row))
        return self._strings[number]

    def _new(self, string: str, row: int) -> str:
        if self._free:
            number = self._free.pop()
            self._strings[number], self._rows[number] = string, row
        else:
            number = len(self._strings)
            self._strings.append(string)
            self._rows.append(row)
        self._numbers[string] = number
        self._lines.set(number, string.lower().replace("\n", " "))
        return string

    def discard(self, string: str, row: int) -> None:
        """Forget that a row carries the string."""
        number = self._numbers.get(string)
        if number is None:
            return
        rows = self._rows[number]
        if isinstance(rows, BitMap):
            rows.discard(row)
            if rows:
                return
        elif rows != row:
            return
        del self._numbers[string]
        self._strings[number], self._rows[number] = "", -1
        self._lines.set(number, "")
        self._free.append(number)

    def rows(self, string: str) -> BitMap:
        """The rows that carry exactly this string."""
        number = self._numbers.get(string)
        if number is None:
            return BitMap()
        rows = self._rows[number]
        return rows if isinstance(rows, BitMap) else BitMap((rows,))

    def search(self, needle: str) -> BitMap:
        """The rows that carry a string which contains the needle (lower-case, not empty)."""
        found = [self._rows[number] for number in self._lines.search(needle)]
        maps = [rows for rows in found if isinstance(rows, BitMap)]
        single = BitMap([rows for rows in found if not isinstance(rows, BitMap)])
        return BitMap.union(single, *maps) if maps else single
