"""The algebra of a three-way merge, on objects as they are in clusters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest
from kubelore.common.kube.differences import ABSENT, differences, patched, same
from kubelore.yaml_vcs.merging import merge

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
NAMES = st.sampled_from(["a", "b", "c", "web"])


def items(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Lists whose items have names of their own."""
    named = st.dictionaries(
        NAMES, st.dictionaries(st.sampled_from(["image", "env", "x"]), values, max_size=3)
    )
    return st.builds(
        lambda found, order: [{**found[name], "name": name} for name in sorted(found, key=order.get)],
        named,
        st.permutations(["a", "b", "c", "web"]).map(
            lambda order: {name: at for at, name in enumerate(order)}
        ),
    )


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3) | items(inner),
    max_leaves=12,
)
OBJECTS = st.fixed_dictionaries(
    {}, optional={"metadata": VALUES, "containers": items(VALUES), "data": VALUES, "ports": VALUES}
)


@given(OBJECTS, OBJECTS)
def test_what_one_side_alone_changed_is_taken_as_it_is(base, x) -> None:
    for merged in (merge(base, base, x), merge(base, x, base), merge(base, x, x)):
        assert same(merged.value, x)
        assert merged.conflicts == ()


@given(OBJECTS, OBJECTS, OBJECTS)
def test_the_sides_may_change_places(base, ours, theirs) -> None:
    one, other = merge(base, ours, theirs), merge(base, theirs, ours)
    told = {(clash.where, _text(clash.ours), _text(clash.theirs)) for clash in one.conflicts}
    assert told == {(clash.where, _text(clash.theirs), _text(clash.ours)) for clash in other.conflicts}
    if not one.conflicts:
        assert same(one.value, other.value)


@given(OBJECTS, OBJECTS, OBJECTS)
def test_a_merge_changes_nothing_that_it_is_given(base, ours, theirs) -> None:
    before = copy.deepcopy((base, ours, theirs))
    merge(base, ours, theirs)
    assert same(list(before), [base, ours, theirs])


@given(OBJECTS, OBJECTS, OBJECTS)
def test_every_conflict_can_be_decided_either_way(base, ours, theirs) -> None:
    found = merge(base, ours, theirs)
    mine = merge(base, ours, theirs, {clash.where: "ours" for clash in found.conflicts})
    yours = merge(base, ours, theirs, {clash.where: "theirs" for clash in found.conflicts})
    assert (mine.open, yours.open) == ((), ())
    assert same(mine.value, found.value)
    turned = merge(base, theirs, ours)
    assert same(yours.value, turned.value)


@given(OBJECTS, st.dictionaries(st.sampled_from(["l1", "l2"]), VALUES), st.dictionaries(st.just("r"), VALUES))
def test_edits_that_do_not_overlap_are_both_there_whichever_comes_first(base, left, right) -> None:
    ours, theirs = {**base, **left}, {**base, **right}
    merged = merge(base, ours, theirs)
    assert merged.conflicts == ()
    assert same(merged.value, {**base, **left, **right})
    # What one of them did is also what is left to do on top of the other.
    assert same(patched(ours, differences(base, theirs)), merged.value)


def _text(value: Any) -> str:
    return "nothing" if value is ABSENT else repr(value)


def deployment(image: str = "one", replicas: int = 2, **more: Any) -> dict[str, Any]:
    containers = [{"name": "web", "image": image}, {"name": "log", "image": "tail"}]
    return {"spec": {"replicas": replicas, "template": {"spec": {"containers": containers, **more}}}}


def test_containers_are_merged_by_name() -> None:
    ours, theirs = deployment("two"), deployment(replicas=3)
    theirs["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "envoy"})
    merged = merge(deployment(), ours, theirs)
    assert merged.conflicts == ()
    assert merged.value["spec"]["replicas"] == 3
    assert [
        (one["name"], one["image"]) for one in merged.value["spec"]["template"]["spec"]["containers"]
    ] == [
        ("proxy", "envoy"),
        ("web", "two"),
        ("log", "tail"),
    ]


def test_a_conflict_is_named_with_what_everybody_says() -> None:
    found = merge(deployment("one"), deployment("two"), deployment("three"))
    (clash,) = found.open
    assert clash.where == "spec.template.spec.containers[name=web].image"
    assert (clash.base, clash.ours, clash.theirs) == ("one", "two", "three")
    resolved = merge(deployment("one"), deployment("two"), deployment("three"), {clash.where: "theirs"})
    assert resolved.open == ()
    assert same(resolved.value, deployment("three"))


def test_what_one_side_removed_and_the_other_changed_is_a_conflict() -> None:
    base, ours, theirs = {"data": {"a": "1"}}, {"data": {}}, {"data": {"a": "2"}}
    (clash,) = merge(base, ours, theirs).open
    assert (clash.where, clash.base, clash.ours, clash.theirs) == ("data.a", "1", ABSENT, "2")
    assert merge(base, ours, theirs, {"data.a": "theirs"}).value == theirs
    assert merge(base, ours, theirs, {"data.a": "ours"}).value == ours


def test_lists_without_keys_are_one_value() -> None:
    base, ours, theirs = {"args": ["a"]}, {"args": ["a", "b"]}, {"args": ["a", "c"]}
    assert [clash.where for clash in merge(base, ours, theirs).open] == ["args"]


def test_two_orders_of_the_same_items_are_a_conflict() -> None:
    def env(*names: str) -> dict[str, Any]:
        return {"env": [{"name": name} for name in names]}

    found = merge(env("a", "b", "c"), env("b", "a", "c"), env("a", "c", "b"))
    assert [clash.where for clash in found.open] == ["env[*].name"]
    assert merge(env("a", "b"), env("b", "a"), env("a", "b", "c")).value == env("b", "c", "a")


def test_to_resolve_what_is_no_conflict_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"nothing conflicts at 'data\.b'"):
        merge({"data": {"a": "1"}}, {"data": {"a": "2"}}, {"data": {"a": "3"}}, {"data.b": "ours"})
