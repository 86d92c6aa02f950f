"""ResourceQuota: what a namespace uses of its limits, and whether one more pod fits."""

from __future__ import annotations

from kubelore.common.kube.quantity import Quantity

from .cluster import ClusterState
from .status import Json


def requested(pod: Json) -> dict[str, Quantity]:
    """What a pod counts for, in the names that quotas use."""
    total = {"pods": Quantity.parse("1")}
    for container in pod.get("spec", {}).get("containers", ()):
        for kind, amounts in (container.get("resources") or {}).items():
            for name, amount in (amounts or {}).items():
                key = f"{kind}.{name}"
                total[key] = total.get(key, Quantity.parse("0")) + Quantity.parse(str(amount))
    return total


def used(cluster: ClusterState, namespace: str) -> dict[str, Quantity]:
    collection = cluster.store.of(cluster.types.named("pods"))
    total: dict[str, Quantity] = {}
    for entry in collection.within(collection.entries, namespace):
        pod = entry.decode()
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            for name, amount in requested(pod).items():
                total[name] = total.get(name, Quantity.parse("0")) + amount
    return total


def refusal(cluster: ClusterState, namespace: str, pod: Json) -> str:
    """Why a pod doesn't fit, in the real server's words; empty when it does."""
    quotas = cluster.store.of(cluster.types.named("resourcequotas"))
    for entry in list(quotas.within(quotas.entries, namespace)):
        hard = entry.decode().get("spec", {}).get("hard", {})
        have, more = used(cluster, namespace), requested(pod)
        over = [
            name
            for name, limit in hard.items()
            if name in more and Quantity.parse(str(limit)) < have.get(name, Quantity.parse("0")) + more[name]
        ]
        if over:
            parts = [
                ",".join(f"{name}={amounts.get(name, Quantity.parse('0'))}" for name in over)
                for amounts in (more, have)
            ]
            limits = ",".join(f"{name}={hard[name]}" for name in over)
            return f"exceeded quota: {entry.name}, requested: {parts[0]}, used: {parts[1]}, limited: {limits}"
    return ""


def publish_usage(cluster: ClusterState) -> None:
    """Brings the status of every quota up to date."""
    resource_type = cluster.types.named("resourcequotas")
    for entry in list(cluster.store.of(resource_type).entries.values()):
        obj = entry.decode()
        hard, have = obj.get("spec", {}).get("hard", {}), used(cluster, entry.namespace)
        status = {"hard": hard, "used": {name: str(have.get(name, Quantity.parse("0"))) for name in hard}}
        if obj.get("status") != status:
            obj["status"] = status
            cluster.store.put(resource_type, obj)
