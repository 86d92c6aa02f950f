"""A simulated cluster fails as it is told to, and heals again."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from kubelore.kubesim.app import SimulatedFleet
from kubelore.kubesim.faults import Faults
from kubelore.kubesim.simulated import SimulatedCluster
from kubelore.lab.waiting import wait_for


@pytest.fixture
async def heal(cluster: SimulatedCluster) -> Any:
    yield
    await cluster.inject(Faults())


@pytest.mark.usefixtures("heal")
class TestFaults:
    async def test_errors_come_with_their_status_and_retry_after(self, cluster: Any, client: Any) -> None:
        await cluster.inject(Faults(error_rate=1.0, error_code=429, retry_after=7))
        async with client.request("GET", "/api/v1/pods") as response:
            body = await response.json()
            assert (response.status, body["reason"]) == (429, "TooManyRequests")
            assert response.headers["Retry-After"] == "7"
            assert body["details"]["retryAfterSeconds"] == 7

    async def test_faults_touch_only_the_paths_they_name(self, cluster: Any, client: Any) -> None:
        await cluster.inject(Faults(error_rate=1.0, paths="/secrets"))
        assert (await client.get("/api/v1/secrets"))[0] == 503
        assert (await client.get("/api/v1/pods"))[0] == 200

    async def test_latency_is_added(self, cluster: Any, client: Any) -> None:
        await cluster.inject(Faults(latency=0.3))
        started = time.monotonic()
        assert (await client.get("/api/v1/namespaces"))[0] == 200
        assert time.monotonic() - started >= 0.3

    async def test_slow_bodies_arrive_whole_but_late(self, cluster: Any, client: Any) -> None:
        _, fast = await client.get("/api/v1/pods?limit=5")
        await cluster.inject(Faults(body_rate=40_000))
        started = time.monotonic()
        _, slow = await client.get("/api/v1/pods?limit=5")
        assert slow["items"] == fast["items"]
        assert time.monotonic() - started >= 0.3

    async def test_watches_and_pages_expire(self, cluster: Any, client: Any) -> None:
        await cluster.inject(Faults(expired=True))
        status, body = await client.get("/api/v1/pods?watch=1&resourceVersion=5")
        assert (status, body["reason"]) == (410, "Expired")
        assert (await client.get("/api/v1/pods?limit=1"))[0] == 200

    async def test_watches_are_cut_after_their_lifetime(self, cluster: Any, client: Any) -> None:
        await cluster.inject(Faults(watch_lifetime=0.2))
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.request("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=10") as response:
                await response.read()

    async def test_watches_are_dropped_on_demand(self, cluster: Any, client: Any) -> None:
        async with client.request("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=10") as response:
            await response.content.readline()
            assert cluster.drop_watches() == 1
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    async def test_a_pulled_plug_cuts_and_refuses_until_it_is_back(self, cluster: Any, client: Any) -> None:
        async with client.request("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=10") as response:
            await response.content.readline()
            await cluster.inject(Faults(refuse=True))
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("/api/v1/pods")
        await cluster.inject(Faults())
        assert (await client.get("/api/v1/pods"))[0] == 200

    async def test_a_random_share_of_errors_is_a_share(self, cluster: Any, client: Any) -> None:
        await cluster.inject(Faults(error_rate=0.5, error_code=500))
        codes = [(await client.get("/api/v1/nodes"))[0] for _ in range(40)]
        assert 5 < codes.count(500) < 35


async def test_a_quiet_watch_sends_bookmarks(cluster: Any, client: Any) -> None:
    path = "/api/v1/limitranges?watch=1&allowWatchBookmarks=true&timeoutSeconds=10"
    async with client.request("GET", path) as response:
        event = json.loads(await response.content.readline())
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) == cluster.state.store.rv


async def test_generated_load_changes_pods_at_its_rate(cluster: Any, client: Any) -> None:
    _, before = await client.get("/api/v1/pods?limit=1")
    rv = before["metadata"]["resourceVersion"]
    started = time.monotonic()
    cluster.changes_per_second = 200
    versions: list[int] = []
    async with client.request("GET", f"/api/v1/pods?watch=1&resourceVersion={rv}") as response:
        async for line in response.content:
            event = json.loads(line)
            assert event["type"] == "MODIFIED"
            versions.append(int(event["object"]["metadata"]["resourceVersion"]))
            if len(versions) == 100:
                break
    cluster.changes_per_second = 0
    assert versions == sorted(set(versions))
    assert time.monotonic() - started >= 0.4


class TestAdminPanel:
    @pytest.fixture
    async def fleet(self) -> Any:
        async with SimulatedFleet(clusters=2) as fleet:
            yield fleet

    @pytest.fixture
    async def steer(self, fleet: SimulatedFleet) -> Any:
        headers = {"Authorization": f"Bearer {fleet.admin.token}"}
        async with aiohttp.ClientSession(fleet.admin_url, headers=headers) as session:

            async def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
                async with session.request(method, path, json=body) as response:
                    return response.status, await response.json()

            yield send

    async def test_it_pulls_one_plug_and_puts_it_back(
        self, fleet: SimulatedFleet, steer: Callable[..., Awaitable[Any]], connect: Any
    ) -> None:
        first, second = connect(fleet[0]), connect(fleet[1])
        assert (await steer("PUT", "/clusters/sim-01/faults", {"refuse": True}))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await first.get("/api/v1/pods")
        assert (await second.get("/api/v1/pods"))[0] == 200
        await steer("DELETE", "/clusters/sim-01/faults")
        assert (await first.get("/api/v1/pods"))[0] == 200

    async def test_it_lists_clusters_without_secrets(self, fleet: SimulatedFleet, steer: Any) -> None:
        _, listed = await steer("GET", "/clusters")
        assert [entry["name"] for entry in listed] == ["sim-01", "sim-02"]
        assert fleet[0].identity.token not in json.dumps(listed)

    async def test_a_fault_nobody_knows_is_refused(self, steer: Any) -> None:
        status, answer = await steer("PUT", "/clusters/sim-01/faults", {"latencyy": 1})
        assert status == 400
        assert "latencyy" in answer["error"]

    async def test_it_starts_load(self, fleet: SimulatedFleet, steer: Any) -> None:
        await steer("PUT", "/clusters/sim-02/changes", {"per_second": 50})
        assert fleet[1].changes_per_second == 50

    async def test_it_needs_its_token(self, fleet: SimulatedFleet) -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{fleet.admin_url}/clusters") as response:
            assert response.status == 401


async def test_no_watch_is_left_behind_when_its_client_goes(cluster: Any, client: Any) -> None:
    async with client.request("GET", "/api/v1/pods?watch=1") as response:
        await response.content.readline()

    async def gone() -> bool:
        return cluster.drop_watches() == 0

    cluster.changes_per_second = 50
    await wait_for(gone, "the watch to end", 10)
    cluster.changes_per_second = 0
