"""Two real clusters compared: the same manifests are the same, whatever their servers made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

NAMESPACE = "compared"
TYPES = "deployments,services,configmaps,secrets,serviceaccounts,jobs,pvc,roles"


def manifest(api_version: str, kind: str, name: str, **body: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"part-of": "shop"}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


POD = {"containers": [{"name": "main", "image": "example.com/web:1"}]}
OBJECTS = [
    manifest(
        "apps/v1",
        "Deployment",
        "web",
        spec={
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD},
        },
    ),
    manifest("v1", "Service", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 80}]}),
    manifest("v1", "Service", "outside", spec={"type": "NodePort", "ports": [{"port": 80}]}),
    manifest("v1", "Service", "headless", spec={"clusterIP": "None", "ports": [{"port": 80}]}),
    manifest("v1", "ConfigMap", "settings", data={"colour": "red"}),
    manifest("v1", "Secret", "keys", stringData={"password": "hunter2hunter2"}),
    manifest("v1", "ServiceAccount", "runner"),
    manifest("batch/v1", "Job", "once", spec={"template": {"spec": {**POD, "restartPolicy": "Never"}}}),
    manifest(
        "v1",
        "PersistentVolumeClaim",
        "disk",
        spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    ),
    manifest(
        "rbac.authorization.k8s.io/v1",
        "Role",
        "reader",
        rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(kubelore, lab_pair):
    """Both lab clusters as east and west, with the same manifests applied to each, at different times."""
    for name, plane in (("east", lab_pair.first), ("west", lab_pair.second)):
        kubectl = plane.kubectl()
        await kubectl("create", "namespace", NAMESPACE)
        manifests = {"apiVersion": "v1", "kind": "List", "items": OBJECTS}
        await kubectl("apply", "-f", "-", stdin=json.dumps(manifests))
        await kubelore.onboard(name, plane.kubeconfig())
    yield kubelore
    for name in ("east", "west"):
        await kubelore.remove(name)


async def compare(kubelore, **query: Any) -> dict[str, Any]:
    answer = await kubelore.http.get(
        "/api/k8s/unified/compare", params={"clusters": "east,west", "namespace": NAMESPACE, **query}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def settled(kubelore, **query: Any) -> dict[str, Any]:
    """The only item of a comparison, once both clusters have what was written."""
    return (await compare(kubelore, **query))["items"][0]


async def test_the_same_manifests_are_the_same_in_both_clusters(pair) -> None:
    async def all_there() -> bool:
        return (await compare(pair, type=TYPES))["summary"]["same"] >= len(OBJECTS)

    await wait_for(all_there, "both clusters to be the same", 30)
    page = await compare(pair, type=TYPES)
    assert {item["status"] for item in page["items"]} == {"same"}, [
        item for item in page["items"] if item["status"] != "same"
    ]
    names = {(item["type"], item["name"]) for item in page["items"]}
    assert {("services", "headless"), ("secrets", "keys"), ("deployments.apps", "web")} <= names
    assert page["partial"] is False


async def test_a_field_that_was_changed_in_one_cluster_is_named_with_both_values(pair, lab_pair) -> None:
    await lab_pair.second.kubectl()(
        "set", "image", "deployment/web", "main=example.com/web:2", "-n", NAMESPACE
    )

    async def differs() -> bool:
        return (await settled(pair, type="deploy", name="web"))["status"] == "different"

    await wait_for(differs, "the change to be seen")
    item = await settled(pair, type="deploy", name="web")
    assert item["changes"] == [
        {
            "path": "spec.template.spec.containers[name=main].image",
            "values": {"east": "example.com/web:1", "west": "example.com/web:2"},
        }
    ]
    ignored = await settled(pair, type="deploy", name="web", ignore="spec.template.spec.containers[*].image")
    assert ignored["status"] == "same"


async def test_values_of_secrets_differ_without_being_told(pair, lab_pair) -> None:
    changed = manifest("v1", "Secret", "keys", stringData={"password": "correcthorse-battery", "more": "x"})
    await lab_pair.second.kubectl()("apply", "-f", "-", stdin=json.dumps(changed))

    async def differs() -> bool:
        return (await settled(pair, type="secrets", name="keys"))["status"] == "different"

    await wait_for(differs, "the change to be seen")
    answer = await pair.http.get(
        "/api/k8s/unified/compare", params={"type": "secrets", "namespace": NAMESPACE, "name": "keys"}
    )
    (item,) = answer.json()["items"]
    assert item["changes"] == [
        {"path": "data.more", "values": {"west": "value 1"}},
        {"path": "data.password", "values": {"east": "value 1", "west": "value 2"}},
    ]
    for trace in ("hunter2", "correcthorse", "aHVudGVy", "Y29ycmVjd"):
        assert trace not in answer.text


async def test_what_is_in_one_cluster_alone_is_missing_in_the_other(pair, lab_pair) -> None:
    only = manifest("v1", "ConfigMap", "only-east", data={"a": "b"})
    await lab_pair.first.kubectl()("apply", "-f", "-", stdin=json.dumps(only))

    async def seen() -> bool:
        return bool((await compare(pair, type="cm", name="only-east"))["items"])

    await wait_for(seen, "the object to be seen")
    page = await compare(pair, type="cm", status="missing")
    assert [(item["name"], item["clusters"]) for item in page["items"]] == [
        ("only-east", {"east": "present", "west": "absent"})
    ]


async def test_the_table_of_secrets_counts_their_keys_as_kubectl_does(pair, lab_pair) -> None:
    page = await pair.list(type="secrets", view="table", clusters="east", namespace=NAMESPACE)
    said = await lab_pair.first.kubectl()("get", "secrets", "-n", NAMESPACE, "--no-headers")
    assert [[str(cell) for cell in item["object"][:3]] for item in page["items"]] == [
        line.split()[:3] for line in said.splitlines()
    ]


async def test_counts_are_those_of_kubectl(pair, lab_pair) -> None:
    found = (
        await pair.http.get("/api/k8s/unified/summary", params={"type": "services", "namespace": NAMESPACE})
    ).json()
    counted = {
        name: len((await plane.kubectl()("get", "services", "-n", NAMESPACE, "--no-headers")).splitlines())
        for name, plane in (("east", lab_pair.first), ("west", lab_pair.second))
    }
    assert {state["name"]: state["count"] for state in found["clusters"]} == counted
    assert found["types"] == {"services": sum(counted.values())}
    assert found["namespaces"] == {NAMESPACE: sum(counted.values())}


async def test_the_types_are_those_that_kubectl_can_list_and_watch(pair, lab_pair) -> None:
    found = (await pair.http.get("/api/k8s/unified/types", params={"clusters": "east"})).json()
    said = await lab_pair.first.kubectl()("api-resources", "--verbs=list,watch", "-o", "name")
    # Types that two groups share are observed once.
    assert {item["name"] for item in found["items"]} <= set(said.split())
    assert {"pods", "deployments.apps", "nodes"} <= {item["name"] for item in found["items"]}
