"""When a cluster that failed is tried again, and how many clusters are a fair share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.resource_ops.replicas import fair_share
from kubelore.resource_ops.setbacks import LIMIT_S, STEADY_S, Setbacks


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def wait_after_failures(setbacks: Setbacks, clock: Clock, failures: int) -> float:
    for _ in range(failures):
        setbacks.note("prod", 1)
    started = clock.now
    while not setbacks.may_try("prod", 1):
        clock.now += 0.5
    return clock.now - started


def test_the_first_failure_may_be_a_hiccup_and_is_tried_at_once() -> None:
    clock = Clock()
    assert wait_after_failures(Setbacks(clock), clock, 1) == 0


def test_each_failure_waits_longer_than_the_last_up_to_a_minute() -> None:
    waits = []
    for failures in range(1, 15):
        clock = Clock()
        waits.append(wait_after_failures(Setbacks(clock), clock, failures))
    assert waits == sorted(waits)
    assert waits[-1] == LIMIT_S


def test_a_cluster_that_went_well_for_a_while_begins_anew() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    for _ in range(8):
        setbacks.note("prod", 1)
    setbacks.note("prod", 1, lasted_s=STEADY_S)
    assert setbacks.may_try("prod", 1)


def test_new_credentials_are_tried_at_once() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    for _ in range(8):
        setbacks.note("prod", 1)
    assert not setbacks.may_try("prod", 1)
    assert setbacks.may_try("prod", 2)


def test_a_removed_cluster_leaves_nothing_behind() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    for _ in range(8):
        setbacks.note("prod", 1)
    setbacks.keep({"other"})
    assert setbacks.may_try("prod", 1)


@given(st.integers(0, 500), st.integers(0, 20))
def test_fair_shares_hold_every_cluster_and_one_replica_less_would_not_be_needed(
    clusters: int, replicas: int
) -> None:
    share = fair_share(clusters, replicas)
    assert share * max(1, replicas) >= clusters
    assert (share - 1) * max(1, replicas) < clusters or share == 0
