"""What this replica answers about whole clusters: look again now, and figures."""

from __future__ import annotations

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.resources import (
    ClusterMetrics,
    ClusterMetricsOf,
    ObserverReport,
    SyncCluster,
)
from kubelore.common.errors import Invalid, Unavailable
from kubelore.resource_ops.capacity import Nodes, Pods, count_nodes, count_pods
from kubelore.resource_ops.fleet import Fleet
from kubelore.resource_ops.observer import ClusterObserver
from kubelore.resource_ops.usage import read_usage

RESYNC_S = 10.0
_NODES = ("nodes", "capacity", "allocatable")
_PODS = ("pods", "requests", "limits")


class WholeClusters:
    """For callers who may read all of a cluster: its figures tell of every namespace."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def sync(self, request: SyncCluster) -> ObserverReport:
        """Look again now, and say how every type stands. Raises NotFound, Forbidden, Unavailable."""
        observer = self._observer(request.cluster, "synchronise")
        await observer.resync(RESYNC_S)
        return observer.report(with_types=True)

    async def metrics(self, request: ClusterMetricsOf) -> ClusterMetrics:
        """Capacity, requests, limits and usage. Raises NotFound, Forbidden, Unavailable."""
        observer = self._observer(request.cluster, "read the metrics of")
        missing: dict[str, str] = {}
        nodes = await _nodes(observer, missing)
        pods = await _pods(observer, missing)
        usage, why = await read_usage(observer.client)
        if why is not None:
            missing["usage"] = why
        state = observer.state({"nodes", "pods"})
        return ClusterMetrics(
            cluster=observer.cluster,
            status=state.status,
            as_of=state.as_of,
            namespaces=observer.namespaces,
            nodes=nodes.count if nodes else None,
            pods=pods.count if pods else None,
            capacity=nodes.capacity if nodes else None,
            allocatable=nodes.allocatable if nodes else None,
            requests=pods.requests if pods else None,
            limits=pods.limits if pods else None,
            usage=usage,
            missing=missing,
        )

    def _observer(self, cluster: str, what: str) -> ClusterObserver:
        current_caller().check_whole_cluster(check_cluster_name(cluster), what)
        observer = self._fleet.observer(cluster)
        if observer is None:
            raise Unavailable(
                f"{cluster}: its observer has moved to another replica", remedy="Ask again.", retry_after_s=1
            )
        return observer


async def _nodes(observer: ClusterObserver, missing: dict[str, str]) -> Nodes | None:
    try:
        if (why := observer.unread("nodes")) is None:
            return await count_nodes(observer.model)
    except Invalid as error:
        why = error.detail
    missing |= dict.fromkeys(_NODES, why)
    return None


async def _pods(observer: ClusterObserver, missing: dict[str, str]) -> Pods | None:
    try:
        if (why := observer.unread("pods")) is None:
            return await count_pods(observer.model)
    except Invalid as error:
        why = error.detail
    missing |= dict.fromkeys(_PODS, why)
    return None
