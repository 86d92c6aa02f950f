"""Counting matches in a window of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.container_ops.alert_counting import NS, Window


def test_matches_close_together_add_up() -> None:
    window = Window(60)
    assert [window.add(at * NS) for at in (100, 110, 120)] == [1, 2, 3]


def test_what_lies_behind_the_window_counts_no_more() -> None:
    window = Window(60)
    window.add(100 * NS)
    assert window.add(200 * NS) == 1


def test_after_it_was_told_it_begins_anew() -> None:
    window = Window(60)
    window.add(100 * NS)
    window.clear()
    assert window.add(101 * NS) == 1


@given(st.lists(st.integers(0, 500), max_size=200), st.integers(1, 120))
def test_it_is_never_off_by_more_than_a_slice(moments: list[int], span: int) -> None:
    window = Window(span)
    slack = span / 60 + 1
    for place, at in enumerate(sorted(moments)):
        told = window.add(at * NS)
        seen = sorted(moments)[: place + 1]
        assert (
            sum(one > at - span + slack for one in seen)
            <= told
            <= sum(one > at - span - slack for one in seen)
        )


@given(st.lists(st.integers(0, 10**12), max_size=500))
def test_it_holds_a_bounded_number_of_slices(moments: list[int]) -> None:
    window = Window(60)
    for at in moments:
        window.add(at)
    assert len(window._slices) <= 61
