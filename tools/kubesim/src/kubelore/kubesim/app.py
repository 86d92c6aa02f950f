"""A fleet: several simulated clusters in one process, with one control panel."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType

from . import population
from .admin import AdminPanel
from .cluster import ClusterState
from .demo import CLUSTERS, DemoWorld
from .identity import Identity, write_private
from .simulated import SimulatedCluster


class SimulatedFleet:
    """Several clusters in this process.

        async with SimulatedFleet(clusters=2, pods=100) as fleet:
            fleet[0].kubeconfig

    `demo` adds the two clusters of the demo world behind the others. With `data` the credentials and
    kubeconfigs are kept there, so that the next start has the same ones.
    """

    def __init__(
        self,
        clusters: int = 1,
        pods: int = 0,
        *,
        demo: bool = False,
        host: str = "127.0.0.1",
        port_base: int = 0,
        data: Path | None = None,
        seed: int = 0,
        bookmark_interval_s: float = 30.0,
    ) -> None:
        self._data = data
        self._clusters: list[SimulatedCluster] = []
        if data is not None:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._worlds: list[DemoWorld] = []
        self._tasks: list[asyncio.Task[None]] = []
        names = [f"sim-{number + 1:02}" for number in range(clusters)] + (list(CLUSTERS) if demo else [])
        for number, name in enumerate(names):
            state = ClusterState(name, seed, bookmark_interval_s)
            if name in CLUSTERS:
                self._worlds.append(DemoWorld(state))
                self._worlds[-1].seed()
            else:
                population.furnish(state)
                population.populate(state, pods)
            state.store.compact()
            port = port_base + number if port_base else 0
            self._clusters.append(SimulatedCluster(state, self._identity(name, host, port)))
        self.admin = AdminPanel({cluster.name: cluster for cluster in self._clusters})
        self.admin_url = ""
        self._host = host

    def _identity(self, name: str, host: str, port: int) -> Identity:
        if self._data is None:
            return Identity.create(name, host, port)
        return Identity.load_or_create(self._data / f"{name}.identity.json", name, host, port)

    def __getitem__(self, index: int) -> SimulatedCluster:
        return self._clusters[index]

    def __len__(self) -> int:
        return len(self._clusters)

    async def start(self) -> None:
        """Listens and writes the files; who sees a port open finds its kubeconfig, when ports are given."""
        for cluster in self._clusters:
            if cluster.identity.port:
                self._keep(cluster)
            await cluster.listen()
            self._keep(cluster)
        self._tasks = [asyncio.create_task(world.live()) for world in self._worlds]
        self.admin_url = await self.admin.start(self._host)
        if self._data is not None:
            panel = {"url": self.admin_url, "token": self.admin.token}
            write_private(self._data / "admin.json", json.dumps(panel))

    def _keep(self, cluster: SimulatedCluster) -> None:
        if self._data is not None:
            cluster.identity.save(self._data / f"{cluster.name}.identity.json")
            write_private(self._data / f"{cluster.name}.kubeconfig", cluster.kubeconfig)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for cluster in self._clusters:
            cluster.changes_per_second = 0
        await asyncio.gather(self.admin.stop(), *(cluster.close() for cluster in self._clusters))

    async def __aenter__(self) -> SimulatedFleet:
        try:
            await self.start()
        except OSError:  # a port in use
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
