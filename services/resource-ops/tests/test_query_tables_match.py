"""Cells computed here against the Table that a real API server prints, for every type it lists."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kubelore.common.contracts.resources import ClusterState, Query
from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, read_kubeconfig
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.query import query
from kubelore.resource_ops.read_model import ReadModel

pytestmark = pytest.mark.lab

NAMESPACE = "read-model-tables"
UNPRINTED = {
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "leasecandidates.coordination.k8s.io",
    "resourceclaims.resource.k8s.io",
    "resourceslices.resource.k8s.io",
}
"""Types that the server prints in columns of their own, and Kubelore with name and age (see the README)."""
DEFAULT_COLUMNS = [["Name", "Age"], ["Name", "Created At"]]

TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "main", "image": "example.com/web:1"}], "restartPolicy": "Always"},
}
SELECTOR = {"matchLabels": {"app": "web"}}
ONCE = {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
POD_SPEC = {
    "containers": [
        {"name": "main", "image": "example.com/web:1"},
        {"name": "log", "image": "example.com/log:1"},
    ],
    "initContainers": [
        {"name": "setup", "image": "example.com/setup:1"},
        {"name": "proxy", "image": "example.com/proxy:1", "restartPolicy": "Always"},
    ],
    "nodeSelector": {"kubelore.test/none": "true"},
    "readinessGates": [{"conditionType": "example.com/lit"}],
}
OBJECTS: list[dict[str, Any]] = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"replicas": 2, "selector": SELECTOR, "template": TEMPLATE},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "spec": {"serviceName": "x", "selector": SELECTOR, "template": TEMPLATE},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "spec": {
            "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]},
            "template": {**TEMPLATE, "spec": {**TEMPLATE["spec"], "nodeSelector": {"b": "1", "a": "2"}}},
        },
    },
    {"apiVersion": "batch/v1", "kind": "Job", "spec": {"completions": 3, "suspend": True, "template": ONCE}},
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "spec": {"schedule": "0 0 1 1 *", "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": ONCE}}},
    },
    {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "spec": {
            "replicas": 0,
            "selector": {"app": "rc"},
            "template": {**TEMPLATE, "metadata": {"labels": {"app": "rc"}}},
        },
    },
    {"apiVersion": "v1", "kind": "Pod", "spec": POD_SPEC},
    {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {
            "type": "NodePort",
            "selector": {"app": "web"},
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}],
            "externalIPs": ["192.0.2.7"],
        },
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": f"h{n}.example.com"} for n in range(5)],
            "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
            "tls": [{"hosts": ["h1.example.com"]}],
        },
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "spec": {
            "controller": "example.com/c",
            "parameters": {"kind": "P", "name": "p", "apiGroup": "example.com"},
        },
    },
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": SELECTOR}},
    {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2"}},
    {"apiVersion": "v1", "kind": "ServiceAccount"},
    {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "spec": {"hard": {"pods": "90", "limits.cpu": "64", "requests.cpu": "32"}},
    },
    {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "spec": {
            "limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "10m"}}]
        },
    },
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "spec": {
            "capacity": {"storage": "1024Mi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "hostPath": {"path": "/x"},
            "storageClassName": "slow",
        },
    },
    {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "provisioner": "example.com/p",
        "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    },
    {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "spec": {"volumeLifecycleModes": ["Ephemeral"]}},
    {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "spec": {"maxUnavailable": "25%", "selector": SELECTOR},
    },
    {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAMESPACE},
            "maxReplicas": 5,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                },
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "rps"},
                        "target": {"type": "AverageValue", "averageValue": "5"},
                    },
                },
                {
                    "type": "External",
                    "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "9"}},
                },
            ],
        },
    },
    {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": []},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAMESPACE},
        "subjects": [
            {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "Group", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "ServiceAccount", "name": "sa", "namespace": "default"},
        ],
    },
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 7, "globalDefault": False},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"},
    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "me"}},
    {"apiVersion": "v1", "kind": "Node", "spec": {"unschedulable": True}},
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.read-model.example.com"},
        "spec": {
            "group": "read-model.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                    "additionalPrinterColumns": [
                        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "On", "type": "string", "jsonPath": ".spec.on"},
                        {"name": "First", "type": "string", "jsonPath": ".spec.list[0].n"},
                        {
                            "name": "Ready",
                            "type": "string",
                            "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
                        },
                        {"name": "Map", "type": "string", "jsonPath": ".spec.map"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }
            ],
        },
    },
]
WIDGETS = [
    {"color": "red", "size": 3, "on": True, "list": [{"n": "x"}], "map": {"a": 1}},
    {"color": 7, "size": "big", "list": []},
]
POD_STATUSES: list[dict[str, Any]] = [
    {
        "phase": "Running",
        "podIPs": [{"ip": "10.1.2.3"}],
        "podIP": "10.1.2.3",
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "example.com/lit", "status": "True"},
        ],
        "initContainerStatuses": [
            {"name": "setup", "state": {"terminated": {"exitCode": 0}}},
            {"name": "proxy", "started": True, "ready": True, "restartCount": 2, "state": {"running": {}}},
        ],
        "containerStatuses": [
            {"name": "main", "ready": True, "restartCount": 1, "state": {"running": {}}},
            {"name": "log", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        ],
    },
    {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "setup", "state": {"terminated": {"exitCode": 3}}}],
    },
    {"phase": "Failed", "reason": "Evicted"},
]


@pytest.fixture
async def client(lab_pair: Any) -> AsyncIterator[KubeClient]:
    """A client of a control plane in which one object of nearly every built-in type exists."""
    plane: ControlPlane = lab_pair.first
    policy = AddressPolicy(allow_private=True, allow_insecure_tls=False)
    kubectl = plane.kubectl()
    await kubectl("create", "namespace", NAMESPACE)
    created = [await _create(kubectl, body) for body in OBJECTS]
    await kubectl("wait", "--for=condition=Established", "crd/widgets.read-model.example.com")
    for number, spec in enumerate(WIDGETS):
        kind = {
            "apiVersion": "read-model.example.com/v1",
            "kind": "Widget",
            "metadata": {"name": f"w{number}"},
        }
        status = {"conditions": [{"type": "Ready", "status": "False"}]} if number else {}
        await _create(kubectl, {**kind, "spec": spec, "status": status})
    await _make_pods(kubectl)
    async with KubeClient(read_kubeconfig(plane.kubeconfig(), None, policy), policy) as client:
        yield client
    await kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    for kind, name in created:
        await kubectl("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")


async def _create(kubectl: Any, body: dict[str, Any]) -> tuple[str, str]:
    meta = {"name": NAMESPACE, **body.get("metadata", {})}
    await kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps({**body, "metadata": meta}))
    return body["kind"], meta["name"]


async def _make_pods(kubectl: Any) -> None:
    for number, status in enumerate(POD_STATUSES):
        name = f"pod-{number}"
        await _create(
            kubectl, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": POD_SPEC}
        )
        body = json.dumps({"status": status})
        await kubectl(
            "patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", body
        )


async def test_every_type_is_printed_as_the_server_prints_it(client: KubeClient):
    await wait_for(lambda: _controllers_settled(client), "the controllers to have acted", 30)
    differing: dict[str, Any] = {}
    served = await client.discover()
    for kind in (kind for kind in served if kind.observable and kind.name not in UNPRINTED):
        for _ in range(5):  # an age may have ticked, a status changed in between
            difference = await _compare(client, kind)
            if not difference:
                break
        if difference:
            differing[kind.name] = difference
    assert differing == {}


async def _controllers_settled(client: KubeClient) -> bool:
    replica_sets = next(kind for kind in await client.discover() if kind.name == "replicasets.apps")
    page = await client.list(replica_sets, namespace=NAMESPACE)
    return any(json.loads(raw)["status"].get("replicas") == 2 for raw in page.items)


async def _compare(client: KubeClient, kind: ResourceType) -> list[Any]:
    models = ReadModel()
    definitions = next(t for t in await client.discover() if t.plural == "customresourcedefinitions")
    for held in (definitions, kind):
        page = await client.list(held)
        models.open("lab").replace(held, page.items, page.rv)
    table = json.loads(await client.table(kind))
    ours = query(
        models, Query(clusters=["lab"], types=[kind.name], view="table", limit=10_000), _live, now=time.time()
    )
    shown = len(
        table["columnDefinitions"]
    )  # of an IPAddress the server gives a cell more than it has columns
    theirs = {_place(row["object"]["metadata"]): row["cells"][:shown] for row in table.get("rows") or []}
    mine = {tuple(row.key[3:5]): json.loads(row.object) for row in ours.rows}
    columns = [column["name"] for column in table["columnDefinitions"]]
    named = [column.name for column in ours.columns]
    if columns in DEFAULT_COLUMNS and named == ["Name", "Age"]:
        return [] if mine.keys() == theirs.keys() else [mine.keys() ^ theirs.keys()]
    if columns != named:
        return [columns, named]
    return [(name, cells, mine.get(name)) for name, cells in theirs.items() if cells != mine.get(name)]


def _place(meta: dict[str, Any]) -> tuple[str, str]:
    return meta.get("namespace", ""), meta["name"]


def _live(cluster: str, types: frozenset[str]) -> ClusterState:
    return ClusterState(name=cluster, status="live")
