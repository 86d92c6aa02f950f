"""What endpoints ask FastAPI for."""

from __future__ import annotations

from fastapi import Depends, Request

from kubelore.common.authz import Caller


async def _caller(request: Request) -> Caller:
    # Not a plain function: FastAPI would run it in a thread of its pool, for 0.6 ms of every request.
    return request.state.caller


CallerOf = Depends(_caller)
"""The authenticated caller, as the middleware established it."""
