"""Whole clusters: looked at again when somebody asks, and their figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubelore.common.authz import Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import ClusterMetricsOf, SyncCluster
from kubelore.common.errors import Forbidden, NotFound, Unavailable
from kubelore.common.kube import KubeClient, ResourceType, read_kubeconfig
from kubelore.common.kube.quantity import Quantity
from kubelore.common.kube.well_known import NODES, PODS
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops import contact
from kubelore.resource_ops.contact import Contact
from kubelore.resource_ops.usage import NODE_METRICS

CLUSTER = "sim-01"
CRDS = ResourceType(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
)


async def sync(asker) -> Any:
    return await asker.ask(resources.SYNC, SyncCluster(CLUSTER))


async def metrics(asker) -> Any:
    return await asker.ask(resources.METRICS, ClusterMetricsOf(CLUSTER))


async def listed(asker, of: ResourceType) -> list[dict[str, Any]]:
    return [json.loads(raw) async for page in asker.client.pages(of) for raw in page.items]


def cores(text: str) -> float:
    return float(Quantity.parse(text).value)


async def test_a_sync_tells_how_every_type_stands(asker) -> None:
    report = await sync(asker)
    assert (report.cluster, report.status) == (CLUSTER, "live")
    states = {state.type: state for state in report.types}
    assert states["pods"].status == "live"
    assert states["pods"].count == 5


async def test_a_sync_finds_types_that_have_come_since(asker) -> None:
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.lab.example.com"},
        "spec": {
            "group": "lab.example.com",
            "names": names,
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    await asker.client.create(CRDS, None, json.dumps(definition).encode())
    report = await sync(asker)
    assert "gadgets.lab.example.com" in {state.type for state in report.types}


async def test_a_sync_of_a_cluster_that_is_away_says_so_without_waiting(asker) -> None:
    cluster = asker.house.clusters[0]
    await cluster.inject(Faults(refuse=True))

    async def stale() -> bool:
        return (await sync(asker)).status == "stale"

    await wait_for(stale, "the cluster to be stale", 20)
    await cluster.inject(Faults())
    # Without the sync, its observer would look again only after up to 30 s.
    assert (await sync(asker)).status in ("live", "stale")

    async def live() -> bool:
        return (await sync(asker)).status == "live"

    await wait_for(live, "the cluster to be live", 20)


async def test_a_contact_that_is_hurried_does_not_wait_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(contact, "BACKOFF_LIMIT_S", 600.0)
    monkeypatch.setattr(contact, "INTERVAL_S", 600.0)
    monkeypatch.setattr(contact, "CONFIRM_S", 0.01)
    up = False

    async def probe() -> None:
        if not up:
            raise Unavailable("down")

    async def greet() -> None:
        return None

    held = Contact(probe, greet)
    running = asyncio.create_task(held.run())
    try:
        async with asyncio.timeout(5):
            await held.probes.ended(2)
            up, following = True, held.probes.next
            held.hurry()
            await held.probes.ended(following)
        assert held.reachable.is_set()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_figures_are_the_sums_over_nodes_and_pods(asker) -> None:
    found = await metrics(asker)
    nodes, pods = await listed(asker, NODES), await listed(asker, PODS)
    assert found.nodes.total == found.nodes.ready == len(nodes)
    assert found.pods.total == len(pods)
    assert found.capacity.cpu_cores == sum(cores(node["status"]["capacity"]["cpu"]) for node in nodes)
    assert found.allocatable.memory_bytes == sum(
        cores(node["status"]["allocatable"]["memory"]) for node in nodes
    )
    running = [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]
    assert found.requests.cpu_cores == pytest.approx(
        sum(
            cores(container.get("resources", {}).get("requests", {}).get("cpu", "0"))
            for pod in running
            for container in pod["spec"]["containers"]
        )
    )
    assert found.missing == {}
    assert found.usage.nodes == len(nodes)
    assert 0 < found.usage.cpu_cores < found.capacity.cpu_cores


async def test_a_pod_that_has_ended_asks_for_nothing(asker) -> None:
    before = (await metrics(asker)).requests
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "ended", "namespace": "default"},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": "3", "memory": "1Gi"}}}
            ]
        },
    }
    await asker.client.create(PODS, "default", json.dumps(manifest).encode())

    async def counted() -> bool:
        return (await metrics(asker)).requests.cpu_cores == pytest.approx(before.cpu_cores + 3)

    await wait_for(counted, "the pod to count")
    ended = json.dumps({"status": {"phase": "Succeeded"}}).encode()
    await asker.client.patch(PODS, "default", "ended", ended, subresource="status")

    async def over() -> bool:
        found = await metrics(asker)
        return found.requests == before and found.pods.by_phase.get("Succeeded") == 1

    await wait_for(over, "the pod to count no more")


async def test_usage_is_null_with_a_reason_where_metrics_are_not_to_be_had(asker, policy) -> None:
    from kubelore.resource_ops.usage import read_usage

    access = read_kubeconfig(asker.house.clusters[0].kubeconfig, None, policy)
    async with KubeClient(access, policy) as client:
        await asker.house.clusters[0].inject(Faults(error_rate=1.0, error_code=503))
        usage, why = await read_usage(client)
        assert usage is None
        assert "does not answer" in (why or "")
        await asker.house.clusters[0].inject(Faults(error_rate=1.0, error_code=403))
        assert (await read_usage(client))[1] == "the credentials may not list nodes.metrics.k8s.io"
        await asker.house.clusters[0].inject(Faults(error_rate=1.0, error_code=404))
        assert "not installed" in ((await read_usage(client))[1] or "")
    assert NODE_METRICS.name == "nodes.metrics.k8s.io"


async def test_figures_are_for_who_may_read_the_whole_cluster(asker) -> None:
    narrow = Caller(subject="vera", grants=(Grant(role="viewer", namespaces=("shop",)),))
    with acting_as(narrow):
        for asked in (sync, metrics):
            with pytest.raises(Forbidden):
                await asked(asker)
    with acting_as(Caller(subject="nobody")), pytest.raises(NotFound):
        await metrics(asker)
