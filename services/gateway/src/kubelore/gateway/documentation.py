"""The OpenAPI document as the API really answers.

FastAPI describes what it would do by itself: errors as JSON, 422 for a request
that does not validate, nothing of what middleware checks. Here errors are problem
documents, a malformed request is 400, every call needs a token or a session,
and whatever changes something takes an Idempotency-Key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from kubelore.gateway.idempotency import KEY_HEADER
from kubelore.gateway.operations import MUTATING
from kubelore.gateway.origins import Origins
from kubelore.gateway.problems import MEDIA_TYPE, REFERENCE, Problem

_UNUSED = ("HTTPValidationError", "ValidationError")

_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token, the administrator's token, or a token of the OpenID provider.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": Origins().cookie,
        "description": "A browser's session; its name begins with `__Host-` where KUBELORE_PUBLIC_URL is https. "
        "All but GET needs the header X-CSRF-Token and an Origin of our own.",
    },
}

_IDEMPOTENCY_KEY = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "description": "The same request with the same key is done once, and answered the same for 24 hours.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an application's routes, made once and kept."""
    if app.openapi_schema is None:
        app.openapi_schema = _corrected(
            get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        )
    return app.openapi_schema


def _corrected(document: dict[str, Any]) -> dict[str, Any]:
    for method, operation in _operations(document):
        responses = operation["responses"]
        if method.upper() in MUTATING:
            operation.setdefault("parameters", []).append(dict(_IDEMPOTENCY_KEY))
            responses.setdefault("409", {"description": "Conflict", **_problem()})
        if MEDIA_TYPE not in responses.get("422", {}).get("content", {}):
            responses.pop("422", None)
        if "requestBody" in operation:
            responses["413"] = {"description": "Request Entity Too Large", **_problem()}
        responses["default"] = {"description": "Any other error", **_problem()}
    schemas = document["components"]["schemas"]
    for name in _UNUSED:
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema(mode="serialization")
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["components"]["securitySchemes"] = _SCHEMES
    document["security"] = [{"token": []}, {"session": []}]
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in document["paths"].values():
        yield from path.items()


def _problem() -> dict[str, Any]:
    return {"content": {MEDIA_TYPE: {"schema": dict(REFERENCE)}}}
