"""Simulated clusters on real sockets: one process, each with its own port, CA, token and kubeconfig."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType

from aiohttp import web

from . import population
from .cluster import ClusterState
from .identity import Identity, write_private
from .server import ApiServer


class SimulatedCluster:
    """A cluster that listens. `state` is what it holds, for tests that reach in."""

    def __init__(self, state: ClusterState, identity: Identity) -> None:
        self.state = state
        self.identity = identity
        self.api = ApiServer(state, identity.token)
        self._ssl = identity.ssl_context()
        self._runner: web.ServerRunner | None = None

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def server(self) -> str:
        return self.identity.server

    @property
    def kubeconfig(self) -> str:
        return self.identity.kubeconfig()

    async def listen(self) -> None:
        """Listens on the identity's port, or on a free one that the identity then keeps."""
        server = web.Server(self.api.handle, access_log=None, keepalive_timeout=75.0)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self.identity.host, self.identity.port, ssl_context=self._ssl, backlog=1024
        )
        await site.start()
        if not self.identity.port:
            self.identity.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stops listening and cuts every connection, as a pulled plug does; `listen` puts it back."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        server = runner.server
        for connection in list(server.connections) if isinstance(server, web.Server) else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()


class SimulatedFleet:
    """Several clusters in this process.

        async with SimulatedFleet(clusters=2, pods=100) as fleet:
            fleet[0].kubeconfig

    With `data` the credentials and kubeconfigs are kept there, so that the next start has the same ones.
    """

    def __init__(
        self,
        clusters: int = 1,
        pods: int = 0,
        *,
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
        for number in range(clusters):
            name = f"sim-{number + 1:02}"
            state = ClusterState(name, seed, bookmark_interval_s)
            population.furnish(state)
            population.populate(state, pods)
            state.store.compact()
            port = port_base + number if port_base else 0
            self._clusters.append(SimulatedCluster(state, self._identity(name, host, port)))

    def _identity(self, name: str, host: str, port: int) -> Identity:
        if self._data is None:
            return Identity.create(name, host, port)
        return Identity.load_or_create(self._data / f"{name}.identity.json", name, host, port)

    def __getitem__(self, index: int) -> SimulatedCluster:
        return self._clusters[index]

    def __len__(self) -> int:
        return len(self._clusters)

    async def start(self) -> None:
        for cluster in self._clusters:
            await cluster.listen()
            if self._data is not None:
                cluster.identity.save(self._data / f"{cluster.name}.identity.json")
                write_private(self._data / f"{cluster.name}.kubeconfig", cluster.kubeconfig)

    async def stop(self) -> None:
        await asyncio.gather(*(cluster.close() for cluster in self._clusters))

    async def __aenter__(self) -> SimulatedFleet:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
