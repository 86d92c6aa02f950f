"""Every mutating request is an operation with an id, which its answer tells and everything behind it can read."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.operations import new_operation_id, operating

HEADER = "Operation-Id"
MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Operations:
    """ASGI middleware: makes the id, before anything is decided, so that a refusal has one too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a mutating request as an operation; a replayed answer names the operation that it is of."""
        if scope["type"] != "http" or scope["method"] not in MUTATING:
            await self._app(scope, receive, send)
            return
        operation = new_operation_id()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(HEADER, operation)
            await send(message)

        with operating(operation):
            await self._app(scope, receive, sending)
