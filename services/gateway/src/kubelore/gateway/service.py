"""The application: middleware, routes and health, put together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Response

from kubelore.gateway.access import access_routes
from kubelore.gateway.audit.endpoints import audit_routes
from kubelore.gateway.audit.requests import Audit, check_audited
from kubelore.gateway.auth import Authentication
from kubelore.gateway.backup_keys import backup_key_routes
from kubelore.gateway.backup_policies import backup_policy_routes
from kubelore.gateway.backup_rescans import backup_rescan_routes
from kubelore.gateway.backups import backup_routes
from kubelore.gateway.branches import branch_routes
from kubelore.gateway.clusters import cluster_routes
from kubelore.gateway.comparing import Comparer
from kubelore.gateway.compiled_routes import compile_routes
from kubelore.gateway.container_logs import container_log_routes
from kubelore.gateway.containers import container_routes
from kubelore.gateway.counting import Counting
from kubelore.gateway.documentation import describe
from kubelore.gateway.event_stream import Slots
from kubelore.gateway.exec_policies import exec_policy_routes
from kubelore.gateway.fanout import FanOut
from kubelore.gateway.files import file_routes
from kubelore.gateway.groups import group_routes
from kubelore.gateway.house import House
from kubelore.gateway.idempotency import Idempotency
from kubelore.gateway.keeping import keeping_routes
from kubelore.gateway.limits import Limits
from kubelore.gateway.log_rules import log_rule_routes
from kubelore.gateway.log_search import log_search_routes
from kubelore.gateway.log_streams import LogReaders, log_stream_routes
from kubelore.gateway.metrics import Measured, Metrics, metrics_routes
from kubelore.gateway.operations import Operations
from kubelore.gateway.origins import Origins
from kubelore.gateway.overview import overview_routes
from kubelore.gateway.parked import parked_routes
from kubelore.gateway.problems import Boundary, install
from kubelore.gateway.query_names import KnownQuery
from kubelore.gateway.rates import Buckets
from kubelore.gateway.restores import restore_routes
from kubelore.gateway.rollbacks import rollback_routes, snapshot_routes, yaml_routes
from kubelore.gateway.static_pages import serve_pages
from kubelore.gateway.terminals import terminal_routes
from kubelore.gateway.timelines import timeline_routes
from kubelore.gateway.tracing import Tracing
from kubelore.gateway.transfers import transfer_routes
from kubelore.gateway.unified import unified_routes
from kubelore.gateway.verifying import verification_routes
from kubelore.gateway.versions import version_routes
from kubelore.gateway.watch import Watches
from kubelore.gateway.writes import write_routes

DESCRIPTION = """Operate every Kubernetes cluster from one place.

