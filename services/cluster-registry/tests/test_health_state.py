"""When a failed probe is a fall, and when the next probe is due."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kubelore.cluster_registry.health import BACKOFF_LIMIT_S, CONFIRM_S, INTERVAL_S, TIMEOUT_S, ProbeState


def test_the_first_answer_is_a_connection() -> None:
    state = ProbeState(random=random.Random(1))
    verdict, delay = state.observe(True)
    assert verdict == "connected"
    assert 0.9 * INTERVAL_S <= delay <= 1.1 * INTERVAL_S


def test_one_failure_is_confirmed_before_it_counts() -> None:
    state = ProbeState(random=random.Random(1))
    state.observe(True)
    assert state.observe(False) == (None, CONFIRM_S)
    assert state.observe(True)[0] is None
    assert state.connected is True


def test_two_failures_in_a_row_are_a_fall_told_once() -> None:
    state = ProbeState(random=random.Random(1))
    state.observe(True)
    verdicts = [state.observe(False)[0] for _ in range(5)]
    assert verdicts == [None, "disconnected", None, None, None]


def test_a_fall_is_known_within_fifteen_seconds() -> None:
    assert 1.1 * INTERVAL_S + TIMEOUT_S + CONFIRM_S + TIMEOUT_S < 15


def test_a_recovery_is_told_at_the_first_answer_after_the_fall() -> None:
    state = ProbeState(random=random.Random(1))
    for reachable in (True, False, False):
        state.observe(reachable)
    assert state.observe(True)[0] == "connected"


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers())
def test_probes_never_rest_longer_than_the_limit_and_verdicts_alternate(
    outcomes: list[bool], seed: int
) -> None:
    state = ProbeState(random=random.Random(seed))
    verdicts = []
    for reachable in outcomes:
        verdict, delay = state.observe(reachable)
        assert 0 < delay <= BACKOFF_LIMIT_S * 1.1
        if verdict:
            verdicts.append(verdict)
    assert all(first != second for first, second in pairwise(verdicts))
