"""Every request, and every WebSocket, is a span, and continues the trace that its client may have begun."""

from __future__ import annotations

from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.telemetry import current_trace_id, fresh_parent, span
from kubelore.gateway.operations import HEADS


class Tracing:
    """ASGI middleware around everything else; answers carry the trace's id in `Trace-Id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request inside a span."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        carrier = {
            name: value
            for name, value in Headers(scope=scope).items()
            if name in ("traceparent", "tracestate")
        }
        if "traceparent" not in carrier and (parent := fresh_parent()):
            carrier["traceparent"] = parent
        method = scope.get("method", "WEBSOCKET")
        with span(method, kind=SpanKind.SERVER, carrier=carrier) as current:

            async def sending(message: Message) -> None:
                if message["type"] in HEADS:
                    status = message.get("status", 101)
                    current.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        current.set_status(Status(StatusCode.ERROR))
                    if trace_id := current_trace_id():
                        message["headers"] = [*message.get("headers", ()), (b"trace-id", trace_id.encode())]
                await send(message)

            try:
                await self._app(scope, receive, sending)
            finally:
                # Known only now. The template, never the path: it holds names, and anybody may make up more.
                if template := getattr(scope.get("route"), "path", ""):
                    current.update_name(f"{method} {template}")
                    current.set_attribute("http.route", template)
