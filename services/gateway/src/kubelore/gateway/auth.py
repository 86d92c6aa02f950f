"""Who is calling: the bearer token, compared in constant time. From here on the request acts as that caller.

Authentication stands in front of the whole application, so that an endpoint
added later cannot be forgotten: only the paths named here answer without it.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.callers import acting_as
from kubelore.common.errors import Unauthenticated
from kubelore.gateway.problems import problem_response

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs"})
"""Health endpoints, and two static pages that hold no data (they ask for a token to show any)."""


_POLICY_VIOLATION = 1008


class Authentication:
    """ASGI middleware: refuses whoever lacks the administrator's token, and names the caller to the rest."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._digest = hashlib.sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let open paths and the token's bearer through; answer 401 to everybody else."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        problem = self._refusal(Headers(scope=scope).get("authorization", ""))
        if problem is None:
            scope.setdefault("state", {})["caller"] = ADMINISTRATOR
            with acting_as(ADMINISTRATOR):
                await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await problem_response(problem)(scope, receive, send)
        else:
            # Closed before it was accepted: the server answers the handshake with 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    def _refusal(self, header: str) -> Unauthenticated | None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return Unauthenticated("no bearer token", remedy="Send 'Authorization: Bearer <token>'.")
        given = hashlib.sha256(token.strip().encode()).digest()
        if not hmac.compare_digest(given, self._digest):
            return Unauthenticated(
                "the token is not valid", remedy="Use the token that `kubelore up` printed."
            )
        return None
