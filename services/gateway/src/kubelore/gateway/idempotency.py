"""`Idempotency-Key`: a request that is sent again is not done again, but answered as the first one was.

The key is taken by inserting a document that only one can insert, before
anything is done; what the request answered is kept beside it for 24 hours,
sealed, since it may hold a new token's secret. A key belongs to its caller and
to one request: method, path, query and body. While the first request runs, its
replica says every few seconds that it lives; when that stops, nobody knows how
far it came, and that is what a retry is told (docs/decisions/0064).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.authz import Caller
from kubelore.common.crypto import Sealer
from kubelore.common.errors import BadRequest, Conflict, IntegrityError, KubeloreError
from kubelore.common.operations import current_operation
from kubelore.common.telemetry import get_logger
from kubelore.gateway.operations import HEADER as OPERATION_HEADER
from kubelore.gateway.operations import MUTATING
from kubelore.gateway.problems import problem_response, status_problem
from kubelore.gateway.repository import Attempt, AttemptRepository
from kubelore.gateway.streamed import takes_a_stream

log = get_logger(__name__)

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
KEPT_S = 24 * 3600
ALIVE_S = 20.0
"""A request whose replica has not said for so long that it runs is taken for dead."""
RENEW_S = 5.0
MAX_KEPT_BYTES = 4 * 1024 * 1024
"""A longer answer is passed on as it comes, and not kept: a retry is told only that it was done."""
RETRY_AFTER_S = 2

RUNNING, DONE, UNKNOWN, TOO_LARGE = "running", "done", "unknown", "too-large"

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NOT_BEGUN = frozenset({408, 425, 429})
_HOP_HEADERS = frozenset({b"content-length", b"connection", b"date", b"transfer-encoding"})


class _Answer(msgspec.Struct, array_like=True):
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Idempotency:
    """ASGI middleware, behind authentication. `clock` tells seconds since 1970."""

    def __init__(
        self,
        app: ASGIApp,
        attempts: AttemptRepository,
        sealer: Sealer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._attempts = attempts
        self._sealer = sealer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do a request with a key once."""
        key = Headers(scope=scope).get(KEY_HEADER) if scope["type"] == "http" else None
        if key is None or scope["method"] not in MUTATING or not _served(scope):
            await self._app(scope, receive, send)
            return
        try:
            if not _KEY.fullmatch(key):
                raise BadRequest(
                    f"{KEY_HEADER} is 1 to 255 printable characters",
                    remedy="Use a random UUID for each request.",
                )
            # What is handed on while it comes is told apart by its path, query and type alone.
            body = None if takes_a_stream(scope) else await _whole(receive)
            mine = self._attempt(scope, key, body or b"")
            other = await self._attempts.begin(mine)
            if other is not None:
                await self._replay(other, mine, send)
                return
        except HTTPException as error:
            await status_problem(error.status_code, str(error.detail), error.headers)(scope, receive, send)
            return
        except KubeloreError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self._first(mine, body, scope, receive, send)

    def _attempt(self, scope: Scope, key: str, body: bytes) -> Attempt:
        caller: Caller = scope["state"]["caller"]
        now = self._now()
        request = [
            scope["method"],
            scope["path"],
            scope.get("query_string", b""),
            Headers(scope=scope).get("content-type", ""),
            body,
        ]
        return Attempt(
            id=_hash([caller.subject, caller.credential, key]).hex(),
            # Hashed together with the key, which is not kept: from the hash alone nobody can guess at the body.
            fingerprint=_hash([key, *request]),
            operation=current_operation(),
            state=RUNNING,
            alive_until=now + timedelta(seconds=ALIVE_S),
            expires_at=now + timedelta(seconds=KEPT_S),
        )

    async def _first(
        self, mine: Attempt, body: bytes | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        recorder = _Recorder(send)
        try:
            async with self._kept_alive(mine):
                await self._app(scope, receive if body is None else _given(body, receive), recorder)
        except BaseException:
            await self._note(mine, {"state": UNKNOWN})
            raise
        await self._keep(mine, recorder)
        await recorder.release()

    async def _keep(self, mine: Attempt, recorder: _Recorder) -> None:
        """Write down how it ended before anybody is told, so that what was told is what a retry gets."""
        if recorder.not_begun:
            await self._note(mine, None)
        elif recorder.passed_on or recorder.secret:
            await self._note(mine, {"state": TOO_LARGE, "status": recorder.status})
        else:
            kept = msgspec.msgpack.encode(_Answer(recorder.headers, bytes(recorder.body)))
            sealed = self._sealer.seal(kept, context=f"attempt:{mine.id}")
            await self._note(mine, {"state": DONE, "status": recorder.status, "sealed": sealed})

    async def _note(self, mine: Attempt, changes: dict[str, object] | None) -> None:
        try:
            if changes is None:
                await self._attempts.release(mine)
            else:
                await self._attempts.finish(mine, changes)
        except KubeloreError as error:
            # The caller has their answer; a retry will be told that nobody knows.
            log.warning("answer not kept", operation=mine.operation, error=error.reason)

    async def _replay(self, first: Attempt, mine: Attempt, send: Send) -> None:
        if first.fingerprint != mine.fingerprint:
            raise Conflict(
                f"the {KEY_HEADER} was used for another request",
                remedy="Use a new key for each request, and the same one only to send the same again.",
                code="IdempotencyKeyReused",
            )
        if first.state == RUNNING and first.alive_until > self._now():
            raise Conflict(
                "the first request with this key is still under way",
                remedy="Ask again in a moment, with the same key.",
                code="OperationUnderWay",
                operation_id=first.operation,
                retry_after_s=RETRY_AFTER_S,
            )
        if first.state == TOO_LARGE:
            raise Conflict(
                f"the first request with this key was answered {first.status}, by what is not kept",
                remedy="Read what is there now.",
                code="AnswerNotKept",
                outcome="done",
                operation_id=first.operation,
            )
        if first.state != DONE:
            raise Conflict(
                "the first request with this key broke off: whether it was done is not known",
                remedy="Look at what is there now, then send it with a new key if it is still needed.",
                code="OutcomeUnknown",
                outcome="unknown",
                operation_id=first.operation,
            )
        answer = self._opened(first)
        headers = [
            *answer.headers,
            (OPERATION_HEADER.lower().encode(), first.operation.encode()),
            (REPLAYED_HEADER.lower().encode(), b"true"),
            (b"content-length", str(len(answer.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": first.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _opened(self, first: Attempt) -> _Answer:
        try:
            sealed = self._sealer.open(first.sealed, context=f"attempt:{first.id}")
            return msgspec.msgpack.decode(sealed, type=_Answer)
        except (IntegrityError, msgspec.MsgspecError) as error:
            raise Conflict(
                "the answer to the first request with this key cannot be read any more",
                remedy="Look at what is there now.",
                code="AnswerNotKept",
                outcome="done",
                operation_id=first.operation,
            ) from error

    @asynccontextmanager
    async def _kept_alive(self, mine: Attempt) -> AsyncGenerator[None]:
        renewing = asyncio.create_task(self._renew(mine))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self, mine: Attempt) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._attempts.alive(mine, self._now() + timedelta(seconds=ALIVE_S))
            except KubeloreError as error:
                log.warning("operation not renewed", operation=mine.operation, error=error.reason)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


class _Recorder:
    """Holds an answer back until it is whole and kept, or passes it on when it is too long for that."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.passed_on = False
        self.secret = False
        """Whether the endpoint says itself that nobody may keep its answer."""
        self._may_retry = False

    @property
    def not_begun(self) -> bool:
        """Whether the answer says that nothing was done and that the same may be sent again."""
        return self.status in _NOT_BEGUN or self._may_retry

    async def __call__(self, message: Message) -> None:
        """One message of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self.headers = [header for header in given if header[0].lower() not in _HOP_HEADERS]
            self.secret = (b"cache-control", b"no-store") in self.headers
            self._may_retry = any(name.lower() == b"retry-after" for name, _ in given)
        self._held.append(message)
        if message["type"] == "http.response.body" and not self.passed_on:
            self.body += message.get("body", b"")
            self.passed_on = len(self.body) > MAX_KEPT_BYTES
        if self.passed_on:
            self.body.clear()
            await self.release()

    async def release(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for message in held:
            await self._send(message)


def _served(scope: Scope) -> bool:
    """Whether there is anything to do: a path or a method that nobody serves is told so, whatever the key."""
    app = scope.get("app")
    routes = app.router.routes if app is not None else ()
    known = app is None or any(route.matches(scope)[0] is Match.FULL for route in routes)
    return known and scope["path"].startswith("/api/")


async def _whole(receive: Receive) -> bytes:
    """The body of a request, whose size `Limits` bounds."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException(400, "the connection ended before the body did")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _given(body: bytes, receive: Receive) -> Receive:
    """`receive` that has the body again, and then whatever comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _hash(parts: list[str | bytes]) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()
