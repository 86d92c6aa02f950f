"""Nodes, namespaces, configuration, access, quotas, events and the machinery of a cluster."""

from __future__ import annotations

from kubelore.common.durations import human_duration
from kubelore.resource_ops.printers.formats import (
    Cells,
    Object,
    Printer,
    age,
    columns,
    items,
    name_of,
    or_none,
    part,
    since,
)
from kubelore.resource_ops.printers.scaling import autoscaler_cells

_ROLE_PREFIX = "node-role.kubernetes.io/"


def _node_roles(of: Object) -> str:
    labels = part(of, "metadata", "labels")
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    roles.add(labels.get("kubernetes.io/role", ""))
    return ",".join(sorted(roles - {""})) or "<none>"


def _address(of: Object, kind: str) -> str:
    addresses = items(part(of, "status"), "addresses")
    return next((one.get("address", "") for one in addresses if one.get("type") == kind), "<none>")


def _node(of: Object, now: float) -> Cells:
    status, info = part(of, "status"), part(of, "status", "nodeInfo")
    ready = [one.get("status") for one in items(status, "conditions") if one.get("type") == "Ready"]
    text = "Unknown" if not ready else "Ready" if ready[-1] == "True" else "NotReady"
    if part(of, "spec").get("unschedulable"):
        text += ",SchedulingDisabled"
    return [
        name_of(of),
        text,
        _node_roles(of),
        age(of, now),
        info.get("kubeletVersion", ""),
        _address(of, "InternalIP"),
        _address(of, "ExternalIP"),
        *(info.get(key) or "<unknown>" for key in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]


def _namespace(of: Object, now: float) -> Cells:
    return [name_of(of), part(of, "status").get("phase", ""), age(of, now)]


def _config_map(of: Object, now: float) -> Cells:
    return [name_of(of), len(items(of, "data")) + len(items(of, "binaryData")), age(of, now)]


def _secret(of: Object, now: float) -> Cells:
    data = of.get("data")
    return [name_of(of), of.get("type", ""), None if data is None else len(data), age(of, now)]


def _service_account(of: Object, now: float) -> Cells:
    return [name_of(of), len(items(of, "secrets")), age(of, now)]


def _binding(of: Object, now: float) -> Cells:
    role, subjects = part(of, "roleRef"), items(of, "subjects")
    users = [one.get("name", "") for one in subjects if one.get("kind") == "User"]
    groups = [one.get("name", "") for one in subjects if one.get("kind") == "Group"]
    accounts = [
        f"{one.get('namespace', '')}/{one.get('name', '')}"
        for one in subjects
        if one.get("kind") == "ServiceAccount"
    ]
    reference = f"{role.get('kind', '')}/{role.get('name', '')}"
    return [name_of(of), reference, age(of, now), ", ".join(users), ", ".join(groups), ", ".join(accounts)]


def _created(of: Object, now: float) -> Cells:
    del now
    return [name_of(of), part(of, "metadata").get("creationTimestamp")]


def _event(of: Object, now: float) -> Cells:
    about = part(of, "involvedObject")
    series = of.get("series")
    first = since(of.get("firstTimestamp") or of.get("eventTime"), now)
    last = since(of["lastTimestamp"], now) if of.get("lastTimestamp") else first
    if series:
        last = since(series.get("lastObservedTime"), now)
    kind, name = about.get("kind", "").lower(), about.get("name", "")
    source = part(of, "source")
    component = source.get("component") or of.get("reportingComponent") or ""
    instance = source.get("host") or of.get("reportingInstance") or ""
    return [
        last,
        of.get("type", ""),
        of.get("reason", ""),
        f"{kind}/{name}" if name else kind,
        about.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        of.get("message", "").strip(),
        first,
        series.get("count", 0) if series else of.get("count") or 1,
        name_of(of),
    ]


def _quota(of: Object, now: float) -> Cells:
    status = part(of, "status")
    used = part(status, "used")
    texts = [
        (name, f"{name}: {used.get(name, '0')}/{hard}") for name, hard in sorted(part(status, "hard").items())
    ]
    limits = ", ".join(text for name, text in texts if name.startswith("limits."))
    requests = ", ".join(text for name, text in texts if not name.startswith("limits."))
    return [name_of(of), requests, limits, age(of, now)]


def _disruption_budget(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    shown = ("N/A" if spec.get(key) is None else str(spec[key]) for key in ("minAvailable", "maxUnavailable"))
    return [name_of(of), *shown, part(of, "status").get("disruptionsAllowed", 0), age(of, now)]


def _lease(of: Object, now: float) -> Cells:
    return [name_of(of), part(of, "spec").get("holderIdentity") or "", age(of, now)]


def _priority_class(of: Object, now: float) -> Cells:
    policy = of.get("preemptionPolicy") or ""
    return [name_of(of), of.get("value", 0), of.get("globalDefault", False), age(of, now), policy]


def _runtime_class(of: Object, now: float) -> Cells:
    return [name_of(of), of.get("handler", ""), age(of, now)]


def _flow_schema(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    conditions = items(part(of, "status"), "conditions")
    dangling = [one.get("status", "?") for one in conditions if one.get("type") == "Dangling"]
    return [
        name_of(of),
        part(spec, "priorityLevelConfiguration").get("name", ""),
        spec.get("matchingPrecedence", 0),
        or_none(part(spec, "distinguisherMethod").get("type")),
        age(of, now),
        dangling[-1] if dangling else "?",
    ]


def _priority_level(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    limited = part(spec, "limited")
    queuing = part(limited, "limitResponse", "queuing")
    shown = (queuing.get(key, "<none>") for key in ("queues", "handSize", "queueLengthLimit"))
    shares = limited.get("nominalConcurrencyShares", "<none>")
    return [name_of(of), spec.get("type", ""), shares, *shown, age(of, now)]


def _admission_policy(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    kind = spec.get("paramKind")
    shown = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else "<unset>"
    return [name_of(of), len(items(spec, "validations")), shown, age(of, now)]


def _webhooks(of: Object, now: float) -> Cells:
    return [name_of(of), len(items(of, "webhooks")), age(of, now)]


def _signing_request(of: Object, now: float) -> Cells:
    spec, status = part(of, "spec"), part(of, "status")
    kinds = {condition.get("type") for condition in items(status, "conditions")}
    text = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    text += ",Failed" if "Failed" in kinds else ""
    text += ",Issued" if status.get("certificate") else ""
    expiry = spec.get("expirationSeconds")
    wanted = "<none>" if expiry is None else human_duration(expiry)
    user = spec.get("username", "")
    return [name_of(of), age(of, now), or_none(spec.get("signerName")), user, wanted, text]


def _api_service(of: Object, now: float) -> Cells:
    service = part(of, "spec").get("service")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    available = next((c for c in items(part(of, "status"), "conditions") if c.get("type") == "Available"), {})
    text = available.get("status", "Unknown")
    if text != "True" and available.get("reason"):
        text = f"{text} ({available['reason']})"
    return [name_of(of), where, text, age(of, now)]


_BINDING = columns("Name", "Role", "Age", "Users+", "Groups+", "ServiceAccounts+")
_CREATED = columns("Name", "Created At:date")

CLUSTER: dict[str, Printer] = {
    "nodes": Printer(
        columns(
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "Internal-IP+",
            "External-IP+",
            "OS-Image+",
            "Kernel-Version+",
            "Container-Runtime+",
        ),
        _node,
    ),
    "namespaces": Printer(columns("Name", "Status", "Age"), _namespace),
    "configmaps": Printer(columns("Name", "Data", "Age"), _config_map),
    "secrets": Printer(columns("Name", "Type", "Data", "Age"), _secret),
    "serviceaccounts": Printer(columns("Name", "Secrets", "Age"), _service_account),
    "events": Printer(
        columns(
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "Subobject+",
            "Source+",
            "Message",
            "First Seen+",
            "Count+",
            "Name+",
        ),
        _event,
    ),
    "resourcequotas": Printer(columns("Name", "Request", "Limit", "Age"), _quota),
    "poddisruptionbudgets.policy": Printer(
        columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions:integer", "Age"),
        _disruption_budget,
    ),
    "horizontalpodautoscalers.autoscaling": Printer(
        columns("Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age"), autoscaler_cells
    ),
    "limitranges": Printer(_CREATED, _created),
    "csistoragecapacities.storage.k8s.io": Printer(_CREATED, _created),
    "roles.rbac.authorization.k8s.io": Printer(_CREATED, _created),
    "clusterroles.rbac.authorization.k8s.io": Printer(_CREATED, _created),
    "rolebindings.rbac.authorization.k8s.io": Printer(_BINDING, _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": Printer(_BINDING, _binding),
    "leases.coordination.k8s.io": Printer(columns("Name", "Holder", "Age"), _lease),
    "priorityclasses.scheduling.k8s.io": Printer(
        columns("Name", "Value:integer", "Global-Default:boolean", "Age", "PreemptionPolicy"), _priority_class
    ),
    "runtimeclasses.node.k8s.io": Printer(columns("Name", "Handler", "Age"), _runtime_class),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": Printer(
        columns("Name", "Webhooks:integer", "Age"), _webhooks
    ),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": Printer(
        columns("Name", "Webhooks:integer", "Age"), _webhooks
    ),
    "validatingadmissionpolicies.admissionregistration.k8s.io": Printer(
        columns("Name", "Validations:integer", "ParamKind", "Age"), _admission_policy
    ),
    "flowschemas.flowcontrol.apiserver.k8s.io": Printer(
        columns("Name", "PriorityLevel", "MatchingPrecedence", "DistinguisherMethod", "Age", "MissingPL"),
        _flow_schema,
    ),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": Printer(
        columns("Name", "Type", "NominalConcurrencyShares", "Queues", "HandSize", "QueueLengthLimit", "Age"),
        _priority_level,
    ),
    "certificatesigningrequests.certificates.k8s.io": Printer(
        columns("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"), _signing_request
    ),
    "customresourcedefinitions.apiextensions.k8s.io": Printer(_CREATED, _created),
    "apiservices.apiregistration.k8s.io": Printer(
        columns("Name", "Service", "Available", "Age"), _api_service
    ),
}
