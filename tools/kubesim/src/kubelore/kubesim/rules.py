"""What the API server adds to, or refuses in, new objects of single types: one small function each."""

from __future__ import annotations

import base64
import ipaddress
import re
import uuid
import zlib
from collections.abc import Callable

from .cluster import ClusterState, timestamp
from .resources import ResourceType
from .status import Json, bad_request, invalid

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def check_name(resource_type: ResourceType, name: str) -> None:
    """The name rule of the type, as k8s.io/apimachinery/pkg/api/validation has it; 422 otherwise."""
    if resource_type.group == "rbac.authorization.k8s.io":
        valid = name not in (".", "..") and "/" not in name and "%" not in name
        rule = "Invalid value: may not be '.', '..' or contain '/' or '%'"
    elif resource_type.plural in ("namespaces", "services"):
        valid = _LABEL.fullmatch(name) is not None
        rule = f'Invalid value: "{name}": a lowercase RFC 1123 label must consist of lower case alphanumerics'
    else:
        valid = len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None
        rule = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of alphanumerics'
    if not valid:
        raise invalid(resource_type.group, resource_type.kind, name, "metadata.name", rule)


def _namespace(_: ClusterState, obj: Json) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}


def _pod_spec(spec: Json) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for container in spec.get("containers", ()):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("resources", {})
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _pod(_: ClusterState, obj: Json) -> None:
    if not obj.get("spec", {}).get("containers"):
        name = obj["metadata"]["name"]
        raise invalid("", "Pod", name, "spec.containers", "Required value")
    _pod_spec(obj["spec"])
    obj["spec"].setdefault("serviceAccountName", "default")
    obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _workload(_: ClusterState, obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    if "selector" not in spec or "template" not in spec:
        missing = "spec.selector" if "selector" not in spec else "spec.template"
        raise invalid("apps", obj["kind"], obj["metadata"]["name"], missing, "Required value")
    if obj["kind"] != "DaemonSet":
        spec.setdefault("replicas", 1)
    if obj["kind"] == "Deployment":
        spec.setdefault("revisionHistoryLimit", 10)
        surge = {"maxSurge": "25%", "maxUnavailable": "25%"}
        spec.setdefault("strategy", {"type": "RollingUpdate", "rollingUpdate": surge})
    _pod_spec(spec["template"].setdefault("spec", {}))
    obj["status"] = {}


def _service(_: ClusterState, obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName" and not spec.get("clusterIP"):
        key = f"{obj['metadata'].get('namespace')}/{obj['metadata']['name']}".encode()
        spec["clusterIP"] = str(ipaddress.IPv4Address("10.96.0.0") + 10 + zlib.crc32(key) % 1_000_000)
    if spec.get("clusterIP"):
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    obj["status"] = {"loadBalancer": {}}


def _secret(_: ClusterState, obj: Json) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None) or {}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    if encoded:
        obj["data"] = {**obj.get("data", {}), **encoded}


def _definition(_: ClusterState, obj: Json) -> None:
    spec = obj.get("spec", {})
    if not spec.get("group") or not spec.get("names", {}).get("plural") or not spec.get("versions"):
        raise bad_request("a CustomResourceDefinition needs spec.group, spec.names.plural and spec.versions")
    names = spec["names"]
    wanted = f"{names['plural']}.{spec['group']}"
    if obj["metadata"]["name"] != wanted:
        why = f'Invalid value: "{obj["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        raise invalid("apiextensions.k8s.io", obj["kind"], obj["metadata"]["name"], "metadata.name", why)
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    now = timestamp()
    conditions = [
        {"type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        for type_, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    obj["status"] = {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}


_DEFAULTS: dict[str, Callable[[ClusterState, Json], None]] = {
    "namespaces": _namespace,
    "pods": _pod,
    "services": _service,
    "secrets": _secret,
    "deployments.apps": _workload,
    "replicasets.apps": _workload,
    "statefulsets.apps": _workload,
    "daemonsets.apps": _workload,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
}


def complete(cluster: ClusterState, resource_type: ResourceType, obj: Json) -> None:
    """Fills in what the API server defaults in a new object; ApiError for one that it refuses."""
    default = _DEFAULTS.get(resource_type.key)
    if default is not None:
        default(cluster, obj)
    elif "status" in resource_type.subresources:
        obj.pop("status", None)


def furnish_namespace(cluster: ClusterState, name: str, born: str = "") -> None:
    """What the controllers of a real cluster put into every namespace; `born` for the first ones."""
    certificates = {"ca.crt": "the CA of a simulated cluster is in its kubeconfig\n"}
    for key, kind, object_name, body in (
        ("serviceaccounts", "ServiceAccount", "default", {}),
        ("configmaps", "ConfigMap", "kube-root-ca.crt", {"data": certificates}),
    ):
        uid = cluster.uid(key, name, object_name) if born else str(uuid.uuid4())
        metadata = {
            "name": object_name,
            "namespace": name,
            "uid": uid,
            "creationTimestamp": born or timestamp(),
        }
        cluster.seed_object(key, {"apiVersion": "v1", "kind": kind, "metadata": metadata, **body})
