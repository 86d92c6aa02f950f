"""The demo world is believable, moves, and is the same cluster after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo() -> Any:
    async with SimulatedFleet(clusters=0, demo=True) as fleet:
        yield fleet


@pytest.fixture
def shop(demo: SimulatedFleet, connect: Any) -> Any:
    return connect(demo[0])


@pytest.fixture
def data(demo: SimulatedFleet, connect: Any) -> Any:
    return connect(demo[1])


async def items(client: Any, path: str) -> list[Any]:
    status, body = await client.get(path)
    assert status == 200, body
    return body["items"]


async def test_one_deployment_is_broken_and_says_why(shop: Any) -> None:
    (pod,) = await items(shop, "/api/v1/namespaces/shop/pods?labelSelector=app%3Drecommendations")
    (status,) = pod["status"]["containerStatuses"]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    name = pod["metadata"]["name"]
    async with shop.request("GET", f"/api/v1/namespaces/shop/pods/{name}/log?previous=true") as response:
        assert "no such file" in await response.text()


async def test_one_pod_fits_on_no_node(data: Any) -> None:
    (pod,) = await items(data, "/api/v1/pods?fieldSelector=status.phase%3DPending")
    assert pod["status"]["conditions"][0]["reason"] == "Unschedulable"
    events = await items(data, "/api/v1/events?fieldSelector=reason%3DFailedScheduling")
    assert events[0]["involvedObject"]["name"] == pod["metadata"]["name"] == "forecast-training"


async def test_one_quota_is_full_and_refuses_a_pod(shop: Any) -> None:
    (quota,) = await items(shop, "/api/v1/namespaces/payments/resourcequotas")
    assert quota["status"]["used"]["pods"] == quota["status"]["hard"]["pods"] == "4"
    events = await items(shop, "/api/v1/namespaces/payments/events?fieldSelector=reason%3DFailedCreate")
    assert "exceeded quota: payments-quota" in events[0]["message"]
    spec = {"containers": [{"name": "c", "image": "i"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fifth"}, "spec": spec}
    async with shop.request("POST", "/api/v1/namespaces/payments/pods", json=pod) as response:
        assert response.status == 403


async def test_nodes_know_their_provider(shop: Any, data: Any) -> None:
    for client, prefix in ((shop, "aws:///"), (data, "gce://")):
        nodes = await items(client, "/api/v1/nodes")
        assert nodes
        assert all(node["spec"]["providerID"].startswith(prefix) for node in nodes)


async def test_custom_types_have_objects(shop: Any, data: Any) -> None:
    assert len(await items(shop, "/apis/shop.example/v1/promotions")) == 2
    assert len(await items(data, "/apis/data.example/v1beta1/databases")) == 2


async def test_a_scaled_deployment_gets_pods_that_start_and_log(shop: Any) -> None:
    path = "/apis/apps/v1/namespaces/shop/deployments/catalog/scale"
    patch = {"spec": {"replicas": 4}}
    headers = {"Content-Type": "application/merge-patch+json"}
    async with shop.request("PATCH", path, json=patch, headers=headers) as response:
        assert response.status == 200

    async def running() -> list[Any]:
        pods = await items(shop, "/api/v1/namespaces/shop/pods?labelSelector=app%3Dcatalog")
        return pods if [pod["status"]["phase"] for pod in pods] == ["Running"] * 4 else []

    pods = await wait_for(running, "four running pods", 20)
    newest = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
    async with shop.request("GET", f"/api/v1/namespaces/shop/pods/{newest}/log") as response:
        assert "catalog" in await response.text()


async def test_a_deleted_pod_is_replaced(shop: Any) -> None:
    path = "/api/v1/namespaces/shop/pods"
    selector = "?labelSelector=app%3Dcart"
    victim = (await items(shop, path + selector))[0]["metadata"]
    async with shop.request("DELETE", f"{path}/{victim['name']}") as response:
        assert response.status == 200

    async def replaced() -> bool:
        pods = await items(shop, path + selector)
        running = [pod["metadata"]["uid"] for pod in pods if pod["status"]["phase"] == "Running"]
        return len(running) == 2 and victim["uid"] not in running

    await wait_for(replaced, "another pod in place of the deleted", 20)


async def test_jobs_start_run_and_end(shop: Any) -> None:
    async def ended() -> bool:
        jobs = await items(shop, "/apis/batch/v1/namespaces/shop/jobs")
        return any(job["status"].get("succeeded") for job in jobs)

    await wait_for(ended, "a job of the cron job to succeed", 60)


async def test_usage_is_measured_for_what_runs(data: Any) -> None:
    pods = {pod["metadata"]["name"] for pod in await items(data, "/apis/metrics.k8s.io/v1beta1/pods")}
    assert "postgres-0" in pods
    assert "forecast-training" not in pods
    _, node = await data.get("/apis/metrics.k8s.io/v1beta1/nodes/demo-data-node-1")
    assert node["usage"]["cpu"].endswith("n")


async def identity_of(fleet: SimulatedFleet, connect: Any) -> dict[str, Any]:
    client = connect(fleet[0])
    _, namespace = await client.get("/api/v1/namespaces/kube-system")
    listed = await items(client, "/api/v1/namespaces/payments/pods")
    return {
        "kube-system": namespace["metadata"]["uid"],
        "pods": [(pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in listed],
        "kubeconfig": fleet[0].kubeconfig,
    }


async def test_a_restarted_demo_is_the_same_cluster_with_no_memory(tmp_path: Path, connect: Any) -> None:
    async with SimulatedFleet(clusters=0, demo=True, data=tmp_path) as fleet:
        before = await identity_of(fleet, connect)
        rv = fleet[0].state.store.rv
    async with SimulatedFleet(clusters=0, demo=True, data=tmp_path) as fleet:
        assert await identity_of(fleet, connect) == before
        assert fleet[0].state.store.rv > rv
        client = connect(fleet[0])
        async with client.request("GET", f"/api/v1/pods?watch=1&resourceVersion={rv}") as response:
            event = await response.content.readline()
        assert b'"reason":"Expired"' in event


async def test_ports_are_kept_unless_others_are_given(tmp_path: Path) -> None:
    async with SimulatedFleet(clusters=1, data=tmp_path) as fleet:
        first = fleet[0].identity
    async with SimulatedFleet(clusters=1, data=tmp_path) as fleet:
        assert fleet[0].identity == first
    async with SimulatedFleet(clusters=1) as fleet:
        free = fleet[0].identity.port
    async with SimulatedFleet(clusters=1, data=tmp_path, port_base=free) as fleet:
        assert fleet[0].identity.port == free
        assert fleet[0].identity.token == first.token
        assert f":{free}" in (tmp_path / "sim-01.kubeconfig").read_text()


async def test_what_is_kept_on_disk_is_private(tmp_path: Path) -> None:
    async with SimulatedFleet(clusters=1, data=tmp_path / "sim"):
        kept = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "sim").iterdir()}
    assert kept == dict.fromkeys(("sim-01.kubeconfig", "sim-01.identity.json", "admin.json"), 0o600)


def test_seeds_make_different_clusters() -> None:
    def uid(seed: int) -> str:
        state = SimulatedFleet(clusters=1, seed=seed)[0].state
        entry = state.store.find(state.types.named("namespaces"), "", "kube-system")
        assert entry is not None
        return entry.uid

    assert uid(1) == uid(1) != uid(2)
