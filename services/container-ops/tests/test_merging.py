"""Several logs as one: in order, whole, and each in the order of its file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.container_ops.following import LogNote
from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.merging import BYTES_AT_ONCE, LINES_AT_ONCE, OPENING_S, Lane, Merge, Out

NOW = 1_800_000_000_000_000_000
LATER = 1000.0


def line(at: float, text: str = "x") -> LogLine:
    """A line so many seconds before now."""
    return LogLine(NOW - int(at * 1e9), text.encode())


def lane(name: str, *lines: LogLine, arrived: float = 0.0, ended: bool = False) -> Lane[str]:
    made = Lane(name, 0.0)
    if lines:
        made.feed(list(lines), Cursor().moved(lines), arrived)
    made.ended = ended
    return made


def merged(*lanes: Lane[str]) -> Merge[str]:
    merge: Merge[str] = Merge()
    merge.lanes += lanes
    return merge


def told(outs: list[Out[str]]) -> list[str]:
    return [f"{out.lane.origin}:{one.text.decode()}" for out in outs for one in out.lines]


def drained(merge: Merge[str]) -> list[Out[str]]:
    """Everything that goes out once all lanes have ended."""
    found: list[Out[str]] = []
    while outs := merge.take(LATER, NOW):
        found += outs
    return found


def test_lines_of_several_logs_go_out_in_the_order_of_their_times() -> None:
    one = lane("a", line(30, "1"), line(10, "3"), ended=True)
    other = lane("b", line(20, "2"), line(5, "4"), ended=True)
    assert told(drained(merged(one, other))) == ["a:1", "b:2", "a:3", "b:4"]


def test_a_log_that_was_not_opened_yet_is_waited_for() -> None:
    merge = merged(lane("a", line(30)), lane("b"))
    assert merge.take(OPENING_S / 2, NOW) == []
    assert told(merge.take(OPENING_S * 2, NOW)) == ["a:x"]


def test_a_log_that_is_quiet_holds_up_nobody() -> None:
    quiet = lane("b")
    quiet.feed([], Cursor(), 0.0)
    assert told(merged(lane("a", line(1)), quiet).take(LATER, NOW)) == ["a:x"]


def test_a_log_that_reads_what_is_old_is_waited_for_between_two_reads() -> None:
    reading = lane("b", line(3600), arrived=10.0)
    merge = merged(lane("a", line(60), ended=True), reading)
    assert told(merge.take(10.0, NOW)) == ["b:x"]
    assert merge.take(10.1, NOW) == []
    assert told(merge.take(11.0, NOW)) == ["a:x"]


def test_a_line_of_just_now_waits_for_others_to_come_before_it() -> None:
    merge = merged(lane("a", line(0), arrived=50.0), lane("b", line(5), ended=True))
    assert told(merge.take(50.0, NOW)) == ["b:x"]
    assert told(merge.take(50.2, NOW)) == ["a:x"]


def test_a_container_whose_clock_is_ahead_waits_no_longer() -> None:
    merge = merged(lane("a", line(-3600), arrived=50.0), lane("b", ended=True))
    assert merge.take(50.0, NOW) == []
    assert told(merge.take(50.2, NOW)) == ["a:x"]


def test_a_log_that_is_alone_waits_for_nothing() -> None:
    assert told(merged(lane("a", line(0), arrived=50.0)).take(50.0, NOW)) == ["a:x"]


def test_what_goes_out_at_once_is_bounded() -> None:
    many = lane("a", *(line(100 - n / 1000) for n in range(3 * LINES_AT_ONCE)), ended=True)
    other = lane("b", line(1), ended=True)
    assert len(told(merged(many, other).take(LATER, NOW))) == LINES_AT_ONCE
    large = lane("a", *(line(9, "x" * (BYTES_AT_ONCE // 2)) for _ in range(6)))
    assert len(told(merged(large).take(LATER, NOW))) <= 3


def test_what_happened_between_lines_stays_between_them() -> None:
    one = lane("a", line(30, "1"))
    one.mark(LogNote("resumed", "again"), Cursor(), 0.0)
    one.feed([line(20, "2")], Cursor(), 0.0)
    one.ended = True
    outs = drained(merged(one, lane("b", ended=True)))
    assert [out.marker is not None for out in outs] == [False, True, False]


def test_a_position_that_was_not_reached_yet_is_none() -> None:
    one = lane("a", line(30))
    assert one.position(LATER) is None
    drained(merged(one))
    assert one.position(LATER) == Cursor().moved([line(30)])


LANES = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=3)), max_size=30), min_size=1, max_size=5
)


@given(LANES, st.integers(1, 7))
def test_nothing_is_lost_and_every_log_keeps_its_order(logs: list[list[tuple[int, bytes]]], cut: int) -> None:
    merge: Merge[int] = Merge()
    for number, log in enumerate(logs):
        made = Lane(number, 0.0)
        cursor = Cursor()
        lines = [LogLine(at, text) for at, text in log]
        for start in range(0, len(lines), cut):
            part = lines[start : start + cut]
            cursor = cursor.moved(part)
            made.feed(part, cursor, 0.0)
        made.ended = True
        merge.lanes.append(made)
    outs = drained(merge)
    for number, log in enumerate(logs):
        mine = [(one.at, one.text) for out in outs if out.lane.origin == number for one in out.lines]
        assert mine == log
        expected = Cursor().moved([LogLine(at, text) for at, text in log])
        assert merge.lanes[number].cursor == (expected if log else None)
        assert merge.lanes[number].held_bytes == 0


@given(LANES)
def test_logs_that_are_in_order_are_merged_in_order(logs: list[list[tuple[int, bytes]]]) -> None:
    merge: Merge[int] = Merge()
    for number, log in enumerate(logs):
        made = Lane(number, 0.0)
        lines = [LogLine(at, text) for at, text in sorted(log)]
        made.feed(lines, Cursor().moved(lines), 0.0)
        made.ended = True
        merge.lanes.append(made)
    times = [one.at for out in drained(merge) for one in out.lines]
    assert times == sorted(times)
    assert len(times) == sum(map(len, logs))
