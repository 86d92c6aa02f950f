"""Versions as people read them: YAML, unified diffs, and which version set which line. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.contracts.versions import BlameLine, FieldChange
from kubelore.common.kube.differences import differences, render
from kubelore.common.kube.documents import dump
from kubelore.yaml_vcs.normalising import HMACS

CONTEXT_LINES = 3


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
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), *names, n=CONTEXT_LINES
    )
    return "".join(lines)


def changes(old: bytes, new: bytes) -> list[FieldChange]:
    """Where the objects of two versions differ."""
    return changes_between(shown(old) if old else {}, shown(new) if new else {})


def changes_between(old: dict[str, Any], new: dict[str, Any]) -> list[FieldChange]:
    """Where two objects differ."""
    found = differences(old, new)
    return [FieldChange(path=render(one.path), old=one.old, new=one.new) for one in found]


def blame(texts: Sequence[tuple[int, str]]) -> list[BlameLine]:
    """Each line of the last of some texts, with the number of the first text that it stands in ever since.

    `texts` are (number, YAML) in order; lines of the very first are put down to it.
    """
    lines: list[BlameLine] = []
    for number, text in texts:
        found = text.splitlines()
        matcher = difflib.SequenceMatcher(a=[line.text for line in lines], b=found, autojunk=False)
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
