"""What endpoints ask FastAPI for."""

from __future__ import annotations

from fastapi import Depends
from starlette.requests import HTTPConnection

from kubelore.common.authz import Caller
from kubelore.common.errors import Forbidden
from kubelore.gateway.standing import Standing

# Not plain functions: FastAPI would run them in a thread of its pool, for 0.6 ms of every request.


async def _caller(request: HTTPConnection) -> Caller:
    return request.state.caller


async def _standing(request: HTTPConnection) -> Standing:
    return request.state.standing


async def _watching(request: HTTPConnection) -> Standing:
    standing: Standing = request.state.standing
    if not standing.own_origin:
        raise Forbidden(
            "with a cookie, a stream is opened by a page of this Kubelore only",
            remedy="Send the header Origin, or a bearer token.",
            code="ForeignOrigin",
        )
    return standing


CallerOf = Depends(_caller)
"""The authenticated caller, as the middleware established it."""

StandingOf = Depends(_standing)
"""The caller with all that the middleware found out about their credential."""

WatcherOf = Depends(_watching)
"""The standing of whoever opens a stream: it must go on checking it. Raises Forbidden for another site's page."""