Send a token as `Authorization: Bearer <token>`, or in a browser open a session. Errors are
problem documents (RFC 9457) with a machine-readable `reason` and, where there is one, a `remedy`.
Whatever changes something takes an `Idempotency-Key` and answers an `Operation-Id`.
"""


def build_app(house: House) -> FastAPI:
    """The ASGI application over a connected bus and an open store."""
    app = FastAPI(
        title="Kubelore",
        version=version("kubelore-gateway"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        # A redirect would be built from the Host header, which anybody may write.
        redirect_slashes=False,
        dependencies=[KnownQuery],
        # Its spans carry whole paths and queries: names of objects, and what people search for. See `tracing`.
        telemetry={"tracing": False, "logs": False},
    )
    settings = house.settings
    origins = Origins(settings.public_url, settings.allowed_origins)
    fan_out = FanOut(house.bus, house.roster)
    watches = Watches(house.feed, fan_out, house.roster, settings.max_watches)
    terminals = Slots(settings.max_terminals, "terminals")
    metrics = _metrics(house, watches, terminals)
    for router in _routers(house, fan_out, watches, terminals, origins):
        app.include_router(router)
    app.include_router(metrics_routes(house.bus, metrics))
    _health(app, house)
    serve_pages(app)
    install(app)
    check_audited(app)
    compile_routes(app)
    app.openapi = partial(describe, app)
    _middleware(app, house, origins, metrics)
    return app


def _routers(
    house: House, fan_out: FanOut, watches: Watches, terminals: Slots, origins: Origins
) -> Iterator[APIRouter]:
    """The API. Routes are tried in turn: what is asked most comes first."""
    bus, roster, continuation = house.bus, house.roster, house.continuation
    yield unified_routes(fan_out, roster, continuation, house.feed, watches)
    yield access_routes(house.store.credentials, origins)
    yield cluster_routes(bus, roster, continuation)
    yield group_routes(bus, roster, continuation)
    comparer, counting = Comparer(bus, roster, fan_out), Counting(bus, roster, fan_out)
    yield overview_routes(comparer, counting, roster, continuation)
    yield audit_routes(house.audit_entries, house.auditor, roster, continuation)
    yield write_routes(bus, roster)
    # Before what takes any word behind an id for the number of a version.
    yield timeline_routes(bus, continuation)
    yield verification_routes(bus, continuation)
    yield rollback_routes(bus)
    yield snapshot_routes(bus, continuation)
    yield yaml_routes(bus, roster)
    # Before the routes of backups: what they add under /backup is no id of one.
    yield backup_policy_routes(bus, roster)
    yield backup_key_routes(bus)
    yield backup_rescan_routes(bus, continuation)
    yield branch_routes(bus, continuation)
    yield version_routes(bus, continuation)
    yield restore_routes(bus, continuation)
    yield keeping_routes(bus, house.keyring)
    yield parked_routes(bus)
    yield terminal_routes(bus, terminals, house.settings.public_url)
    yield backup_routes(bus, roster, continuation)
    yield exec_policy_routes(bus)
    yield file_routes(bus, continuation)
    yield container_routes(bus, roster, continuation)
    yield container_log_routes(bus, continuation)
    yield log_stream_routes(LogReaders(bus, roster, house.settings.max_watches), continuation)
    yield log_search_routes(bus, roster, continuation)
    yield transfer_routes(bus)
    yield log_rule_routes(bus, roster)


def _metrics(house: House, watches: Watches, terminals: Slots) -> Metrics:
    metrics, settings, roster = Metrics(), house.settings, house.roster
    metrics.watch("kubelore_watches_open", "Live watches open now.", lambda: watches.slots.taken)
    metrics.watch("kubelore_watches_limit", "Live watches that may be open.", lambda: settings.max_watches)
    metrics.watch("kubelore_terminals_open", "Terminals attached to now.", lambda: terminals.taken)
    metrics.watch("kubelore_clusters", "Clusters onboarded, as this gateway knows.", lambda: roster.count())
    return metrics


def _middleware(app: FastAPI, house: House, origins: Origins, metrics: Metrics) -> None:
    """What every request goes through; the last is the outermost."""
    settings, store = house.settings, house.store
    app.add_middleware(Idempotency, attempts=store.attempts, sealer=store.sealer)
    app.add_middleware(
        Authentication,
        credentials=store.credentials,
        origins=origins,
        failures=Buckets(settings.failures_per_second, settings.failures_burst),
        requests=Buckets(settings.requests_per_second, settings.requests_burst),
        trusted=settings.trusted_proxies,
    )
    app.add_middleware(Boundary)
    app.add_middleware(Audit, log=house.audit_log, trusted=settings.trusted_proxies)
    app.add_middleware(Operations)
    app.add_middleware(Limits, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(Tracing)


def _health(app: FastAPI, house: House) -> None:
    async def livez() -> Response:
        return Response("ok", media_type="text/plain")

    async def readyz() -> Response:
        parts = (
            ("bus", house.bus.connected),
            ("cluster-registry", house.roster.ready),
            # Once it was open: while it cannot be written, what only reads goes on.
            ("audit", house.audit_log.opened.is_set()),
            ("database", house.store.reachable),
        )
        missing = [name for name, fine in parts if not fine]
        text = "ok" if not missing else f"waiting for {', '.join(missing)}"
        return Response(text, 503 if missing else 200, media_type="text/plain")

    for path, answer in (("/livez", livez), ("/readyz", readyz)):
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
