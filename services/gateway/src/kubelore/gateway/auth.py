"""Who is calling. From here on the request acts as that caller.

Authentication stands in front of the whole application, so that an endpoint
added later cannot be forgotten: only the paths named here answer without it.
A token is taken from the Authorization header, or with a WebSocket from its
subprotocols; never from a URL, which ends up in logs and histories. A browser's
session is taken from its cookie, and then only for a page of our own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from kubelore.common.callers import acting_as
from kubelore.common.errors import KubeloreError, TooManyRequests, Unauthenticated
from kubelore.gateway.credentials import Credentials
from kubelore.gateway.origins import Origins
from kubelore.gateway.problems import problem_response
from kubelore.gateway.rates import Buckets, network_of
from kubelore.gateway.source_address import Network, source_address
from kubelore.gateway.standing import Standing
from kubelore.gateway.websockets import take_token

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs"})
"""Health endpoints, and two static pages that hold no data (they ask for a token to show any)."""


class Authentication:
    """ASGI middleware: refuses whoever proves nothing, and names the caller to the rest.

    `scope["state"]` gets the `caller`, also where only the rest is refused, and
    their `standing` for what runs for long. `failures` bounds by address how
    often a credential may be wrong; `requests` bounds by subject how many come
    through. `trusted` are the proxies that are believed where a request came from.
    """

    def __init__(
        self,
        app: ASGIApp,
        credentials: Credentials,
        origins: Origins,
        failures: Buckets,
        requests: Buckets,
        trusted: Sequence[Network] = (),
    ) -> None:
        self._app = app
        self._credentials = credentials
        self._origins = origins
        self._failures = failures
        self._requests = requests
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let open paths and whoever is known through; answer a problem to everybody else."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            standing = await self._standing(scope)
            state["caller"], state["standing"] = standing.caller, standing
            if wait := self._requests.take(standing.caller.subject):
                raise TooManyRequests(
                    f"{standing.caller.subject} asks too often", remedy="Slow down.", retry_after_s=wait
                )
        except KubeloreError as error:
            # A WebSocket is answered so too: its handshake fails, and says why.
            await problem_response(error)(scope, receive, send)
            return
        with acting_as(standing.caller):
            await self._app(scope, receive, send)

    async def _standing(self, scope: Scope) -> Standing:
        headers = Headers(scope=scope)
        authorization = headers.get("authorization")
        if scope["type"] == "websocket" and (offered := take_token(scope)) is not None:
            authorization = authorization or f"Bearer {offered}"
        cookie = cookie_parser(headers.get("cookie", "")).get(self._origins.cookie)
        if authorization is None and cookie:
            known = self._credentials.cookie_known(cookie)
            standing = await self._bounded(scope, known, partial(self._credentials.of_cookie, cookie))
            scope["state"]["caller"] = standing.caller
            return replace(standing, own_origin=self._origins.check(scope, standing.csrf))
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("no bearer token", remedy="Send 'Authorization: Bearer <token>'.")
        known = self._credentials.bearer_known(token)
        return await self._bounded(scope, known, partial(self._credentials.of_bearer, token))

    async def _bounded(self, scope: Scope, known: bool, prove: Callable[[], Awaitable[Standing]]) -> Standing:
        """Check what costs a look into the database only while its address has not failed too often."""
        if not known and (wait := self._failures.wait_s(self._network(scope))):
            raise TooManyRequests(
                "too many credentials from this address were not valid",
                remedy="Wait, and check the token.",
                retry_after_s=wait,
            )
        try:
            return await prove()
        except Unauthenticated:
            self._failures.take(self._network(scope))
            raise

    def _network(self, scope: Scope) -> str:
        return network_of(source_address(scope, self._trusted))
