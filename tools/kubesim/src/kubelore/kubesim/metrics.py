"""metrics.k8s.io: the usage of pods and nodes, which moves with the clock and is the same for all who ask."""

from __future__ import annotations

import math
import time
import zlib

from kubelore.common.kube.quantity import Quantity

from .call import Call
from .cluster import timestamp
from .selection import Selection
from .status import Json, method_not_allowed, not_found
from .store import Entry

_WINDOW_S = 15


def answer(call: Call) -> Json:
    """A list, or the one that the path names."""
    if call.request.method != "GET":
        raise method_not_allowed()
    measured = call.cluster.types.named(call.type.plural)
    selection = Selection.parse(measured, call.namespace, call.name, call.request.query)
    collection = call.cluster.store.of(measured)
    usage = _pod_usage if call.type.plural == "pods" else _node_usage
    items = [
        {"metadata": _metadata(entry), "timestamp": timestamp(), "window": f"{_WINDOW_S}s", **measurement}
        for entry in list(collection.within(collection.entries, call.namespace))
        if selection.matches(entry) and (measurement := usage(entry))
    ]
    if not call.name:
        kind = call.type.list_kind
        return {"kind": kind, "apiVersion": call.type.api_version, "metadata": {}, "items": items}
    if not items:
        raise not_found(call.type.group, call.type.plural, call.name)
    return {"kind": call.type.kind, "apiVersion": call.type.api_version, **items[0]}


def _metadata(entry: Entry) -> Json:
    named = {"name": entry.name, "creationTimestamp": timestamp(), "labels": entry.labels}
    return {**named, "namespace": entry.namespace} if entry.namespace else named


def _share(key: str) -> float:
    """Between 0.1 and 0.7 of what was requested: a slow wave with a phase of its own."""
    window = time.time() // _WINDOW_S * _WINDOW_S
    phase = zlib.crc32(key.encode()) % 628 / 100
    return 0.4 + 0.25 * math.sin(window / 120 + phase) + 0.05 * math.sin(window / 17 + 3 * phase)


def _pod_usage(entry: Entry) -> Json:
    pod = entry.decode()
    if pod.get("status", {}).get("phase") != "Running":
        return {}
    containers: list[Json] = []
    for container in pod["spec"]["containers"]:
        requests = (container.get("resources") or {}).get("requests") or {}
        cpu, memory = (
            Quantity.parse(requests.get(*pair)).value for pair in (("cpu", "100m"), ("memory", "64Mi"))
        )
        share = _share(f"{entry.uid}/{container['name']}")
        usage = {
            "cpu": f"{int(float(cpu) * share * 1e9)}n",
            "memory": f"{int(float(memory) * (0.5 + share / 2) / 1024)}Ki",
        }
        containers.append({"name": container["name"], "usage": usage})
    return {"containers": containers}


def _node_usage(entry: Entry) -> Json:
    share = _share(entry.uid)
    return {"usage": {"cpu": f"{int(8e9 * share)}n", "memory": f"{int(32 * 1024 * 1024 * share)}Ki"}}
