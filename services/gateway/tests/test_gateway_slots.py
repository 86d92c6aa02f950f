"""How the streams that may be open are shared among those who open them."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import TooManyRequests
from kubelore.gateway.event_stream import Slots


def taken_by(slots: Slots, holder: str, open_: ExitStack) -> int:
    """Take slots until there is none for this holder; how many those were."""
    for count in range(1000):
        try:
            open_.enter_context(slots.take(holder))
        except TooManyRequests:
            return count
    raise AssertionError("there is no end")


def test_one_holder_leaves_as_many_as_they_have() -> None:
    slots = Slots(500)
    with ExitStack() as open_:
        assert taken_by(slots, "greedy", open_) == 251
        with pytest.raises(TooManyRequests, match="251 watches are open already, 251 of them by greedy"):
            slots.check("greedy")
        assert taken_by(slots, "second", open_) == 125
    assert (slots.taken, taken_by(slots, "greedy", ExitStack())) == (0, 251)


def test_few_slots_can_all_be_taken_by_one() -> None:
    slots = Slots(2, "sockets")
    with ExitStack() as open_:
        assert taken_by(slots, "one", open_) == 2
        with pytest.raises(TooManyRequests, match=r"^2 sockets are open already$"):
            slots.check("other")


@given(st.integers(1, 60), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_whoever_has_none_finds_one_while_any_is_free(limit: int, steps: list[tuple[str, bool]]) -> None:
    slots = Slots(limit)
    held: dict[str, list[ExitStack]] = {name: [] for name in "abc"}
    for holder, opens in steps:
        if opens:
            one = ExitStack()
            try:
                one.enter_context(slots.take(holder))
            except TooManyRequests:
                assert slots.taken == limit or held[holder]
            else:
                held[holder].append(one)
        elif held[holder]:
            held[holder].pop().close()
        assert slots.taken == sum(map(len, held.values())) <= limit
