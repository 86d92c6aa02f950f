"""Lines from chunks, positions after them, and a log read again without loss or repetition."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common.contracts.logs import LogFilter
from kubelore.common.errors import BadRequest
from kubelore.container_ops.lines import PIECE_BYTES, Cursor, LineSplitter, LogLine, Seen
from kubelore.container_ops.log_filter import LineFilter

BASE = 1_795_971_441_000_000_000
TEXTS = st.binary(max_size=30).map(lambda text: text.replace(b"\n", b" "))
CHEAP = settings(max_examples=40, deadline=None)
STEPS = st.sampled_from((0, 0, 1, 7, 1_000_000_007, -150_000_000))


@st.composite
def logs(draw: st.DrawFn) -> list[LogLine]:
    """Lines as a container writes them: some at the same nanosecond, some a little out of order."""
    lines: list[LogLine] = []
    latest = BASE
    for step, text in draw(st.lists(st.tuples(STEPS, TEXTS), max_size=20)):
        at = max(latest + step, BASE)
        while lines and at != lines[-1].at and any(line.at == at for line in lines):
            at += 1
        latest = max(latest, at)
        lines.append(LogLine(at, text))
    return lines


def written(lines: list[LogLine]) -> bytes:
    """What the log API sends."""
    return b"".join(b"%s %s\n" % (stamp(line.at).encode(), line.text) for line in lines)


def stamp(at: int) -> str:
    return f"{Cursor(at).since_time[:-1]}.{at % 10**9:09d}Z"


@CHEAP
@given(logs(), st.lists(st.integers(0, 2000)))
def test_lines_do_not_depend_on_how_they_were_cut_into_chunks(lines: list[LogLine], cuts: list[int]) -> None:
    raw = written(lines)
    splitter = LineSplitter()
    found: list[LogLine] = []
    start = 0
    for cut in sorted(cuts):
        found += splitter.feed(raw[start:cut])
        start = max(start, cut)
    found += splitter.feed(raw[start:]) + splitter.finish()
    assert found == lines
    assert splitter.said == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (b"2026-11-29T16:57:21.123456789Z x\n", 1_795_971_441_123_456_789),
        (b"2026-11-29T17:57:21.5+01:00 x\n", 1_795_971_441_500_000_000),
        (b"2026-11-29T16:57:21Z x\n", 1_795_971_441_000_000_000),
    ],
)
def test_every_form_of_time_that_a_kubelet_writes_is_read(text: bytes, at: int) -> None:
    assert LineSplitter().feed(text) == [LogLine(at, b"x")]


def test_what_has_no_time_was_said_by_the_kubelet() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"2026-11-29T16:57:21Z x\nfailed to create fsnotify watcher: too many open files")
    assert [line.text for line in lines + splitter.finish()] == [b"x"]
    assert splitter.said == ["failed to create fsnotify watcher: too many open files"]


def test_a_line_of_ten_megabytes_without_an_end_comes_in_pieces_and_costs_no_memory() -> None:
    splitter = LineSplitter()
    sizes: list[int] = []
    tracemalloc.start()
    splitter.feed(b"2026-11-29T16:57:21.000000001Z ")
    for _ in range(160):
        for piece in splitter.feed(b"y" * 65536):
            assert not piece.whole
            sizes.append(len(piece.text))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    last = splitter.feed(b"z\n")
    assert [line.whole for line in last] == [False, True]
    assert sum(sizes) + sum(len(line.text) for line in last) == 160 * 65536 + 1
    assert set(sizes) == {PIECE_BYTES}
    assert {last[0].at} == {1_795_971_441_000_000_001}
    assert peak < 2_000_000


@CHEAP
@given(st.integers(PIECE_BYTES - 40, PIECE_BYTES + 40), st.integers(5_000, 100_000))
def test_long_lines_are_cut_at_the_same_places_however_they_come(size: int, chunk: int) -> None:
    raw = b"2026-11-29T16:57:21.000000001Z " + b"y" * size + b"\n"
    splitter = LineSplitter()
    found: list[LogLine] = []
    for start in range(0, len(raw), chunk):
        found += splitter.feed(raw[start : start + chunk])
    assert found == LineSplitter().feed(raw)
    assert b"".join(line.text for line in found) == b"y" * size


@CHEAP
@given(logs(), st.integers(0, 40), st.integers(1, 7))
def test_reading_again_from_a_position_loses_and_repeats_nothing(
    lines: list[LogLine], place: int, batch: int
) -> None:
    place = min(place, len(lines))
    cursor = Cursor()
    for line in lines[:place]:
        cursor = cursor.moved([line])
    again = [line for line in lines if line.at >= cursor.at // 10**9 * 10**9]
    seen = Seen(cursor)
    found: list[LogLine] = []
    for start in range(0, len(again), batch):
        found += seen.unseen(again[start : start + batch])
    found += seen.settle()
    assert found == [line for line in lines[place:] if line.at >= cursor.at // 10**9 * 10**9]
    assert not seen.missing


@CHEAP
@given(logs(), st.integers(1, 40))
def test_a_position_does_not_depend_on_how_lines_were_batched(lines: list[LogLine], batch: int) -> None:
    whole = Cursor().moved(lines)
    cursor = Cursor()
    for start in range(0, len(lines), batch):
        cursor = cursor.moved(lines[start : start + batch])
    assert cursor == whole
    assert Cursor.parse(str(whole)) == whole


def test_a_position_whose_line_was_rotated_away_is_missed_and_what_is_left_is_given() -> None:
    lines = [LogLine(BASE + n * 10**6, b"%d" % n) for n in range(10)]
    seen = Seen(Cursor().moved(lines[:3]))
    assert seen.unseen(lines[5:]) + seen.settle() == lines[5:]
    assert seen.missing


@pytest.mark.parametrize("text", ["", "1-2-3", "x-0-0-0", "1-2-3-4-5", "1-2-3-" + "9" * 20])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Cursor.parse(text)


@pytest.mark.parametrize(("condition", "matches"), [("n>=500", True), ("n<500", False), ("n=5", False)])
def test_a_number_that_no_float_holds_is_larger_than_any(condition: str, matches: bool) -> None:
    line = LogLine(1, b'{"n": 1' + b"0" * 400 + b"}")
    assert LineFilter(LogFilter(fields=(condition,))).matches(line) is matches
