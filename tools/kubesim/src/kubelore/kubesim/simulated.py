"""One simulated cluster on a real socket, with its faults and its generated load."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from .call import MAX_BODY
from .cluster import ClusterState
from .faults import Faults
from .identity import Identity
from .load import change_pods
from .server import ApiServer
from .status import Json


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


class SimulatedCluster:
    """A cluster that listens. `state` is what it holds, for tests that reach in."""

    def __init__(self, state: ClusterState, identity: Identity) -> None:
        self.state = state
        self.identity = identity
        self.api = ApiServer(state, identity.token)
        self._ssl = identity.ssl_context()
        self._runner: web.ServerRunner | None = None
        self._load: asyncio.Task[None] | None = None
        self._changes_per_second = 0.0

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def server(self) -> str:
        return self.identity.server

    @property
    def kubeconfig(self) -> str:
        return self.identity.kubeconfig()

    @property
    def faults(self) -> Faults:
        return self.api.injector.faults

    async def inject(self, faults: Faults) -> None:
        """From now on the cluster has these faults, and no others; `Faults()` heals it."""
        self.api.injector.faults = faults
        if faults.refuse:
            await self.close()
        elif self._runner is None:
            await self.listen()

    @property
    def changes_per_second(self) -> float:
        return self._changes_per_second

    @changes_per_second.setter
    def changes_per_second(self, rate: float) -> None:
        """How many pods change each second; 0 stops it."""
        if self._load is not None:
            self._load.cancel()
        self._changes_per_second = rate
        self._load = asyncio.create_task(change_pods(self.state, rate)) if rate > 0 else None

    def drop_watches(self) -> int:
        return self.api.drop_watches()

    def compact(self) -> None:
        """Forgets the history: watches and pages from before now get 410."""
        self.state.store.compact()

    def describe(self) -> Json:
        """For the admin endpoint; no secrets."""
        return {
            "name": self.name,
            "server": self.server,
            "objects": self.state.store.count(),
            "resource_version": str(self.state.store.rv),
            "changes_per_second": self.changes_per_second,
            "faults": msgspec.to_builtins(self.faults),
        }

    async def listen(self) -> None:
        """Listens on the identity's port, or on a free one that the identity then keeps."""
        server = web.Server(
            self.api.handle, request_factory=_request, access_log=None, keepalive_timeout=75.0
        )
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
