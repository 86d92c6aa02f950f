"""The scale subresource: `autoscaling/v1` Scale over the replicas of a workload or custom object."""

from __future__ import annotations

from . import patches, writing
from .call import Call
from .selection import lookup
from .status import Json, bad_request, conflict, invalid, method_not_allowed, unsupported_media_type
from .store import Entry


async def answer(call: Call) -> Json:
    """Get, update or patch; the Scale as it is then."""
    if call.request.method == "GET":
        return _scale(call, call.found())
    if call.request.method not in ("PUT", "PATCH"):
        raise method_not_allowed()
    body = await call.json()
    entry = call.found()
    present = _scale(call, entry)
    wanted = body if call.request.method == "PUT" else _patched(call, present, body)
    if not isinstance(wanted, dict):
        raise bad_request("the body must be a Scale")
    version = (wanted.get("metadata") or {}).get("resourceVersion")
    if version not in (None, "", str(entry.rv)):
        raise conflict(call.type.group, call.type.plural, entry.name, "the object has been modified")
    replicas = lookup(wanted, "spec.replicas") or 0
    if not isinstance(replicas, int) or replicas < 0:
        why = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise invalid("autoscaling", "Scale", entry.name, "spec.replicas", why)
    obj = entry.decode()
    obj["apiVersion"] = call.type.api_version
    node, last = obj, _paths(call)[0].split(".")
    for name in last[:-1]:
        node = node.setdefault(name, {})
    node[last[-1]] = replicas
    return _scale(call, writing.update(call, entry, obj))


def _patched(call: Call, present: Json, body: object) -> object:
    match call.content_type:
        case "application/merge-patch+json" | "application/strategic-merge-patch+json":
            return patches.merge(present, body)
        case "application/json-patch+json":
            return patches.json_patch(present, body)
        case other:
            raise unsupported_media_type(other)


def _paths(call: Call) -> tuple[str, str, str]:
    """Where spec.replicas, status.replicas and the selector are."""
    if call.type.custom is None:
        return "spec.replicas", "status.replicas", "spec.selector.matchLabels"
    declared = call.type.custom["subresources"]["scale"]
    names = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
    spec, status, selector = (declared.get(name, ".").lstrip(".") for name in names)
    return spec, status, selector


def _scale(call: Call, entry: Entry) -> Json:
    obj = entry.decode()
    spec, status, selector = (lookup(obj, path) for path in _paths(call))
    if isinstance(selector, dict):
        selector = ",".join(f"{key}={value}" for key, value in selector.items())
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    meta = {field: obj["metadata"][field] for field in kept if field in obj["metadata"]}
    state = {"replicas": status or 0, "selector": selector or ""}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": spec or 0},
        "status": state,
    }
