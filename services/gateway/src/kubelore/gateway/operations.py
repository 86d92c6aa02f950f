"""Every mutating request and every WebSocket is an operation with an id, which answers tell and all behind can read."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.operations import new_operation_id, operating

HEADER = "Operation-Id"
MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HEADS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
"""Messages that carry the headers of an answer."""


class Operations:
    """ASGI middleware: makes the id, before anything is decided, so that a refusal has one too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run what may change something as an operation; a replayed answer names the operation that it is of."""
        if scope["type"] != "websocket" and scope.get("method") not in MUTATING:
            await self._app(scope, receive, send)
            return
        operation = new_operation_id()

        async def sending(message: Message) -> None:
            if message["type"] in HEADS:
                MutableHeaders(scope=message).setdefault(HEADER, operation)
            await send(message)

        with operating(operation):
            await self._app(scope, receive, sending)
