"""A query parameter that nobody knows is refused: a typo must not answer another question than was asked."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection

from kubelore.common.errors import BadRequest

_SHOWN = 80

_known: dict[Callable[..., Any], dict[str, bool]] = {}
"""By endpoint, of which there are as many as routes."""


async def _known_names(request: HTTPConnection) -> None:
    route = request.scope.get("route")
    if not isinstance(route, APIRoute | APIWebSocketRoute) or not request.scope["query_string"]:
        return
    if isinstance(route, APIRoute) and not route.include_in_schema:
        return
    known = _known.get(route.endpoint)
    if known is None:
        known = _known[route.endpoint] = _names(route)
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            raise _unknown(name, known)
        if given.count(name) > 1 and not known[name]:
            raise BadRequest(
                f"the query parameter {name!r} was given more than once",
                remedy="Give it once; several values are separated by commas.",
            )


KnownQuery = Depends(_known_names)
"""For the application, so that it holds for every endpoint of the API, those added later too."""


def _unknown(name: str, known: dict[str, bool]) -> BadRequest:
    shown = name[:_SHOWN].encode(errors="replace").decode()
    near = difflib.get_close_matches(name[:_SHOWN], known, n=1)
    remedy = "It takes none." if not known else f"It takes {', '.join(sorted(known))}."
    return BadRequest(
        f"the query parameter {shown!r} is not known here",
        remedy=f"Did you mean {near[0]!r}?" if near else remedy,
        parameter=shown,
    )


def _names(route: APIRoute | APIWebSocketRoute) -> dict[str, bool]:
    """The names an endpoint takes, and whether it takes one several times."""
    found: dict[str, bool] = {}
    waiting: list[Dependant] = [route.dependant]
    while waiting:
        dependant = waiting.pop()
        waiting += dependant.dependencies
        for field in dependant.query_params:
            found[field.alias] = "list" in str(field.field_info.annotation).lower()
    return found
