"""The first content of a simulated cluster: the namespaces and nodes of every cluster, and many like pods."""

from __future__ import annotations

import random

import msgspec

from . import podlife, rules
from .cluster import BEAT, BORN, NAME_ALPHABET, ClusterState
from .status import Json
from .store import Template, object_key

_APPS = (
    "api",
    "cart",
    "checkout",
    "search",
    "mailer",
    "billing",
    "frontend",
    "worker",
    "sessions",
    "reports",
)


def furnish(cluster: ClusterState, nodes: int = 3) -> None:
    """What every cluster has: system namespaces and nodes."""
    for namespace in ("default", "kube-system", "kube-public", "kube-node-lease"):
        add_namespace(cluster, namespace)
    for number in range(nodes):
        add_node(cluster, f"node-{number + 1}", f"kubesim://{cluster.name}/node-{number + 1}")


def add_namespace(cluster: ClusterState, name: str, labels: dict[str, str] | None = None) -> None:
    metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name, **(labels or {})}}
    spec, status = {"finalizers": ["kubernetes"]}, {"phase": "Active"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": spec, "status": status}
    cluster.seed_object("namespaces", body)
    rules.furnish_namespace(cluster, name, born=BORN)


def add_node(
    cluster: ClusterState, name: str, provider_id: str, labels: dict[str, str] | None = None
) -> None:
    number = len(cluster.store.of(cluster.types.named("nodes")).entries) + 1
    resources = {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    conditions = [
        {"type": kind, "status": status, "reason": reason, "lastTransitionTime": BORN}
        for kind, status, reason in (
            ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID"),
            ("Ready", "True", "KubeletReady"),
        )
    ]
    info = {"kubeletVersion": "v1.34.4", "osImage": "Debian GNU/Linux 12", "architecture": "amd64"}
    runtime = {
        "containerRuntimeVersion": "containerd://1.7.24",
        "kernelVersion": "6.1.0",
        "operatingSystem": "linux",
    }
    common = {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
    status = {
        "capacity": resources,
        "allocatable": resources,
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": f"10.0.0.{number}"},
            {"type": "Hostname", "address": name},
        ],
        "nodeInfo": {**info, **runtime},
    }
    metadata = {"name": name, "labels": {**common, **(labels or {})}}
    spec = {"podCIDR": f"10.244.{number}.0/24", "providerID": provider_id}
    cluster.seed_object(
        "nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}
    )


def _pod_with_holes(app: str, labels: dict[str, str], node: str) -> Json:
    """A pod as a kubelet would report it: 4.4 KB with what makes real pods big, a fifth of it managedFields."""
    env: list[Json] = [{"name": f"{app.upper()}_SETTING_{n:02}", "value": f"value-{n:04}"} for n in range(12)]
    token = {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    probe = {
        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
        "periodSeconds": 10,
        "timeoutSeconds": 1,
    }
    resources = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
    container: Json = {
        "name": app,
        "image": f"registry.example/{app}:1.4.2",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": env,
        "resources": resources,
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}, {**token, "readOnly": True}],
        "livenessProbe": {**probe, "failureThreshold": 3, "successThreshold": 1},
        "readinessProbe": {**probe, "failureThreshold": 3, "successThreshold": 1},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    sources = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]
    spec: Json = {
        "containers": [container],
        "volumes": [
            {"name": "cache", "emptyDir": {}},
            {"name": "kube-api-access", "projected": {"sources": sources, "defaultMode": 420}},
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "nodeName": node,
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{taint}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
            for taint in ("not-ready", "unreachable")
        ],
        "enableServiceLinks": True,
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    metadata: Json = {"name": "@name@", "namespace": "@namespace@", "uid": "@uid@", "resourceVersion": "@rv@"}
    metadata |= {"labels": labels, "annotations": {BEAT: "@beat@"}, "creationTimestamp": BORN}
    metadata["managedFields"] = [_made(app, labels), _reported()]
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    ip = "10.244.0.@ordinal@"
    return {**pod, "status": {**podlife.running(pod, BORN), "podIP": ip, "podIPs": [{"ip": ip}]}}


def _made(app: str, labels: dict[str, str]) -> Json:
    """What a controller owns of a pod that it made, as the API server notes it."""
    container: Json = {f"f:{name}": {} for name in ("image", "imagePullPolicy", "name")}
    container |= {".": {}, "f:ports": {".": {}}, "f:resources": {".": {}, "f:limits": {}, "f:requests": {}}}
    spec: Json = {
        f"f:{name}": {} for name in ("dnsPolicy", "enableServiceLinks", "restartPolicy", "schedulerName")
    }
    spec["f:containers"] = {f'k:{{"name":"{app}"}}': container}
    fields: Json = {"f:labels": {".": {}, **{f"f:{key}": {} for key in labels}}}
    return _owned("kube-controller-manager", {"f:metadata": fields, "f:spec": spec})


def _reported() -> Json:
    """What a kubelet owns of a pod's status."""
    conditions: Json = {".": {}}
    for kind in ("ContainersReady", "Ready"):
        conditions[f'k:{{"type":"{kind}"}}'] = {".": {}, "f:status": {}, "f:type": {}}
    status: Json = {
        f"f:{name}": {} for name in ("containerStatuses", "hostIP", "phase", "podIP", "startTime")
    }
    status["f:conditions"] = conditions
    return {**_owned("kubelet", {"f:status": status}), "subresource": "status"}


def _owned(manager: str, fields: Json) -> Json:
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": BORN,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }


def pod_template(app: str, labels: dict[str, str], node: str) -> Template:
    """What the pods of one app share, with holes for what differs between them."""
    text = msgspec.json.encode(_pod_with_holes(app, labels, node)).replace(b"%", b"%%")
    for hole in (b"name", b"namespace", b"uid", b"rv", b"beat", b"ordinal"):
        text = text.replace(b"@" + hole + b"@", b"%(" + hole + b")b")
    return Template(text, labels)


def populate(cluster: ClusterState, pods: int, namespaces: int = 10) -> None:
    """Adds `pods` running pods in namespaces `team-01`..., deterministic by the cluster's name and seed."""
    if not pods:
        return
    rng = random.Random(f"{cluster.seed}/{cluster.name}")  # noqa: S311 - a reproducible world
    resource_type = cluster.types.named("pods")
    templates = [
        pod_template(app, {"app": app, "tier": "backend" if number % 3 else "web"}, f"node-{number % 3 + 1}")
        for number, app in enumerate(_APPS)
    ]
    for number in range(1, namespaces + 1):
        add_namespace(cluster, f"team-{number:02}", {"team": f"team-{number:02}"})
    for number in range(pods):
        template = templates[number % len(templates)]
        revision, suffix = (_suffix(rng, length) for length in (9, 5))
        name = f"{template.labels['app']}-{revision}-{suffix}"
        namespace = f"team-{number % namespaces + 1:02}"
        uid = cluster.uid("pods", namespace, name)
        cluster.store.put_templated(resource_type, object_key(namespace, name), uid, template)


def _suffix(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(NAME_ALPHABET, k=length))
