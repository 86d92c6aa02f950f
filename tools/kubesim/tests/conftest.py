"""A cluster per test module, and kubectl against it."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
