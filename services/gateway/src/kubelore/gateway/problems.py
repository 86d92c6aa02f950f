"""Errors as RFC 9457 problem documents: the one place where an error becomes HTTP."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelore.common.errors import BadRequest, KubeloreError
from kubelore.common.telemetry import current_trace_id, get_logger

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
REFERENCE = {"$ref": "#/components/schemas/Problem"}
"""`Problem` in the OpenAPI document."""

_SHOWN_FAULTS = 20
_SHOWN_CHARACTERS = 200
"""Of what a client sent wrong, this much is repeated to it."""
_MAX_RETRY_S = 3600


class Problem(BaseModel):
    """What every error answers (RFC 9457), with the Kubernetes reason and a remedy."""

    type: str = Field("about:blank", description="Always about:blank: `reason` tells the kinds apart.")
    title: str = Field(description="The HTTP status in words.")
    status: int
    reason: str = Field(
        description="Machine-readable, as in a Kubernetes Status: NotFound, Conflict, Invalid ..."
    )
    detail: str = Field(description="What went wrong, for a person.")
    remedy: str | None = Field(None, description="What to do about it.")
    code: str | None = Field(
        None, description="Which rule refused it, where a reason has several: of a kubeconfig, of a retry ..."
    )
    operation_id: str | None = Field(None, description="Of a retried request: the operation it began.")
    outcome: Literal["done", "unknown"] | None = Field(
        None, description="Of a retried request whose answer is not there: what is known of it."
    )
    trace_id: str | None = None


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that answers these errors, besides the ones that all can.

    By reference: FastAPI would make a serializer of a model for each route and status, 0.4 s of every start.
    """
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": dict(REFERENCE)}},
        }
        for status in (400, 401, 403, 429, 503, 504, *statuses)
    }


def problem_response(error: KubeloreError) -> Response:
    """The HTTP answer for a typed error."""
    headers = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="kubelore"'
    after = error.extra.get("retry_after_s")
    if isinstance(after, int | float) and 0 < after < math.inf:
        headers["Retry-After"] = str(min(math.ceil(after), _MAX_RETRY_S))
    said = {"reason": error.reason, "detail": error.detail}
    if error.remedy:
        said["remedy"] = error.remedy
    return _problem(error.status, {**error.extra, **said}, headers)


def status_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP answer for a fault of HTTP itself, whose reason is the status in words."""
    reason = HTTPStatus(status).phrase.replace(" ", "").replace("-", "")
    return _problem(status, {"reason": reason, "detail": detail}, headers)


def _problem(status: int, members: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body = {**members, "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if trace_id := current_trace_id():
        body["trace_id"] = trace_id
    return Response(msgspec.json.encode(body, enc_hook=str), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error that the application raises on purpose with a problem document."""

    @app.exception_handler(KubeloreError)
    async def _typed(_: HTTPConnection, error: KubeloreError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(WebSocketRequestValidationError)
    async def _invalid(
        _: HTTPConnection, error: RequestValidationError | WebSocketRequestValidationError
    ) -> Response:
        faults = [
            {"where": _shown(".".join(str(part) for part in fault["loc"])), "message": _shown(fault["msg"])}
            for fault in error.errors()[:_SHOWN_FAULTS]
        ]
        detail = "; ".join(f"{fault['where']}: {fault['message']}" for fault in faults[:5])
        return problem_response(BadRequest(detail, faults=faults))

    @app.exception_handler(HTTPException)
    async def _http(_: HTTPConnection, error: HTTPException) -> Response:
        return status_problem(error.status_code, str(error.detail), error.headers)


def _shown(text: str) -> str:
    """What a client wrote, cut short and without halves of surrogate pairs, which JSON cannot carry."""
    return text[:_SHOWN_CHARACTERS].encode(errors="replace").decode()


class Boundary:
    """ASGI middleware: an error that nobody expected ends here, logged under an id; only the id goes out.

    It stands inside the middleware that adds headers and traces, so that this
    answer has them too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer it when it fails before anything was sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            error_id = secrets.token_hex(8)
            log.error("unexpected error", error_id=error_id, exc_info=error)
            if started:
                # Half an answer is out: only a cut connection tells that it is not whole.
                raise
            shown = KubeloreError(
                f"unexpected error {error_id}", remedy="Look for this id in the log.", error_id=error_id
            )
            await problem_response(shown)(scope, receive, send)
