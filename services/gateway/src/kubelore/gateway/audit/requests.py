"""How requests come into the audit log.

Every route that changes something declares its action by `audited`: the intent
is on disk before the endpoint runs, and its end before the answer goes out. An
application with a route that declares none does not start (`check_audited`).
The middleware writes the ends, and the refusals of whoever got no further.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.authz import Caller
from kubelore.common.errors import KubeloreError
from kubelore.common.operations import current_operation
from kubelore.common.telemetry import current_trace_id, get_logger
from kubelore.gateway.audit.entries import (
    MAX_NAME,
    MAX_RESOURCE,
    MAX_USER_AGENT,
    REFUSED,
    Entry,
    Outcome,
    cluster_of,
    one_line,
    outcome_of,
)
from kubelore.gateway.audit.log import AuditLog
from kubelore.gateway.dependencies import WatcherOf
from kubelore.gateway.source_address import Network, source_address

log = get_logger(__name__)

MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
AUTHENTICATE = "authenticate"
UNROUTED = "request"
CONNECT = "connect"
_REASONS = {401: "Unauthorized", 403: "Forbidden", 429: "TooManyRequests"}


@dataclass
class Act:
    """One thing that a request does. Its intent is on disk; say how it ended by `settle`.

    What is not settled ends as the whole request did.
    """

    action: str
    resource: str
    id: str
    outcome: Outcome | None = None
    status: int = 0
    reason: str = ""

    def settle(self, status: int, reason: str = "") -> None:
        """It ended with what an HTTP status says, and for an error its machine-readable reason."""
        self.outcome, self.status, self.reason = outcome_of(status), status, reason

    def fail(self, error: KubeloreError) -> None:
        """It ended with a typed error."""
        self.settle(error.status, error.reason)


@dataclass
class _Request:
    """What is known of the request at hand, and what it does."""

    log: AuditLog
    scope: Scope
    trusted: Sequence[Network]
    began: float = field(default_factory=time.monotonic)
    acts: list[Act] = field(default_factory=list)
    told: bool = False
    """Whether refusals of its parts are on record, which say more than its answer does."""
    operation_id: str = ""

    def entry(self, action: str, outcome: Outcome, **more: Any) -> Entry:
        caller: Caller | None = self.scope.get("state", {}).get("caller")
        resource = one_line(more.pop("resource", ""), MAX_RESOURCE)
        return Entry(
            at=round(self.log.clock(), 3),
            action=action,
            outcome=outcome,
            actor=one_line(caller.subject, MAX_NAME) if caller else "",
            credential=one_line(caller.credential, MAX_NAME) if caller else "",
            resource=resource,
            cluster=cluster_of(resource),
            address=one_line(source_address(self.scope, self.trusted), MAX_NAME),
            user_agent=one_line(Headers(scope=self.scope).get("user-agent", ""), MAX_USER_AGENT),
            operation_id=self.operation_id or current_operation(),
            trace_id=current_trace_id(),
            **more,
        )

    def ends(self, status: int, reason: str) -> Iterator[Entry]:
        took_ms = round((time.monotonic() - self.began) * 1000)
        for act in self.acts:
            if act.outcome is None:
                act.settle(status, reason)
            yield self.entry(
                act.action,
                act.outcome or "unknown",
                resource=act.resource,
                status=act.status,
                reason=one_line(act.reason, MAX_NAME),
                took_ms=took_ms,
                closes=act.id,
            )

    async def answered(self, status: int, reason: str) -> None:
        """Write how the request ended; `reason` is what the problem document says."""
        if self.acts:
            try:
                await self.log.conclude(list(self.ends(status, reason)))
            except KubeloreError as error:
                # The effect is there, and its intent on record: whoever waits is told what happened.
                log.error("an end is not in the audit log yet", error=error.detail)
        elif self.told:
            return
        elif status in REFUSED:
            reason = reason or _REASONS[status]
            self.log.refuse(self._unacted(status, "refused", reason))
        elif self.scope.get("method") in MUTATING and status != 503:
            # It came no further than to be looked at, or its answer was known already.
            self.log.later(self._unacted(status, outcome_of(status), reason))

    def unanswered(self) -> None:
        """The request ended without any answer."""
        for entry in self.ends(_LOST, "Unanswered"):
            self.log.later(entry)

    def _unacted(self, status: int, outcome: Outcome, reason: str) -> Entry:
        """What is told of a request that came to no act: which route it was for, and what its path names."""
        route = self.scope.get("route")
        if isinstance(route, APIWebSocketRoute) or (
            isinstance(route, APIRoute) and self.scope.get("method") in (route.methods or ())
        ):
            action, resource = action_of(route), resource_of(route, self.scope.get("path_params", {}))
        elif status == 401:
            action, resource = AUTHENTICATE, ""
        else:
            # Refused before anybody looked for its route, as to a cookie that another site's page sent along.
            action, resource = UNROUTED, f"{self.scope.get('method', CONNECT)} {self.scope['path']}"
        return self.entry(action, outcome, resource=resource, status=status, reason=reason)


_LOST = 504
_request: ContextVar[_Request | None] = ContextVar("audited_request", default=None)


class Audited:
    """The dependency that writes an intent; made by `audited`."""

    def __init__(self, action: str, path: str, body: str, of: str, itemised: bool) -> None:
        self.action = action
        self._path = path
        self._body = body
        self._of = of
        self._itemised = itemised

    async def __call__(self, request: HTTPConnection) -> None:
        """Write the intent before the endpoint runs. Raises AuditUnavailable."""
        if not self._itemised:
            await intend([(self.action, await self._resource(request))])

    async def _resource(self, request: HTTPConnection) -> str:
        if not self._body or not isinstance(request, Request):
            return self.in_path(request.path_params)
        name = _member(await request.body(), self._body)
        return f"{self._of}/{name}" if self._of else name

    def in_path(self, params: Mapping[str, Any]) -> str:
        """What a path names: the declared parameter, or for want of one the first."""
        found = params.get(self._path) if self._path else next(iter(params.values()), "")
        return f"{self._of}/{found or ''}" if self._of else str(found or "")


_UNDECLARED = Audited("", "", "", "", False)


def _member(body: bytes, name: str) -> str:
    """A text in a body that was read but not checked yet; an endpoint that it does not fit is not reached."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def audited(action: str, *, path: str = "", body: str = "", of: str = "", itemised: bool = False) -> Any:
    """The dependency for a route that changes something; `action` is `<things>.<verb>`, as `clusters.add`.

    The resource is what the parameter `path` of its path holds, or the member
    `body` of its body: a cluster's name or a resource id. Other things are named
    `<of>/<name>`: `audited("tokens.revoke", path="id", of="tokens")`. With
    `itemised` the endpoint itself calls `intend` for what it is about to do.
    """
    return Depends(Audited(action, path, body, of, itemised))


