"""Whose pods a workload means, from its selector and from what pods say of themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubelore.common.errors import BadRequest
from kubelore.common.kube import ResourceType
from kubelore.common.kube.selectors import LabelSelector
from kubelore.container_ops.targets import OwnerReference, pod_labels, pod_named, workload_of

DEPLOYMENTS = ResourceType(
    group="apps", version="v1", plural="deployments", kind="Deployment", namespaced=True
)


def selector_of(spec: dict[str, Any]) -> str:
    return pod_labels(json.dumps({"spec": spec}).encode(), DEPLOYMENTS, "web")


def test_labels_and_expressions_become_one_selector() -> None:
    text = selector_of(
        {
            "selector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["a", "b"]},
                    {"key": "canary", "operator": "DoesNotExist"},
                    {"key": "zone", "operator": "Exists"},
                    {"key": "track", "operator": "NotIn", "values": ["old"]},
                ],
            }
        }
    )
    selector = LabelSelector.parse(text)
    assert selector.matches({"app": "web", "tier": "a", "zone": "z"})
    assert not selector.matches({"app": "web", "tier": "c", "zone": "z"})
    assert not selector.matches({"app": "web", "tier": "a", "zone": "z", "canary": "x"})
    assert not selector.matches({"app": "web", "tier": "a", "zone": "z", "track": "old"})


def test_a_service_selects_by_a_plain_map() -> None:
    assert selector_of({"selector": {"app": "web", "tier": "a"}}) == "app=web,tier=a"


@pytest.mark.parametrize("spec", [{}, {"selector": {}}, {"selector": {"matchLabels": {}}}])
def test_what_selects_nothing_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        selector_of(spec)


def _owner(kind: str, name: str, group: str = "apps/v1") -> list[OwnerReference]:
    return [OwnerReference(kind, name, group, controller=True)]


def test_a_pod_leads_back_to_its_workload() -> None:
    labels = {"pod-template-hash": "5d9c7b9f6d"}
    assert workload_of(_owner("ReplicaSet", "web-5d9c7b9f6d"), labels) == "deployments.apps/web"
    assert workload_of(_owner("ReplicaSet", "web-blue"), {}) == "replicasets.apps/web-blue"
    assert workload_of(_owner("StatefulSet", "db"), {}) == "statefulsets.apps/db"
    assert workload_of(_owner("Job", "report-29932887", "batch/v1"), {}) == "cronjobs.batch/report"
    assert workload_of(_owner("Job", "once", "batch/v1"), {}) == "jobs.batch/once"
    assert workload_of(_owner("ReplicationController", "old", "v1"), {}) == "replicationcontrollers/old"
    assert workload_of([], {}) == ""
    assert workload_of([OwnerReference("Node", "n1", "v1")], {}) == ""


def test_a_pod_is_named_as_kubectl_names_it() -> None:
    assert [pod_named(one) for one in ("pods/a", "pod/a", "po/a", "deploy/a", "a", "")] == [
        "a",
        "a",
        "a",
        "",
        "",
        "",
    ]
