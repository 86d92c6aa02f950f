"""`/api/tokens`, `/api/session`, `/api/whoami`: who gets in, as HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Response

from kubelore.common.authz import Caller
from kubelore.common.errors import BadRequest, NotFound
from kubelore.gateway.access_schemas import (
    CreatedToken,
    CreateTokenBody,
    SessionInfo,
    TokenInfo,
    TokenList,
    WhoAmI,
)
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.credentials import Credentials
from kubelore.gateway.dependencies import CallerOf, StandingOf
from kubelore.gateway.origins import Origins
from kubelore.gateway.problems import documented
from kubelore.gateway.repository import Token
from kubelore.gateway.sessions import csrf_token
from kubelore.gateway.standing import Standing

TokenId = Annotated[str, Path(description="The token's id; not its secret.", pattern="^[0-9a-f]{16}$")]


def access_routes(credentials: Credentials, origins: Origins) -> APIRouter:
    """The router over all that proves who somebody is."""
    router = APIRouter(prefix="/api", tags=["access"])
    router.include_router(_token_routes(credentials))
    router.include_router(_session_routes(credentials, origins))

    @router.get(
        "/whoami", response_model=WhoAmI, summary="Who you are, and what you may do", responses=documented()
    )
    async def whoami(standing: Annotated[Standing, StandingOf]) -> Response:
        return json_answer(_who(standing))

    return router


def _token_routes(credentials: Credentials) -> APIRouter:
    router = APIRouter(prefix="/tokens")

    @router.post(
        "",
        status_code=201,
        response_model=CreatedToken,
        summary="Make a token; its secret is shown this once",
        responses=documented(),
        dependencies=[audited("tokens.create", body="name", of="tokens")],
    )
    async def create(caller: Annotated[Caller, CallerOf], body: CreateTokenBody) -> Response:
        grants = tuple(grant.grant() for grant in body.grants)
        token, secret = await credentials.tokens.create(caller, body.name, grants, body.expires_in_s)
        return json_answer({**_public(token), "token": secret}, 201)

    @router.get("", response_model=TokenList, summary="List tokens, without secrets", responses=documented())
    async def list_tokens(
        caller: Annotated[Caller, CallerOf],
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        continue_: Annotated[str | None, Query(alias="continue", pattern="^[0-9a-f]{16}$")] = None,
    ) -> Response:
        page, total, following = await credentials.tokens.page(caller, limit, continue_)
        return json_answer(
            {"items": [_public(token) for token in page], "total": total, "continue": following}
        )

    @router.delete(
        "/{id}",
        status_code=204,
        summary="Revoke a token",
        responses=documented(404),
        dependencies=[audited("tokens.revoke", path="id", of="tokens")],
    )
    async def revoke(caller: Annotated[Caller, CallerOf], id: TokenId) -> Response:
        await credentials.tokens.revoke(caller, id)
        return Response(status_code=204)

    return router


def _session_routes(credentials: Credentials, origins: Origins) -> APIRouter:
    router = APIRouter(prefix="/session")

    @router.post(
        "",
        status_code=201,
        response_model=SessionInfo,
        summary="Open a browser session: a bearer token becomes a cookie",
        responses=documented(),
        dependencies=[audited("sessions.open")],
    )
    async def open_session(standing: Annotated[Standing, StandingOf]) -> Response:
        if standing.csrf:
            raise BadRequest(
                "a session is opened with a token", remedy="Send 'Authorization: Bearer <token>'."
            )
        session, secret = await credentials.sessions.open(standing, credentials.proof(standing))
        shown = {**_who(standing), "credential": f"session:{session.id}", "expires_at": session.expires_at}
        answer = json_answer({**shown, "csrf_token": csrf_token(secret)}, 201)
        answer.set_cookie(origins.cookie, secret, **_cookie(origins))
        return answer

    @router.get(
        "", response_model=SessionInfo, summary="The session of this browser", responses=documented(404)
    )
    async def show_session(standing: Annotated[Standing, StandingOf]) -> Response:
        _session_of(standing)
        return json_answer({**_who(standing), "csrf_token": standing.csrf})

    @router.delete(
        "",
        status_code=204,
        summary="End the session of this browser",
        responses=documented(404),
        dependencies=[audited("sessions.end")],
    )
    async def end_session(standing: Annotated[Standing, StandingOf]) -> Response:
        await credentials.sessions.end(_session_of(standing))
        answer = Response(status_code=204)
        answer.delete_cookie(origins.cookie, **_cookie(origins))
        return answer

    return router


def _session_of(standing: Standing) -> str:
    kind, _, name = standing.caller.credential.partition(":")
    if kind != "session":
        raise NotFound("there is no session: a bearer token was sent", remedy="Open one: POST /api/session.")
    return name


def _cookie(origins: Origins) -> dict[str, Any]:
    # No age: the browser forgets it when it is closed; how long it is good for is decided here.
    return {"path": "/", "httponly": True, "secure": origins.secure, "samesite": "strict"}


def _who(standing: Standing) -> dict[str, Any]:
    caller = standing.caller
    return {
        "subject": caller.subject,
        "credential": caller.credential,
        "grants": caller.grants,
        "expires_at": standing.expires_at,
    }


def _public(token: Token) -> dict[str, Any]:
    shown = TokenInfo.model_fields
    return {name: value for name, value in msgspec.structs.asdict(token).items() if name in shown}
