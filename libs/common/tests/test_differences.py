"""What differs between two objects, and that carrying it out on one gives the other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.kube.differences import ABSENT, Difference, Noise, differences, patched, quiet, render

_names = st.sampled_from(
    ["name", "spec", "containers", "ports", "env", "containerPort", "protocol", "port", "a", "x/y.z", ""]
)
_scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "TCP", "it's", "1"])
)
_keyed = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd")}, optional={"image": _scalars, "ports": _scalars}),
    max_size=4,
)
_values = st.recursive(
    _scalars | _keyed,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=20,
)


def canonical(value: Any) -> str:
    """JSON text, by which true and 1 are two things."""
    return json.dumps(value, sort_keys=True)


@given(_values)
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    assert differences(value, msgspec.json.decode(msgspec.json.encode(value))) == []


@given(_values, _values)
def test_carrying_the_differences_out_on_the_old_gives_the_new(old: Any, new: Any) -> None:
    before = canonical(old)
    assert canonical(patched(old, differences(old, new))) == canonical(new)
    assert canonical(old) == before


@given(_values, _values)
def test_the_other_way_round_the_same_places_differ_with_their_sides_exchanged(old: Any, new: Any) -> None:
    there = {
        (render(each.path), canonical_side(each.old), canonical_side(each.new))
        for each in differences(old, new)
    }
    back = {
        (render(each.path), canonical_side(each.new), canonical_side(each.old))
        for each in differences(new, old)
    }
    assert {each for each in there if "[*]" not in each[0]} == {each for each in back if "[*]" not in each[0]}


def canonical_side(value: Any) -> str:
    return "absent" if value is ABSENT else canonical(value)


@given(_values, _values)
def test_every_difference_has_a_path_of_its_own(old: Any, new: Any) -> None:
    paths = [render(each.path) for each in differences(old, new)]
    assert len(set(paths)) == len(paths)


@given(_values)
def test_taking_the_noise_out_twice_changes_nothing_more(value: Any) -> None:
    rules = (Noise(("spec", "a")), Noise(("*", "name")), Noise(("containers", "*", "image")))
    assert canonical(quiet(quiet(value, rules), rules)) == canonical(quiet(value, rules))


def deployment(image: str, **more: Any) -> dict[str, Any]:
    containers = [{"name": "web", "image": image}, {"name": "log", "image": "log:1"}]
    return {"kind": "Deployment", "spec": {"template": {"spec": {"containers": containers}}}, **more}


def changed(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    return [(render(each.path), each.old, each.new) for each in differences(old, new)]


def test_a_container_is_found_by_its_name_wherever_it_stands() -> None:
    new = deployment("web:2")
    new["spec"]["template"]["spec"]["containers"].insert(0, {"name": "first", "image": "first:1"})
    found = changed(deployment("web:1"), new)
    where = "spec.template.spec.containers"
    assert found == [
        (f"{where}[name=web].image", "web:1", "web:2"),
        (f"{where}[name=first]", ABSENT, {"name": "first", "image": "first:1"}),
        (f"{where}[*].name", ["web", "log"], ["first", "web", "log"]),
    ]


def test_a_port_is_found_by_number_and_protocol_and_tcp_need_not_be_said() -> None:
    old = {"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "name": "tcp"}]}}
    new = {
        "spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "name": "tcp"}]}
    }
    assert changed(old, new) == [("spec.ports[port=53,protocol=TCP].protocol", ABSENT, "TCP")]


def test_items_that_nothing_tells_apart_are_compared_by_their_place() -> None:
    assert changed({"args": ["a", "b"]}, {"args": ["a", "c", "d"]}) == [
        ("args[1]", "b", "c"),
        ("args[2]", ABSENT, "d"),
    ]


def test_two_items_with_one_name_are_compared_by_their_place() -> None:
    old = {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}
    new = {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "3"}]}
    assert changed(old, new) == [("env[1].value", "2", "3")]


def test_true_is_not_one_and_absent_is_not_null() -> None:
    assert changed({"a": True, "b": None}, {"a": 1}) == [("a", True, 1), ("b", None, ABSENT)]


def test_names_that_are_no_words_are_quoted_in_a_path_of_one_line() -> None:
    labels = {"app.kubernetes.io/name": "x", "it's\n": "y"}
    assert [path for path, _, _ in changed({"labels": {}}, {"labels": labels})] == [
        "labels['app.kubernetes.io/name']",
        "labels['it\\'s\\n']",
    ]


def test_what_the_api_server_writes_by_itself_is_left_out() -> None:
    old = deployment("web:1", metadata={"name": "web", "resourceVersion": "1", "generation": 1}, status={})
    new = deployment(
        "web:1",
        metadata={
            "name": "web",
            "resourceVersion": "2",
            "generation": 2,
            "managedFields": [],
            "annotations": {"deployment.kubernetes.io/revision": "2"},
        },
        status={"replicas": 1},
    )
    assert differences(quiet(old), quiet(new)) == []


def test_noise_of_one_kind_is_none_in_another() -> None:
    rules = (Noise(("spec", "clusterIP"), frozenset({"Service"})),)
    service = {"kind": "Service", "spec": {"clusterIP": "10.0.0.1", "type": "ClusterIP"}}
    assert quiet(service, rules)["spec"] == {"type": "ClusterIP"}
    assert quiet({**service, "kind": "Other"}, rules)["spec"]["clusterIP"] == "10.0.0.1"


def test_noise_within_every_item_of_a_list_is_left_out() -> None:
    rules = (Noise(("spec", "ports", "*", "nodePort")),)
    assert quiet({"spec": {"ports": [{"port": 1, "nodePort": 30000}]}}, rules) == {
        "spec": {"ports": [{"port": 1}]}
    }


def test_what_is_deeper_than_any_object_is_compared_whole() -> None:
    def nested(leaf: int) -> Any:
        value: Any = leaf
        for _ in range(300):
            value = {"a": value}
        return value

    (found,) = differences(nested(1), nested(2))
    assert len(found.path) == 100
    assert patched(nested(1), [found]) == nested(2)


def test_the_whole_of_a_scalar_differs_at_the_root() -> None:
    assert differences(1, 2) == [Difference((), 1, 2)]
    assert render(()) == ""
