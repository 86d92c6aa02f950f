"""Versions as people read them: YAML, unified diffs, and which version set which line. Pure."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.contracts.versions import BlameLine, FieldChange
from kubelore.common.kube.differences import differences, render
from kubelore.common.kube.documents import dump
from kubelore.yaml_vcs.normalising import HMACS

CONTEXT_LINES = 3
MAX_COMPARED = 4_000_000
"""Lines times lines between what two texts begin and end with. Beyond it they are shown as replaced."""
MAX_PAIRS = 16_000_000
"""Lines times lines times how often one of them recurs: half a second. What recurs more often matches only beside others."""


def shown(content: bytes) -> dict[str, Any]:
    """The object of a version; of a Secret's values it says that they are hidden, and whether two are equal."""
    found: dict[str, Any] = msgspec.json.decode(content)
    hmacs = found.pop(HMACS, None)
    if hmacs is not None:
        found["data"] = {key: f"(hidden {value[:8]})" for key, value in hmacs.items()}
    return found


def yaml_of(content: bytes) -> str:
    """The object of a version as kubectl prints it; empty for none."""
    return dump(shown(content)) if content else ""


def unified(old: str, new: str, names: tuple[str, str]) -> str:
    """A unified diff of two YAML texts; empty when they are equal."""
    lines = _Lines(old.splitlines(keepends=True), new.splitlines(keepends=True))
    hunks = ["".join(_hunk(lines, edits)) for edits in lines.get_grouped_opcodes(CONTEXT_LINES)]
    return "".join([f"--- {names[0]}\n+++ {names[1]}\n", *hunks]) if hunks else ""


class _Lines(difflib.SequenceMatcher[str]):
    """Matches lines in time that nobody's lines can stretch: difflib alone takes hours for a megabyte of equal ones."""

    def __init__(self, old: list[str], new: list[str]) -> None:
        super().__init__(a=old, b=new)
        self.old, self.new = old, new

    def get_matching_blocks(self) -> list[difflib.Match]:
        """What both begin and end with, and between that whatever is not too much to be compared."""
        old, new = self.old, self.new
        begin = _alike(old, new)
        end = _alike(old[begin:][::-1], new[begin:][::-1])
        before, after = old[begin : len(old) - end], new[begin : len(new) - end]
        between: list[difflib.Match] = []
        if len(before) * len(after) <= MAX_COMPARED:
            between = _matched(before, after)
        return [
            difflib.Match(0, 0, begin),
            *(difflib.Match(one.a + begin, one.b + begin, one.size) for one in between if one.size),
            difflib.Match(len(old) - end, len(new) - end, end),
            difflib.Match(len(old), len(new), 0),
        ]


def _matched(old: list[str], new: list[str]) -> list[difflib.Match]:
    """What two texts have in common; difflib looks at every line that is like one, for each match that it finds."""
    often, counts = MAX_PAIRS // max(len(old) * len(new), 1), Counter(new)
    matcher = difflib.SequenceMatcher(lambda line: counts[line] > often, old, new, autojunk=False)
    return matcher.get_matching_blocks()


def _alike(old: Sequence[str], new: Sequence[str]) -> int:
    """How many lines both begin with."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(old), len(new)))


def _hunk(lines: _Lines, edits: Sequence[tuple[str, int, int, int, int]]) -> Iterator[str]:
    yield f"@@ -{_range(edits[0][1], edits[-1][2])} +{_range(edits[0][3], edits[-1][4])} @@\n"
    for tag, start, stop, begin, end in edits:
        if tag == "equal":
            yield from (f" {line}" for line in lines.old[start:stop])
        else:
            yield from (f"-{line}" for line in lines.old[start:stop])
            yield from (f"+{line}" for line in lines.new[begin:end])


def _range(start: int, stop: int) -> str:
    """Lines as a hunk names them: from which on, and how many where it is not one."""
    count = stop - start
    return f"{start + 1}" if count == 1 else f"{start + 1 if count else start},{count}"


def changes(old: bytes, new: bytes) -> list[FieldChange]:
    """Where the objects of two versions differ."""
    return changes_between(shown(old) if old else {}, shown(new) if new else {})


def changes_between(old: dict[str, Any], new: dict[str, Any]) -> list[FieldChange]:
    """Where two objects differ."""
    found = differences(old, new)
    return [FieldChange(path=render(one.path), old=one.old, new=one.new) for one in found]


def blame(contents: Iterable[tuple[int, bytes]]) -> list[BlameLine]:
    """Each line of the last of some versions, with the number of the first that it stands in ever since.

    `contents` are (number, content) in order; lines of the very first are put down to it.
    """
    lines: list[BlameLine] = []
    for number, content in contents:
        found = yaml_of(content).splitlines()
        matcher = _Lines([line.text for line in lines], found)
        following: list[BlameLine] = []
        for tag, start, stop, begin, end in matcher.get_opcodes():
            if tag == "equal":
                following += lines[start:stop]
            else:
                following += [BlameLine(number, line) for line in found[begin:end]]
        lines = following
    return lines


def iso(at: int) -> str:
    """A time in milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
