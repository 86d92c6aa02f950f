"""`GET /metrics` in Prometheus' text format: this gateway's requests and streams, and every service's endpoints.

Labels hold templates of paths, names of services and ids of replicas: never a
name of an object, and nothing that a client could make up more of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.bus.figures import ServiceFigures, service_figures
from kubelore.common.errors import Forbidden, KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.gateway.dependencies import CallerOf

log = get_logger(__name__)

FRESH_S = 5.0
"""How long the services' figures serve: whoever scrapes more often asks the bus no more often."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BODY_TOO_LARGE, _TOO_MANY = 413, 429


class Metrics:
    """The figures of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "kubelore_http_requests",
            "Requests answered, by method, template of the path and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "kubelore_http_request_duration_seconds",
            "From a request's head to the head of its answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "kubelore_http_requests_in_flight",
            "Requests whose answer has not ended; live watches among them.",
            registry=self.registry,
        )
        self._bodies_refused = Counter(
            "kubelore_http_bodies_refused",
            "Requests answered 413: their body, or what they asked for, was too large.",
            registry=self.registry,
        )
        self._rate_limited = Counter(
            "kubelore_http_rate_limited",
            "Requests answered 429: too many of them, or too many watches.",
            registry=self.registry,
        )

    def watch(self, name: str, said: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, said, registry=self.registry).set_function(value)

    def began(self) -> float:
        """Note that a request has begun; returns its time."""
        self._in_flight.inc()
        return time.perf_counter()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note the head of an answer."""
        self._requests.labels(method, route, str(status)).inc()
        self._durations.labels(method, route).observe(seconds)
        if status == _BODY_TOO_LARGE:
            self._bodies_refused.inc()
        elif status == _TOO_MANY:
            self._rate_limited.inc()

    def ended(self) -> None:
        """Note that a request is over, however it ended."""
        self._in_flight.dec()


class Measured:
    """ASGI middleware around everything else that answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._metrics.began()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = time.perf_counter() - begun
                self._metrics.answered(_method(scope), _route(scope), message["status"], took)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.ended()


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    """The template that answered; one word for whatever has none, since anybody may make up paths."""
    return getattr(scope.get("route"), "path", "") or "unmatched"


class ServicesCollector(Collector):
    """The figures of all services, as they were last heard."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._latest: list[ServiceFigures] = []
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def refresh(self) -> None:
        """Ask the services, unless what is known is fresh. While the bus is away there are none."""
        async with self._asking:
            if time.monotonic() - self._asked_at < FRESH_S:
                return
            try:
                self._latest = await service_figures(self._bus)
            except KubeloreError as error:
                log.info("figures not read", detail=error.detail)
                self._latest = []
            self._asked_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """Called while the metrics are written; asks nobody."""
        replicas = GaugeMetricFamily(
            "kubelore_replicas", "Replicas of a service that answer on the bus.", labels=("service",)
        )
        handled = CounterMetricFamily(
            "kubelore_endpoint_requests",
            "Requests on the bus since the start of a replica: served, failed, or refused as it was busy.",
            labels=("service", "replica", "endpoint", "outcome"),
        )
        in_flight = GaugeMetricFamily(
            "kubelore_endpoint_requests_in_flight",
            "Requests that a replica works on or lets wait.",
            labels=("service", "replica", "endpoint"),
        )
        counts: dict[str, int] = {}
        for service in self._latest:
            counts[service.name] = counts.get(service.name, 0) + 1
            for endpoint in service.endpoints:
                who, data = (service.name, service.replica, endpoint.name), endpoint.data
                for outcome in ("served", "failed", "refused"):
                    handled.add_metric((*who, outcome), getattr(data, outcome))
                in_flight.add_metric(who, data.in_flight)
        for name, count in sorted(counts.items()):
            replicas.add_metric((name,), count)
        yield from (replicas, handled, in_flight)


def metrics_routes(bus: Bus, metrics: Metrics) -> APIRouter:
    """`/metrics`, for whoever may read everything: an administrator's token, or a viewer's on all clusters."""
    services = ServicesCollector(bus)
    metrics.registry.register(services)
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def scrape(caller: Caller = CallerOf) -> Response:
        if not caller.unrestricted:
            raise Forbidden(
                f"{caller.subject} may not read the metrics",
                remedy="That needs the role viewer on the clusters * and the namespaces *.",
            )
        await services.refresh()
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
