"""The algebra of patches and field ownership."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.kubesim import ownership, patches
from kubelore.kubesim.mergekeys import MergeRules
from kubelore.kubesim.status import ApiError

RULES = MergeRules()
ONE, TWO = (ownership.Manager(name, "Apply", "v1") for name in ("one", "two"))
scalars = st.integers(0, 3) | st.sampled_from(["a", "b"])
fields = st.dictionaries(
    st.sampled_from(["k", "l", "m"]),
    st.recursive(scalars, lambda inner: st.dictionaries(st.sampled_from(["p", "q"]), inner, min_size=1)),
)


def content(obj: dict[str, Any]) -> dict[str, Any]:
    return obj.get("data", {})


def config(data: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, **({"data": data} if data else {})}


def apply(before: dict[str, Any], data: dict[str, Any], manager: ownership.Manager) -> dict[str, Any]:
    return ownership.apply(before, config(copy.deepcopy(data)), manager, RULES, force=True)


@given(fields, fields)
def test_the_only_owner_gets_exactly_what_was_applied_last(first: Any, second: Any) -> None:
    assert content(apply(apply({}, first, ONE), second, ONE)) == second


@given(fields, fields)
def test_applying_twice_is_applying_once(present: Any, wanted: Any) -> None:
    once = apply(apply({}, present, TWO), wanted, ONE)
    assert apply(once, wanted, ONE) == once


@given(fields, fields)
def test_what_was_forced_is_there_and_the_same_again_does_not_conflict(present: Any, wanted: Any) -> None:
    forced = apply(apply({}, present, TWO), wanted, ONE)
    again = ownership.apply(forced, config(wanted), ONE, RULES, force=False)
    assert ownership.leaves(again, RULES).items() >= ownership.leaves(config(wanted), RULES).items()


@given(fields, fields)
def test_a_merge_patch_with_nothing_removed_holds_its_values(target: Any, patch: Any) -> None:
    merged = patches.merge(target, patch)
    assert patches.merge(merged, patch) == merged


def test_a_conflict_names_every_owner_and_field() -> None:
    live = apply({}, {"x": "1", "y": "1"}, ONE)
    with pytest.raises(ApiError) as refused:
        ownership.apply(live, config({"x": "2", "y": "2"}), TWO, RULES, force=False)
    assert refused.value.details is not None
    assert [cause["field"] for cause in refused.value.details["causes"]] == [".data.x", ".data.y"]
    assert "2 conflicts" in refused.value.message


def test_items_of_keyed_lists_are_owned_and_removed_one_by_one() -> None:
    def pod(*names: str) -> dict[str, Any]:
        containers = [{"name": name, "image": f"{name}:1"} for name in names]
        return {"metadata": {"name": "p"}, "spec": {"containers": containers}}

    both = ownership.apply(pod(), pod("a", "b"), ONE, RULES, force=False)
    three = ownership.apply(both, pod("c"), TWO, RULES, force=False)
    left = ownership.apply(three, pod("b"), ONE, RULES, force=False)
    assert [container["name"] for container in left["spec"]["containers"]] == ["b", "c"]


def test_custom_lists_merge_as_their_schema_says() -> None:
    listed = {"type": "array", "items": {"type": "object", "properties": {}}}
    keyed = {**listed, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]}
    properties = {"keyed": keyed, "atomic": listed}
    rules = MergeRules({"properties": {"spec": {"properties": properties}}})

    def obj(*ids: int) -> dict[str, Any]:
        return {"metadata": {}, "spec": {"keyed": [{"id": i} for i in ids], "atomic": list(ids)}}

    both = ownership.apply(
        ownership.apply({}, obj(1), ONE, rules, force=False), obj(2), TWO, rules, force=True
    )
    assert both["spec"] == {"keyed": [{"id": 1}, {"id": 2}], "atomic": [2]}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"args": ["z"]}, {"args": ["z"], "env": [{"name": "A", "value": "1"}]}),
        ({"env": [{"name": "A", "value": None}]}, {"args": ["x"], "env": [{"name": "A"}]}),
        ({"env": [{"name": "A", "$patch": "delete"}]}, {"args": ["x"], "env": []}),
        ({"env": [{"$patch": "replace"}, {"name": "B"}]}, {"args": ["x"], "env": [{"name": "B"}]}),
        ({"$retainKeys": ["env", "name"]}, {"env": [{"name": "A", "value": "1"}]}),
        ({"$patch": "replace", "args": []}, {"args": []}),
    ],
)
def test_strategic_directives(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    container = {"name": "c", "args": ["x"], "env": [{"name": "A", "value": "1"}]}
    body = {"spec": {"containers": [{"name": "c", **patch}]}}
    merged = patches.strategic({"spec": {"containers": [container]}}, body, RULES)
    assert merged["spec"]["containers"] == [{"name": "c", **expected}]
