"""What is left out when objects are compared, and what never is."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest
from kubelore.common.kube.noise import RULES, digest, meant, parse_path, parse_paths

SERVER = {
    "uid": "6f0d",
    "resourceVersion": "41",
    "generation": 3,
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "managedFields": [{"manager": "kubectl"}],
}


def written(body: dict[str, Any], **metadata: Any) -> bytes:
    return json.dumps({"metadata": {"name": "a", "namespace": "n", **metadata}, **body}).encode()


def same(kind: str, one: bytes, other: bytes, **more: Any) -> bool:
    return digest(kind, one, **more) == digest(kind, other, **more)


def test_what_the_server_writes_does_not_count() -> None:
    plain = written({"spec": {"replicas": 2}})
    served = written({"spec": {"replicas": 2}, "status": {"replicas": 1}}, **SERVER, annotations={})
    assert same("deployments.apps", plain, served)


def test_what_was_asked_for_counts() -> None:
    assert not same(
        "deployments.apps", written({"spec": {"replicas": 2}}), written({"spec": {"replicas": 3}})
    )
    assert not same("configmaps", written({}, labels={"a": "1"}), written({}, labels={"a": "2"}))


def test_the_order_of_fields_does_not_count_and_that_of_lists_does() -> None:
    assert same(
        "x",
        b'{"metadata":{"name":"a"},"spec":{"a":1,"b":2}}',
        b'{"spec":{"b":2,"a":1},"metadata":{"name":"a"}}',
    )
    assert not same("x", written({"spec": {"args": ["a", "b"]}}), written({"spec": {"args": ["b", "a"]}}))


def test_an_address_that_the_cluster_chose_does_not_count_but_none_at_all_does() -> None:
    one, other = (written({"spec": {"clusterIP": address}}) for address in ("10.0.0.1", "10.9.0.4"))
    headless = written({"spec": {"clusterIP": "None"}})
    assert same("services", one, other)
    assert not same("services", one, headless)
    assert meant("services", headless)["spec"] == {"clusterIP": "None"}


def test_a_volume_that_the_server_mounts_into_pods_does_not_count() -> None:
    def pod(suffix: str, node: str) -> bytes:
        token = f"kube-api-access-{suffix}"
        container = {"name": "c", "volumeMounts": [{"name": token}, {"name": "data"}]}
        spec = {"nodeName": node, "volumes": [{"name": "data"}, {"name": token}], "containers": [container]}
        return written({"spec": spec})

    assert same("pods", pod("x1", "n1"), pod("x2", "n2"))
    assert [
        mount["name"] for mount in meant("pods", pod("x1", "n1"))["spec"]["containers"][0]["volumeMounts"]
    ] == ["data"]


def test_the_uid_that_a_controller_writes_into_the_labels_of_a_job_does_not_count() -> None:
    def job(uid: str) -> bytes:
        labels = {"controller-uid": uid, "batch.kubernetes.io/controller-uid": uid, "app": "report"}
        return json.dumps({"metadata": {"name": "j", "labels": labels}}).encode()

    assert same("jobs.batch", job("1"), job("2"))
    assert meant("jobs.batch", job("1"))["metadata"]["labels"] == {"app": "report"}


def test_the_authority_in_every_namespace_does_not_count_but_other_maps_do() -> None:
    def config(name: str, value: str) -> bytes:
        return json.dumps({"metadata": {"name": name}, "data": {"ca.crt": value}}).encode()

    assert same("configmaps", config("kube-root-ca.crt", "a"), config("kube-root-ca.crt", "b"))
    assert not same("configmaps", config("mine", "a"), config("mine", "b"))


def test_secrets_are_compared_by_the_hashes_of_their_values() -> None:
    secret = written({"type": "Opaque"})
    assert digest("secrets", secret, {"key": b"1"}) == digest("secrets", secret, {"key": b"1"})
    assert digest("secrets", secret, {"key": b"1"}) != digest("secrets", secret, {"key": b"2"})
    assert digest("secrets", secret, {"key": b"1"}) != digest("secrets", secret, {"other": b"1"})


def test_paths_of_ones_own_are_left_out_too() -> None:
    raw = written(
        {"spec": {"replicas": 2, "ports": [{"port": 1, "nodePort": 9}]}},
        annotations={"a.b/c,d": "1", "k": "2"},
    )
    ignore = parse_paths("spec.replicas, spec.ports[*].nodePort,metadata.annotations['a.b/c,d']")
    found = meant("x", raw, ignore=ignore)
    assert found["spec"] == {"ports": [{"port": 1}]}
    assert found["metadata"]["annotations"] == {"k": "2"}


@pytest.mark.parametrize("text", ["", ".", "a..b", "[*]", "a[", "a[x]", "a['b", "a]b", "a" * 501, "a[b=]"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_path(text)


def test_too_many_paths_are_refused() -> None:
    with pytest.raises(BadRequest, match="more than 50"):
        parse_paths(",".join(f"spec.f{number}" for number in range(51)))


@pytest.mark.parametrize("unit", [",'", ",", "'", "a,", "a'b',"])
def test_many_commas_and_quotes_take_no_more_than_one_pass(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    with suppress(BadRequest):
        parse_paths(text)
    # A pass takes 0.1 s; looking ahead from each comma took hours.
    assert time.process_time() - started < 3


def test_every_rule_is_a_path() -> None:
    for rule in RULES:
        assert parse_path(rule.path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(st.sampled_from(["spec", "status", "data", "x"]), json_values, max_size=4)


@given(bodies, st.sampled_from(["services", "pods", "jobs.batch", "widgets.example.com"]))
def test_any_object_whatever_its_shape_can_be_compared_with_itself(body: dict[str, Any], kind: str) -> None:
    raw = json.dumps({"metadata": {"name": "a"}, **body}).encode()
    once = meant(kind, raw)
    again = meant(kind, json.dumps(once).encode())
    assert again == once
    assert "status" not in once