async def intend(acts: Sequence[tuple[str, str]]) -> list[Act]:
    """Write what is about to be done, as (action, resource): on disk when this returns, before any effect.

    Tell of each `Act` how it ended; the ends are written before the request is
    answered. Raises AuditUnavailable, and then nothing may be done.
    """
    request = _request.get()
    if request is None:
        raise RuntimeError("nothing is audited outside of a request")
    entries = [request.entry(action, "unknown", resource=resource) for action, resource in acts]
    ids = await request.log.intend(entries) if entries else []
    made = [Act(entry.action, entry.resource, id_) for entry, id_ in zip(entries, ids, strict=True)]
    request.acts += made
    return made


def refuse(action: str, resource: str, error: KubeloreError) -> None:
    """Put on record that a part of the request was refused which would have changed nothing, as in a dry run.

    Refusals that repeat are counted; what was refused for another reason than a right is left out.
    """
    request = _request.get()
    if request is None:
        raise RuntimeError("nothing is audited outside of a request")
    if error.status in REFUSED:
        reason = one_line(error.reason, MAX_NAME)
        entry = request.entry(action, "refused", resource=resource, status=error.status, reason=reason)
        request.log.refuse(entry)
        request.told = True


def action_of(route: APIRoute | APIWebSocketRoute) -> str:
    """The declared action of a route; of one that changes nothing its tag and name."""
    if (declared := _declared(route)) is not None:
        return declared.action
    tags = route.tags if isinstance(route, APIRoute) else [CONNECT]
    tag = str(tags[0]) if tags else UNROUTED
    return f"{tag}.{route.name}"


