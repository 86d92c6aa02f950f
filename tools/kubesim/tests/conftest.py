"""A cluster per test module, with kubectl and a raw client against it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet
from kubelore.kubesim.simulated import SimulatedCluster
from kubelore.lab.kubectl import Kubectl


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedFleet(clusters=1, pods=40, bookmark_interval_s=0.3) as fleet:
        yield fleet[0]


@pytest.fixture(scope="module")
def kubectl(cluster: SimulatedCluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    kubeconfig = tmp_path_factory.mktemp("kubectl") / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig)
    return Kubectl(kubeconfig)


class Client:
    """Raw requests to one simulated cluster."""

    def __init__(self, session: aiohttp.ClientSession, cluster: SimulatedCluster) -> None:
        self._session = session
        self._cluster = cluster
        self._ssl = ssl.create_default_context(cadata=cluster.identity.ca_pem)

    def request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._cluster.identity.token}", **options.pop("headers", {})}
        return self._session.request(
            method, self._cluster.server + path, ssl=self._ssl, headers=headers, **options
        )

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.request("GET", path) as response:
            return response.status, await response.json()

    def exec(self, path: str, protocol: str) -> Any:
        headers = {"Authorization": f"Bearer {self._cluster.identity.token}"}
        return self._session.ws_connect(
            self._cluster.server + path, ssl=self._ssl, headers=headers, protocols=(protocol,)
        )


@pytest_asyncio.fixture(loop_scope="session")
async def connect() -> AsyncIterator[Callable[[SimulatedCluster], Client]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield lambda cluster: Client(session, cluster)


@pytest.fixture
def client(cluster: SimulatedCluster, connect: Callable[[SimulatedCluster], Client]) -> Client:
    return connect(cluster)
