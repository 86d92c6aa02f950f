"""The application: middleware, routes and health, put together."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from fastapi import FastAPI, Response

from kubelore.common.bus import Bus, Feed
from kubelore.common.crypto import Keyring
from kubelore.gateway.access import access_routes
from kubelore.gateway.audit.endpoints import audit_routes
from kubelore.gateway.audit.log import AuditLog
from kubelore.gateway.audit.requests import Audit, check_audited
from kubelore.gateway.audit.verification import Auditor
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
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.counting import Counting
from kubelore.gateway.documentation import describe
from kubelore.gateway.event_stream import Slots
from kubelore.gateway.exec_policies import exec_policy_routes
from kubelore.gateway.fanout import FanOut
from kubelore.gateway.files import file_routes
from kubelore.gateway.groups import group_routes
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
from kubelore.gateway.repository import AuditRepository
from kubelore.gateway.restores import restore_routes
from kubelore.gateway.rollbacks import rollback_routes, snapshot_routes, yaml_routes
from kubelore.gateway.roster import Roster
from kubelore.gateway.settings import GatewaySettings
from kubelore.gateway.static_pages import serve_pages
from kubelore.gateway.store import Store
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


def build_app(
    settings: GatewaySettings,
    bus: Bus,
    roster: Roster,
    feed: Feed,
    continuation: Continuation,
    store: Store,
    audit_log: AuditLog,
    audit_entries: AuditRepository,
    auditor: Auditor,
    keyring: Keyring,
) -> FastAPI:
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
    fan_out = FanOut(bus, roster)
    watches = Watches(feed, fan_out, roster, settings.max_watches)
    origins = Origins(settings.public_url, settings.allowed_origins)
    # Routes are tried in turn: what is asked most comes first.
    app.include_router(unified_routes(fan_out, roster, continuation, feed, watches))
    app.include_router(access_routes(store.credentials, origins))
    app.include_router(cluster_routes(bus, roster, continuation))
    app.include_router(group_routes(bus, roster, continuation))
    comparer, counting = Comparer(bus, roster, fan_out), Counting(bus, roster, fan_out)
    app.include_router(overview_routes(comparer, counting, roster, continuation))
    app.include_router(audit_routes(audit_entries, auditor, roster, continuation))
    app.include_router(write_routes(bus, roster))
    # Before what takes any word behind an id for the number of a version.
    app.include_router(timeline_routes(bus, continuation))
    app.include_router(verification_routes(bus, continuation))
    app.include_router(rollback_routes(bus))
    app.include_router(snapshot_routes(bus, continuation))
    app.include_router(yaml_routes(bus, roster))
    # Before the routes of backups: what they add under /backup is no id of one.
    app.include_router(backup_policy_routes(bus, roster))
    app.include_router(backup_key_routes(bus))
    app.include_router(backup_rescan_routes(bus, continuation))
    app.include_router(branch_routes(bus, continuation))
    app.include_router(version_routes(bus, continuation))
    app.include_router(restore_routes(bus, continuation))
    app.include_router(keeping_routes(bus, keyring))
    app.include_router(parked_routes(bus))
    sockets = Slots(settings.max_terminals, "terminals")
    app.include_router(terminal_routes(bus, sockets, settings.public_url))
    app.include_router(backup_routes(bus, roster, continuation))
    app.include_router(exec_policy_routes(bus))
    app.include_router(file_routes(bus, continuation))
    app.include_router(container_routes(bus, roster, continuation))
    app.include_router(container_log_routes(bus, continuation))
    app.include_router(log_stream_routes(LogReaders(bus, roster, settings.max_watches), continuation))
    app.include_router(log_search_routes(bus, roster, continuation))
    app.include_router(transfer_routes(bus))
    app.include_router(log_rule_routes(bus, roster))
    metrics = Metrics()
    metrics.watch("kubelore_watches_open", "Live watches open now.", lambda: watches.slots.taken)
    metrics.watch("kubelore_watches_limit", "Live watches that may be open.", lambda: settings.max_watches)
    metrics.watch("kubelore_terminals_open", "Terminals attached to now.", lambda: sockets.taken)
    metrics.watch("kubelore_clusters", "Clusters onboarded, as this gateway knows.", lambda: roster.count())
    app.include_router(metrics_routes(bus, metrics))
    _health(app, bus, roster, store, audit_log)
    serve_pages(app)
    install(app)
    check_audited(app)
    compile_routes(app)
    app.openapi = partial(describe, app)
    # The last is the outermost.
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
    app.add_middleware(Audit, log=audit_log, trusted=settings.trusted_proxies)
    app.add_middleware(Operations)
    app.add_middleware(Limits, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(Tracing)
    return app


def _health(app: FastAPI, bus: Bus, roster: Roster, store: Store, audit_log: AuditLog) -> None:
    async def livez() -> Response:
        return Response("ok", media_type="text/plain")

    async def readyz() -> Response:
        parts = (
            ("bus", bus.connected),
            ("cluster-registry", roster.ready),
            # Once it was open: while it cannot be written, what only reads goes on.
            ("audit", audit_log.opened.is_set()),
            ("database", store.reachable),
        )
        missing = [name for name, fine in parts if not fine]
        text = "ok" if not missing else f"waiting for {', '.join(missing)}"
        return Response(text, 503 if missing else 200, media_type="text/plain")

    for path, answer in (("/livez", livez), ("/readyz", readyz)):
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
