"""`/api/k8s/clusters`: the registry's contract as HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Response

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import clusters, resources
from kubelore.common.contracts.clusters import (
    AddCluster,
    ClusterConnection,
    ClusterRef,
    Empty,
    InspectKubeconfig,
    ListClusters,
    Provider,
    RotateKubeconfig,
    Sealed,
    Status,
    UpdateCluster,
)
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.resources import ClusterMetricsOf, SyncCluster
from kubelore.common.crypto import Recipient
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.schemas import (
    AddClusterBody,
    Cluster,
    ClusterList,
    InspectBody,
    InspectionReport,
    MetricsReport,
    RotateBody,
    SyncReport,
    TestReport,
    UpdateClusterBody,
)

ClusterName = Annotated[str, Path(description="The cluster's name.", examples=["prod-eu"])]


def cluster_routes(bus: Bus, roster: Roster, continuation: Continuation) -> APIRouter:
    """The router; kubeconfigs are sealed to the registry's key before they leave this process."""
    router = APIRouter(prefix="/api/k8s/clusters", tags=["clusters"])
    _onboarding(router, bus, roster)
    _reading(router, bus, continuation)
    _changing(router, bus, roster)
    _observed(router, bus, roster)
    return router


async def _sealed(bus: Bus, kubeconfig: str, context: str | None, purpose: str) -> Sealed:
    key = await bus.request(clusters.RECIPIENT, Empty())
    box = Recipient(key.key).seal(kubeconfig.encode(), context=f"kubeconfig:{purpose}")
    return Sealed(kubeconfig=box, context=context)


def _onboarding(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "/add",
        status_code=201,
        response_model=Cluster,
        dependencies=[audited("clusters.add", body="name")],
        summary="Onboard a cluster",
        responses=documented(403, 409, 422, 502),
    )
    async def add(body: AddClusterBody) -> Response:
        name = check_cluster_name(body.name)
        added = await bus.request(
            clusters.ADD,
            AddCluster(
                name=name,
                sealed=await _sealed(bus, body.kubeconfig, body.context, name),
                display_name=body.display_name,
                provider=body.provider,
                region=body.region or "",
                group=body.group or "",
                tags=body.tags,
                description=body.description or "",
                namespaces=body.namespaces,
                renew_token=body.renew_token,
                allow_duplicate=body.allow_duplicate,
                new_history=body.new_history,
            ),
        )
        await roster.hurry()
        return json_answer(_public(added), 201)

    @router.post(
        "/inspect",
        response_model=InspectionReport,
        dependencies=[audited("clusters.inspect")],
        summary="Look into a kubeconfig without storing it",
        responses=documented(422),
    )
    async def inspect(body: InspectBody) -> Response:
        request = InspectKubeconfig(sealed=await _sealed(bus, body.kubeconfig, None, "inspect"))
        return json_answer(await bus.request(clusters.INSPECT, request))


def _reading(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get("/list", response_model=ClusterList, summary="List clusters", responses=documented(410))
    async def list_clusters(
        caller: Annotated[Caller, CallerOf],
        tag: Annotated[str | None, Query(max_length=63)] = None,
        group: Annotated[str | None, Query(max_length=63)] = None,
        provider: Provider | None = None,
        status: Status | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        continue_: Continue = "",
    ) -> Response:
        query = ListClusters(tag=tag, group=group, provider=provider, status=status, limit=limit)
        asked = ["clusters", caller.subject, tag, group, provider, status]
        binding = msgspec.json.encode(asked).decode()
        if continue_:
            query.after = continuation.open_name(continue_, binding)
        page = await bus.request(clusters.LIST, query)
        items = [_public(item) for item in page.items]
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": items, "total": page.total, "continue": token})

    @router.get("/{cluster}", response_model=Cluster, summary="One cluster", responses=documented(404))
    async def get(cluster: ClusterName) -> Response:
        return json_answer(_public(await bus.request(clusters.GET, ClusterRef(check_cluster_name(cluster)))))


def _changing(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.patch(
        "/{cluster}",
        response_model=Cluster,
        dependencies=[audited("clusters.update", path="cluster")],
        summary="Change what is said of a cluster",
        responses=documented(403, 404),
    )
    async def update(cluster: ClusterName, body: UpdateClusterBody) -> Response:
        said = body.model_dump(exclude_none=True)
        changed = await bus.request(clusters.UPDATE, UpdateCluster(id=check_cluster_name(cluster), **said))
        await roster.hurry()
        return json_answer(_public(changed))

    @router.put(
        "/{cluster}/kubeconfig",
        response_model=Cluster,
        dependencies=[audited("clusters.rotate", path="cluster")],
        summary="Rotate the credentials of a cluster",
        responses=documented(403, 404, 409, 422, 502),
    )
    async def rotate(cluster: ClusterName, body: RotateBody) -> Response:
        name = check_cluster_name(cluster)
        box = await _sealed(bus, body.kubeconfig, body.context, name)
        request = RotateKubeconfig(id=name, sealed=box, renew_token=body.renew_token)
        changed = await bus.request(clusters.ROTATE, request)
        await roster.hurry()
        return json_answer(_public(changed))

    @router.delete(
        "/{cluster}",
        status_code=204,
        dependencies=[audited("clusters.remove", path="cluster")],
        summary="Remove a cluster; its history stays",
        responses=documented(403, 404),
    )
    async def remove(cluster: ClusterName) -> Response:
        await bus.request(clusters.REMOVE, ClusterRef(check_cluster_name(cluster)))
        await roster.hurry()
        return Response(status_code=204)


def _observed(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "/{cluster}/test",
        response_model=TestReport,
        dependencies=[audited("clusters.test", path="cluster")],
        summary="Test the connection, step by step",
        responses=documented(403, 404),
    )
    async def test(cluster: ClusterName) -> Response:
        return json_answer(await bus.request(clusters.TEST, ClusterRef(check_cluster_name(cluster))))

    @router.post(
        "/{cluster}/sync",
        response_model=SyncReport,
        dependencies=[audited("clusters.sync", path="cluster")],
        summary="Look at a cluster again now, and say how every type stands",
        responses=documented(403, 404),
    )
    async def sync(cluster: ClusterName, caller: Annotated[Caller, CallerOf]) -> Response:
        name, observer = roster.observer(caller, cluster)
        report = await bus.request(resources.SYNC, SyncCluster(name), target=observer)
        fields = msgspec.to_builtins(report)
        del fields["replica"], fields["published"]
        return json_answer({**fields, "as_of": _when(report.as_of)})

    @router.get(
        "/{cluster}/metrics",
        response_model=MetricsReport,
        summary="Capacity, requests, limits and usage of a cluster",
        responses=documented(403, 404),
    )
    async def metrics(cluster: ClusterName, caller: Annotated[Caller, CallerOf]) -> Response:
        name, observer = roster.observer(caller, cluster)
        found = await bus.request(resources.METRICS, ClusterMetricsOf(name), target=observer)
        return json_answer({**msgspec.to_builtins(found), "as_of": _when(found.as_of)})


def _public(cluster: ClusterConnection) -> dict[str, Any]:
    fields = msgspec.to_builtins(cluster)
    del fields["kube_system_uid"], fields["generation"]
    return fields


def _when(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)
