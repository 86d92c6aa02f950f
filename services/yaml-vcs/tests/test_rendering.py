"""Differences between texts: right whatever the lines are, and done in time that no lines can stretch."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.yaml_vcs import rendering

LINES = st.lists(st.sampled_from(["a", "b", "c", "  d: e"]), max_size=40)
NAMES = ("old", "new")
QUICKLY_S = 5.0
"""A slow machine included; what difflib alone would do with these takes minutes."""


def patched(old: str, diff: str) -> str:
    """What `patch` makes of a text."""
    lines, made, at = old.splitlines(keepends=True), list[str](), 0
    for line in diff.splitlines(keepends=True)[2:]:
        if hunk := re.match(r"@@ -(\d+)(?:,(\d+))? ", line):
            start = int(hunk[1]) - (hunk[2] != "0")
            made += lines[at:start]
            at = start
            continue
        if line[0] != "+":
            assert lines[at] == line[1:]
            at += 1
        if line[0] != "-":
            made.append(line[1:])
    return "".join(made + lines[at:])


@given(LINES, LINES, LINES, LINES)
def test_a_diff_leads_from_one_text_to_the_other(
    begin: list[str], before: list[str], after: list[str], end: list[str]
) -> None:
    old, new = ("".join(f"{line}\n" for line in [*begin, *part, *end]) for part in (before, after))
    diff = rendering.unified(old, new, NAMES)
    assert patched(old, diff) == new
    assert bool(diff) == (old != new)


def test_a_diff_shows_what_changed_with_three_lines_around_it() -> None:
    old = "".join(f"{number}\n" for number in range(1, 21))
    diff = rendering.unified(old, old.replace("10\n", "ten\n"), NAMES)
    assert diff == "--- old\n+++ new\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n"


@pytest.mark.parametrize(
    "lines",
    [
        [["x"] * 300_000, ["x"] * 300_000 + ["y"]],
        [[str(one) for one in range(40_000)], [str(one * 2) for one in range(40_000)]],
        [["x", "y"] * 20_000, ["y", "y", "x"] * 13_000],
        [
            [f"{head} {one}" if one % 2 == 0 else "x" for one in range(n)]
            for head, n in (("o", 19_800), ("n", 190))
        ],
    ],
    ids=["equal", "unlike", "woven", "one of them everywhere"],
)
def test_nobodys_lines_hold_everybody_up(lines: list[list[str]]) -> None:
    old, new = ("\n".join(one) + "\n" for one in lines)
    contents = [
        (number, json.dumps({"data": {"x": text}}).encode()) for number, text in enumerate((old, new), 1)
    ]
    begun = time.process_time()
    diff = rendering.unified(old, new, NAMES)
    blamed = rendering.blame(contents)
    assert time.process_time() - begun < QUICKLY_S
    assert patched(old, diff) == new
    assert [line.version for line in blamed[:1]] == [1]
