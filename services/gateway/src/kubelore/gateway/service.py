"""The application: middleware, routes and health, put together."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from importlib.resources import files

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from kubelore.common.bus import Bus, Feed
from kubelore.gateway.auth import Authentication
from kubelore.gateway.clusters import cluster_routes
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.documentation import describe
from kubelore.gateway.fanout import FanOut
from kubelore.gateway.limits import Limits
from kubelore.gateway.problems import install
from kubelore.gateway.roster import Roster
from kubelore.gateway.settings import GatewaySettings
from kubelore.gateway.tracing import Tracing
from kubelore.gateway.unified import unified_routes
from kubelore.gateway.watch import Watches

DESCRIPTION = """Operate every Kubernetes cluster from one place.

Send the token as `Authorization: Bearer <token>`. Errors are problem documents
(RFC 9457) with a machine-readable `reason` and, where there is one, a `remedy`.
"""


def build_app(
    settings: GatewaySettings, bus: Bus, roster: Roster, feed: Feed, continuation: Continuation
) -> FastAPI:
    """The ASGI application over a connected bus."""
    app = FastAPI(
        title="Kubelore",
        version=version("kubelore-gateway"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    fan_out = FanOut(bus, roster)
    watches = Watches(feed, fan_out, roster, settings.max_watches)
    app.include_router(cluster_routes(bus, roster))
    app.include_router(unified_routes(fan_out, roster, continuation, feed, watches))
    _health(app, bus, roster)
    _pages(app)
    install(app)
    app.openapi = partial(describe, app)
    app.add_middleware(Authentication, token=settings.read_admin_token())
    app.add_middleware(Limits, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Tracing)
    return app


def _health(app: FastAPI, bus: Bus, roster: Roster) -> None:
    @app.get("/livez", include_in_schema=False)
    async def livez() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        missing = [
            name for name, fine in (("bus", bus.connected), ("cluster-registry", roster.ready)) if not fine
        ]
        text = "ok" if not missing else f"waiting for {', '.join(missing)}"
        return Response(text, 503 if missing else 200, media_type="text/plain")


def _pages(app: FastAPI) -> None:
    pages = files("kubelore.gateway") / "pages"
    home, docs = ((pages / name).read_text() for name in ("home.html", "docs.html"))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(home)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return HTMLResponse(docs)
