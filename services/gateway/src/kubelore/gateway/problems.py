"""Errors as RFC 9457 problem documents: the one place where an error becomes HTTP."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from kubelore.common.errors import BadRequest, KubeloreError, error_from_parts
from kubelore.common.telemetry import current_trace_id, get_logger

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


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
    code: str | None = Field(None, description="For a refused kubeconfig: the rule that refused it.")
    trace_id: str | None = None


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that answers these errors, besides the ones that all can."""
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {}}}
        for status in (400, 401, 503, 504, *statuses)
    }


def problem_response(error: KubeloreError) -> Response:
    """The HTTP answer for a typed error."""
    body: dict[str, Any] = {
        **error.extra,
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "reason": error.reason,
        "detail": error.detail,
    }
    if error.remedy:
        body["remedy"] = error.remedy
    if trace_id := current_trace_id():
        body["trace_id"] = trace_id
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="kubelore"'
    if retry_after := error.extra.get("retry_after_s"):
        headers["Retry-After"] = str(int(retry_after))
    return Response(msgspec.json.encode(body), error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    @app.exception_handler(KubeloreError)
    async def _typed(_: Request, error: KubeloreError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        faults = [
            {"where": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
            for fault in error.errors()
        ]
        detail = "; ".join(f"{fault['where']}: {fault['message']}" for fault in faults[:5])
        return problem_response(BadRequest(detail, faults=faults[:50]))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase.replace(" ", "")
        response = problem_response(error_from_parts(phrase, error.status_code, str(error.detail)))
        response.status_code = error.status_code
        return response

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> Response:
        return unexpected_response(error)


def unexpected_response(error: Exception) -> Response:
    """An id and nothing of the inside; the log has the rest under that id."""
    error_id = secrets.token_hex(8)
    log.error("unexpected error", error_id=error_id, exc_info=error)
    return problem_response(KubeloreError(f"unexpected error {error_id}", error_id=error_id))
