"""Limits on what comes in and headers on what goes out, for every request alike."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.errors import TooLarge
from kubelore.gateway.problems import problem_response
from kubelore.gateway.streamed import takes_a_stream

BODY_DEADLINE_S = 30.0
"""A body that is not here after this long is not waited for any more, nor a streamed one of which nothing came."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Pages bring a Content-Security-Policy of their own, which lets in their own script and nothing else."""

_MAX_DIGITS = 18


class Limits:
    """ASGI middleware: refuses bodies over a size or a time, counted as they arrive, and adds security headers."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_deadline_s: float = BODY_DEADLINE_S) -> None:
        self._app = app
        self._max = max_body_bytes
        self._deadline_s = body_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        if takes_a_stream(scope):
            await self._app(scope, self._patient(receive), send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or len(declared) > _MAX_DIGITS or int(declared) > self._max:
            await problem_response(TooLarge(self._detail, remedy="Send less at once."))(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    @property
    def _detail(self) -> str:
        return f"the body is larger than {self._max} bytes"

    def _patient(self, receive: Receive) -> Receive:
        """`receive` for a body of any length that somebody takes piece by piece: only silence ends it."""
        whole = False

        async def patient() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            message = await _within(self._deadline_s, receive)
            whole = not message.get("more_body", False)
            return message

        return patient

    def _counted(self, receive: Receive) -> Receive:
        """`receive`, raising what FastAPI passes on unchanged while it reads a body: an HTTPException."""
        seen = 0
        whole = False
        until = 0.0

        async def counted() -> Message:
            nonlocal seen, whole, until
            if whole:
                return await receive()
            now = asyncio.get_running_loop().time()
            until = until or now + self._deadline_s
            message = await _within(until - now, receive)
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._max:
                raise HTTPException(413, self._detail)
            return message

        return counted


async def _within(seconds: float, receive: Receive) -> Message:
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError as error:
        raise HTTPException(408, "the body was not sent in time") from error


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", ())}
            missing = [header for header in _HEADERS if header[0] not in there]
            message["headers"] = [*message.get("headers", ()), *missing]
        await send(message)

    return sending
