"""Where a watch begins when what is observed of a cluster has been narrowed or widened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.resource_ops.positions import beginnings, namespace_of, position_key, type_of

keys = st.builds(
    position_key, st.sampled_from(["pods", "deployments.apps"]), st.sampled_from(["", "shop", "web"])
)
positions = st.dictionaries(keys, st.one_of(st.just(""), st.integers(1, 99).map(str)))


@given(keys)
def test_a_key_says_its_type_and_its_namespace(key: str) -> None:
    assert position_key(type_of(key), namespace_of(key)) == key


@given(st.lists(keys, unique=True), positions)
def test_a_watch_never_begins_behind_something_that_was_not_published(
    wanted: list[str], held: dict[str, str]
) -> None:
    after = held | beginnings(wanted, held)
    for key in wanted:
        covering = [held[name] for name in (key, type_of(key)) if name in held]
        if covering and after[key]:
            assert after[key] in covering
            assert int(after[key]) == max(int(position) for position in covering if position)
    assert {key: after[key] for key in held if key not in wanted} == {
        key: held[key] for key in held if key not in wanted
    }


def test_a_namespace_goes_on_where_the_whole_stood() -> None:
    assert beginnings(["pods@shop"], {"pods": "7"}) == {"pods@shop": "7"}
    assert beginnings(["pods@shop"], {"pods": "7", "pods@shop": "5"}) == {"pods@shop": "7"}
    assert beginnings(["pods@shop"], {"pods": "7", "pods@shop": "9"}) == {}


def test_the_whole_behind_namespaces_begins_with_a_gap() -> None:
    assert beginnings(["pods", "nodes"], {"pods@shop": "9"}) == {"pods": ""}


def test_what_was_never_observed_begins_as_that() -> None:
    assert beginnings(["pods", "pods@shop"], {"nodes": "3"}) == {}
