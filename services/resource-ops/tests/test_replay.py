"""What a replay remembers: the version before, what selectors saw of it, and no more objects than it may."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.kube.facts import read
from kubelore.resource_ops.records import Manifest
from kubelore.resource_ops.replay import Before, Replay

steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["front", "back"])), min_size=1, max_size=30
)


def manifest(name: str, rv: int, tier: str) -> Manifest:
    metadata = {"name": name, "uid": name, "resourceVersion": str(rv), "labels": {"tier": tier}}
    raw = json.dumps({"metadata": metadata}).encode()
    return Manifest(raw, read("pods", raw))


@given(steps, st.integers(min_value=1, max_value=4))
def test_what_is_said_of_the_past_is_right_or_nothing(changes: list[tuple[str, str]], most: int) -> None:
    replay, history = Replay(until="1000", max_objects=most), dict[str, tuple[str, str]]()
    for number, (name, tier) in enumerate(changes, start=1):
        before = replay.pass_by("pods", manifest(name, number, tier))
        assert before is not None
        if before.rv:
            rv, former = history[name]
            assert before.rv == rv
            assert (before.was.labels["tier"] if before.was else tier) == former
        elif name in history:
            assert len({seen for seen, _ in changes[: number - 1]}) > most
        history[name] = (str(number), tier)


def test_where_the_model_is_ahead_no_longer_it_knows_better() -> None:
    replay = Replay(until="5")
    assert replay.pass_by("pods", manifest("a", 4, "front")) == Before()
    assert replay.pass_by("pods", manifest("b", 6, "back")) is None
    assert replay.pass_by("pods", manifest("a", 7, "back")) is None
    assert Replay().pass_by("pods", manifest("a", 1, "front")) is None
