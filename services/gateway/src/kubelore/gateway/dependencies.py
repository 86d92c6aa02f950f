"""What endpoints ask FastAPI for."""

from __future__ import annotations

from fastapi import Depends, Request

from kubelore.gateway.auth import Caller


def _caller(request: Request) -> Caller:
    return request.state.caller


CallerOf = Depends(_caller)
"""The authenticated caller, as the middleware established it."""