def resource_of(route: APIRoute | APIWebSocketRoute, params: Mapping[str, Any]) -> str:
    """What a path of the route names, without a look into any body; empty when that is nothing."""
    if not params:
        return ""
    return (_declared(route) or _UNDECLARED).in_path(params)


def _declared(route: APIRoute | APIWebSocketRoute) -> Audited | None:
    calls = (dependency.call for dependency in route.dependant.dependencies)
    return next((call for call in calls if isinstance(call, Audited)), None)


def check_audited(app: FastAPI) -> None:
    """Raise TypeError for a route that may change something and declares no action.

    A WebSocket may, but for one whose caller is taken for a watcher (`WatcherOf`).
    """
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            changes = bool(MUTATING & set(route.methods or ()))
        elif isinstance(route, APIWebSocketRoute):
            calls = [dependency.call for dependency in route.dependant.dependencies]
            changes = WatcherOf.dependency not in calls
        else:
            continue
        if changes and _declared(route) is None:
            raise TypeError(f"{route.path} changes something: declare its action by audit.audited(...)")


def routes_of(app: FastAPI) -> Iterator[APIRoute]:
    """Every endpoint of an application."""
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute):
            yield context.original_route


class Audit:
    """ASGI middleware around authentication: sees every answer before it goes out, and says how it ended."""

    def __init__(self, app: ASGIApp, log: AuditLog, trusted: Sequence[Network] = ()) -> None:
        self._app = app
        self._log = log
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = _Request(self._log, scope, self._trusted, operation_id=current_operation())
        before = _request.set(request)
        sending = _Answer(request, send) if scope["type"] == "http" else _Handshake(request, send)
        try:
            await self._app(scope, receive, sending)
            if isinstance(sending, _Handshake):
                await sending.ended()
        finally:
            _request.reset(before)
            if not sending.answered:
                request.unanswered()


class _Answer:
    """Holds an answer back until the log has its end; of an error until its body tells the reason."""

    def __init__(self, request: _Request, send: Send) -> None:
        self._request = request
        self._send = send
        self._held: Message | None = None
        self.answered = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._held = message
            return
        if not self.answered:
            start = self._held or message
            self.answered = True
            await self._request.answered(start["status"], _reason(message) if self._held else "")
            if self._held is not None:
                await self._send(self._held)
        await self._send(message)


class _Handshake:
    """Sees a WebSocket that is refused before it is accepted; what an accepted one does ends when it does."""

    def __init__(self, request: _Request, send: Send) -> None:
        self._request = request
        self._send = send
        self._refused: Message | None = None
        self._accepted = False
        self.answered = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.http.response.start":
            self._refused = message
            return
        if kind == "websocket.accept":
            self._accepted = True
        elif not self._accepted and not self.answered:
            self.answered = True
            status = self._refused["status"] if self._refused else 403
            await self._request.answered(status, _reason(message))
            if self._refused is not None:
                await self._send(self._refused)
        await self._send(message)

    async def ended(self) -> None:
        """The socket was served to its end."""
        if self._accepted:
            self.answered = True
            await self._request.answered(101, "")


def _reason(message: Message) -> str:
    """What a problem document says; nothing for any other body."""
    return _member(message.get("body", b""), "reason")
