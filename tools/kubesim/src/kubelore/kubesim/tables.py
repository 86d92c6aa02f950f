"""Server-side printing: the `Table` rows that kubectl shows, with the columns of the common types."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .resources import ResourceType
from .selection import lookup
from .status import Json

Cell = Callable[[Json], Any]


class Column(NamedTuple):
    name: str
    cell: Cell
    type: str = "string"
    priority: int = 0  # above 0: only with `-o wide`


def age(timestamp: str | None) -> str:
    """As `duration.HumanDuration` of apimachinery prints it: two units at most."""
    if not timestamp:
        return "<unknown>"
    then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def _at(path: str, default: Any = "<none>") -> Cell:
    def cell(obj: Json) -> Any:
        value = lookup(obj, path)
        return default if value is None else value

    return cell


def _age(path: str = "metadata.creationTimestamp") -> Cell:
    return lambda obj: age(lookup(obj, path))


def _count(path: str) -> Cell:
    return lambda obj: len(lookup(obj, path) or ())


def _ratio(ready: str, wanted: str) -> Cell:
    return lambda obj: f"{lookup(obj, ready) or 0}/{lookup(obj, wanted) or 0}"


def _pairs(path: str) -> Cell:
    return lambda obj: ",".join(f"{k}={v}" for k, v in (lookup(obj, path) or {}).items()) or "<none>"


def _containers(field: str) -> Cell:
    path = "spec.template.spec.containers"
    return lambda obj: ",".join(container.get(field, "") for container in lookup(obj, path) or ())


def _pod_ready(obj: Json) -> str:
    statuses = lookup(obj, "status.containerStatuses") or []
    wanted = len(lookup(obj, "spec.containers") or ())
    return f"{sum(bool(status.get('ready')) for status in statuses)}/{wanted}"


def _pod_status(obj: Json) -> str:
    if lookup(obj, "metadata.deletionTimestamp"):
        return "Terminating"
    for status in lookup(obj, "status.containerStatuses") or ():
        for state in ("waiting", "terminated"):
            reason = lookup(status, f"state.{state}.reason")
            if reason:
                return reason
    return lookup(obj, "status.reason") or lookup(obj, "status.phase") or "Unknown"


def _pod_restarts(obj: Json) -> str:
    statuses = lookup(obj, "status.containerStatuses") or ()
    return str(sum(status.get("restartCount", 0) for status in statuses))


def _node_status(obj: Json) -> str:
    conditions = lookup(obj, "status.conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    cordoned = ",SchedulingDisabled" if lookup(obj, "spec.unschedulable") else ""
    return ("Ready" if ready else "NotReady") + cordoned


def _node_roles(obj: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = lookup(obj, "metadata.labels") or {}
    return ",".join(label[len(prefix) :] for label in labels if label.startswith(prefix)) or "<none>"


def _service_ports(obj: Json) -> str:
    ports = lookup(obj, "spec.ports") or ()
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _service_address(obj: Json) -> str:
    addresses = lookup(obj, "status.loadBalancer.ingress") or ()
    return ",".join(entry.get("ip") or entry.get("hostname", "") for entry in addresses) or "<none>"


def _ingress_hosts(obj: Json) -> str:
    return ",".join(rule.get("host", "*") for rule in lookup(obj, "spec.rules") or ()) or "*"


def _quota_usage(obj: Json) -> str:
    hard, used = lookup(obj, "status.hard") or {}, lookup(obj, "status.used") or {}
    return ", ".join(f"{name}: {used.get(name, '0')}/{limit}" for name, limit in hard.items())


def _event_target(obj: Json) -> str:
    target = obj.get("involvedObject", {})
    return f"{target.get('kind', '').lower()}/{target.get('name', '')}"


_NAME = Column("Name", _at("metadata.name", ""))
_AGE = Column("Age", _age())
_WORKLOAD_WIDE = (
    Column("Containers", _containers("name"), priority=1),
    Column("Images", _containers("image"), priority=1),
    Column("Selector", _pairs("spec.selector.matchLabels"), priority=1),
)


def _number(name: str, path: str) -> Column:
    return Column(name, _at(path, 0), "integer")


_COLUMNS: dict[str, tuple[Column, ...]] = {
    "pods": (
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        _AGE,
        Column("IP", _at("status.podIP"), priority=1),
        Column("Node", _at("spec.nodeName"), priority=1),
        Column("Nominated Node", _at("status.nominatedNodeName"), priority=1),
        Column("Readiness Gates", lambda _: "<none>", priority=1),
    ),
    "deployments.apps": (
        _NAME,
        Column("Ready", _ratio("status.readyReplicas", "spec.replicas")),
        _number("Up-to-date", "status.updatedReplicas"),
        _number("Available", "status.availableReplicas"),
        _AGE,
        *_WORKLOAD_WIDE,
    ),
    "replicasets.apps": (
        *(_NAME, _number("Desired", "spec.replicas"), _number("Current", "status.replicas")),
        *(_number("Ready", "status.readyReplicas"), _AGE, *_WORKLOAD_WIDE),
    ),
    "statefulsets.apps": (
        *(_NAME, Column("Ready", _ratio("status.readyReplicas", "spec.replicas")), _AGE),
        *_WORKLOAD_WIDE[:2],
    ),
    "daemonsets.apps": (
        *(_NAME, _number("Desired", "status.desiredNumberScheduled")),
        *(_number("Current", "status.currentNumberScheduled"), _number("Ready", "status.numberReady"), _AGE),
        *_WORKLOAD_WIDE,
    ),
    "services": (
        *(_NAME, Column("Type", _at("spec.type", "ClusterIP")), Column("Cluster-IP", _at("spec.clusterIP"))),
        *(Column("External-IP", _service_address), Column("Port(s)", _service_ports), _AGE),
        Column("Selector", _pairs("spec.selector"), priority=1),
    ),
    "nodes": (
        *(_NAME, Column("Status", _node_status), Column("Roles", _node_roles), _AGE),
        Column("Version", _at("status.nodeInfo.kubeletVersion")),
    ),
    "namespaces": (_NAME, Column("Status", _at("status.phase")), _AGE),
    "events": (
        *(
            Column("Last Seen", _age("lastTimestamp")),
            Column("Type", _at("type")),
            Column("Reason", _at("reason")),
        ),
        *(Column("Object", _event_target), Column("Message", _at("message"))),
    ),
    "configmaps": (_NAME, Column("Data", _count("data"), "integer"), _AGE),
    "secrets": (
        _NAME,
        Column("Type", _at("type", "Opaque")),
        Column("Data", _count("data"), "integer"),
        _AGE,
    ),
    "serviceaccounts": (_NAME, Column("Secrets", _count("secrets"), "integer"), _AGE),
    "persistentvolumeclaims": (
        *(_NAME, Column("Status", _at("status.phase")), Column("Volume", _at("spec.volumeName", ""))),
        Column("Capacity", _at("status.capacity.storage", "")),
        *(Column("StorageClass", _at("spec.storageClassName", "")), _AGE),
    ),
    "resourcequotas": (_NAME, Column("Request", _quota_usage), _AGE),
    "jobs.batch": (
        *(_NAME, Column("Status", lambda obj: "Complete" if lookup(obj, "status.succeeded") else "Running")),
        *(Column("Completions", _ratio("status.succeeded", "spec.completions")), _AGE),
    ),
    "cronjobs.batch": (
        *(
            _NAME,
            Column("Schedule", _at("spec.schedule")),
            Column("Suspend", _at("spec.suspend", False), "boolean"),
        ),
        *(Column("Last Schedule", _age("status.lastScheduleTime")), _AGE),
    ),
    "ingresses.networking.k8s.io": (
        *(_NAME, Column("Class", _at("spec.ingressClassName")), Column("Hosts", _ingress_hosts)),
        *(Column("Address", _service_address), _AGE),
    ),
    "customresourcedefinitions.apiextensions.k8s.io": (
        _NAME,
        Column("Created At", _at("metadata.creationTimestamp"), "date"),
    ),
}
_DEFAULT = (_NAME, Column("Created At", _at("metadata.creationTimestamp"), "date"))
_FILTER = re.compile(
    r'^(?P<list>[\w.]+)\[\?\(@\.(?P<key>\w+)==[\'"](?P<value>[^\'"]*)[\'"]\)\]\.(?P<rest>[\w.]+)$'
)


def _custom_cell(path: str, type_: str) -> Cell:
    """The two JSONPath forms that printer columns use in practice: a path, and a filter by one key."""
    path = path.lstrip(".")
    match = _FILTER.match(path)

    def cell(obj: Json) -> Any:
        if match is None:
            value = lookup(obj, path)
        else:
            items = lookup(obj, match["list"]) or ()
            item = next((item for item in items if item.get(match["key"]) == match["value"]), None)
            value = lookup(item, match["rest"])
        return age(value) if type_ == "date" and value else value

    return cell


def columns(resource_type: ResourceType) -> tuple[Column, ...]:
    if resource_type.custom is None:
        return _COLUMNS.get(resource_type.key, _DEFAULT)
    declared = resource_type.custom.get("additionalPrinterColumns")
    if not declared:
        return (_NAME, _AGE)
    return (
        _NAME,
        *(
            Column(c["name"], _custom_cell(c["jsonPath"], c["type"]), c["type"], c.get("priority", 0))
            for c in declared
        ),
    )


def column_definitions(resource_type: ResourceType) -> list[Json]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": "name" if column.name == "Name" else "",
            "description": "",
            "priority": column.priority,
        }
        for column in columns(resource_type)
    ]


def cells(resource_type: ResourceType, obj: Json) -> list[Any]:
    return [column.cell(obj) for column in columns(resource_type)]
