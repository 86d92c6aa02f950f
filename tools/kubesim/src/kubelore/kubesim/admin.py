"""The fleet's control panel: a plain HTTP endpoint, beside the clusters so that it outlives a pulled plug."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from .faults import Faults
from .simulated import SimulatedCluster


class _Changes(msgspec.Struct, forbid_unknown_fields=True):
    per_second: float


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminPanel:
    """GET /clusters; GET|PUT|DELETE /clusters/X/faults; PUT .../changes; POST .../drop-watches|compact."""

    def __init__(self, clusters: Mapping[str, SimulatedCluster]) -> None:
        self.token = secrets.token_urlsafe(24)
        self._clusters = clusters
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/clusters", self._list)
        application.router.add_route("*", "/clusters/{name}/{what}", self._steer)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, host: str) -> str:
        """Listens on a free port; the URL."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, 0).start()
        return f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not secrets.compare_digest(request.headers.get("Authorization", ""), f"Bearer {self.token}"):
            return web.json_response({"error": "the token of admin.json is needed"}, status=401)
        try:
            return await handler(request)
        except msgspec.MsgspecError as error:
            return web.json_response({"error": str(error)}, status=400)

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response([cluster.describe() for cluster in self._clusters.values()])

    async def _steer(self, request: web.Request) -> web.Response:
        cluster = self._clusters.get(request.match_info["name"])
        if cluster is None:
            return web.json_response({"error": "no such cluster"}, status=404)
        match request.method, request.match_info["what"]:
            case ("GET", "faults"):
                pass
            case ("PUT", "faults"):
                await cluster.inject(msgspec.json.decode(await request.read(), type=Faults))
            case ("DELETE", "faults"):
                await cluster.inject(Faults())
            case ("PUT", "changes"):
                changes = msgspec.json.decode(await request.read(), type=_Changes)
                cluster.changes_per_second = changes.per_second
            case ("POST", "drop-watches"):
                cluster.drop_watches()
            case ("POST", "compact"):
                cluster.compact()
            case _:
                return web.json_response({"error": "no such action"}, status=404)
        return web.json_response(cluster.describe())
