"""Logs, traces and metrics, configured once per process.

Logs are structlog events, one JSON object a line or coloured text. Traces and
metrics go out over OTLP/HTTP when an endpoint is set, and cost next to nothing
when it is not. A trace travels in the W3C `traceparent` header: from the HTTP
request through the bus to the call of a cluster's API server.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import structlog
from opentelemetry import context as otel_context
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind

from kubelore.common.settings import CommonSettings

_SECRET_KEYS = frozenset(
    {
        "authorization",
        "client_key",
        "client_key_pem",
        "data",
        "kubeconfig",
        "nats_password",
        "object",
        "password",
        "sealed",
        "secret",
        "string_data",
        "stringdata",
        "token",
    }
)
"""Keys of log events whose values are never written, whoever logs them."""

_tracer = trace.get_tracer("kubelore")
meter = metrics.get_meter("kubelore")
"""The meter every service makes its instruments with."""


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if key.lower() in _SECRET_KEYS:
            event[key] = "[redacted]"
    return event


def _add_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = f"{span.trace_id:032x}"
    return event


def configure(service: str, settings: CommonSettings) -> None:
    """Set up logging and, when an endpoint is given, the export of traces and metrics of this process."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    renderer: Any = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        # Its own way to show exceptions tells the values of local variables, and those may be secrets.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            _redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr)
    if settings.otlp_endpoint:
        _export(service, settings.otlp_endpoint.rstrip("/"))


def _export(service: str, endpoint: str) -> None:
    # Imported here: the SDK and the exporter cost 30 MB that a process without an endpoint need not pay.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"kubelore-{service}"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=5)))
    trace.set_tracer_provider(provider)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=5))
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module; call `log.info("what happened", key=value)`."""
    return structlog.get_logger(module=name)


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    carrier: Mapping[str, str] | None = None,
    **attributes: Any,
) -> AbstractContextManager[Span]:
    """One step of a trace; with a `carrier` (headers that arrived) it continues the sender's trace.

    Where traces are not exported nothing but the trace's id is carried on.
    """
    if _exported():
        return _recorded(name, kind, carrier, attributes)
    return _continued(carrier) if carrier else nullcontext(trace.get_current_span())


@contextmanager
def _recorded(
    name: str, kind: SpanKind, carrier: Mapping[str, str] | None, attributes: dict[str, Any]
) -> Iterator[Span]:
    with (
        _continued(carrier),
        _tracer.start_as_current_span(name, kind=kind, attributes=attributes) as current,
    ):
        yield current


@contextmanager
def _continued(carrier: Mapping[str, str] | None) -> Iterator[Span]:
    token = otel_context.attach(propagate.extract(carrier)) if carrier else None
    try:
        yield trace.get_current_span()
    finally:
        if token is not None:
            otel_context.detach(token)


def _exported() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def fresh_parent() -> str:
    """A `traceparent` of a trace that begins here and is not sampled; empty where traces are exported.

    Without an exporter nobody makes ids, and logs, audit and answers want one all the same.
    """
    if _exported():
        return ""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def inject(headers: MutableMapping[str, str]) -> None:
    """Write the current trace into headers about to be sent."""
    propagate.inject(headers)


def outgoing() -> dict[str, str]:
    """Headers that carry the current trace to whoever is called next; empty outside of one."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def current_trace_id() -> str:
    """The id of the current trace as 32 hex digits, empty outside of one."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
