"""The OpenAPI document as the API really answers.

FastAPI describes what it would do by itself: errors as JSON, 422 for a request
that does not validate, nothing of a token that a middleware checks. Here errors
are problem documents, a malformed request is 400, and every call needs the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from kubelore.gateway.problems import MEDIA_TYPE, Problem

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_UNUSED = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an application's routes, made once and kept."""
    if app.openapi_schema is None:
        app.openapi_schema = _corrected(
            get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        )
    return app.openapi_schema


def _corrected(document: dict[str, Any]) -> dict[str, Any]:
    for operation in _operations(document):
        responses = operation["responses"]
        if _schema(responses.get("422", {})) != _PROBLEM:
            responses.pop("422", None)
        if "requestBody" in operation:
            responses["413"] = {"description": "Request Entity Too Large", **_problem()}
        responses["default"] = {"description": "Any other error", **_problem()}
        for response in responses.values():
            if _schema(response) == _PROBLEM:
                response |= _problem()
    schemas = document["components"]["schemas"]
    for name in _UNUSED:
        schemas.pop(name, None)
    schemas.setdefault("Problem", Problem.model_json_schema())
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "The token that `kubelore up` printed."}
    }
    document["security"] = [{"token": []}]
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _schema(response: dict[str, Any]) -> Any:
    return response.get("content", {}).get("application/json", {}).get("schema")


def _problem() -> dict[str, Any]:
    return {"content": {MEDIA_TYPE: {"schema": dict(_PROBLEM)}}}
