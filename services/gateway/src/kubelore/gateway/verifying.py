"""`/api/k8s/yaml/verify`: whether the histories of a namespace or cluster are whole, as HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts.verifying import VERIFY_MANY, VerifyMany
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.problems import documented
from kubelore.gateway.versions import Continue


class Broken(BaseModel):
    """A history that does not verify."""

    id: str
    version: int = Field(description="The first version that does not follow.")
    why: str


class VerificationPage(BaseModel):
    """What a page has seen, and what of it does not verify. All is whole when no page has anything broken."""

    objects: int
    versions: int
    broken: list[Broken]
    continue_: str | None = Field(None, alias="continue")


def verification_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over the verification of many histories."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])

    @router.get(
        "/verify",
        response_model=VerificationPage,
        summary="Check that no version in a namespace or cluster was changed, dropped or put in",
        responses=documented(404, 410),
    )
    async def verify_many(
        caller: Annotated[Caller, CallerOf],
        cluster: Annotated[str, Query(max_length=63)],
        namespace: Annotated[
            str | None, Query(max_length=63, description="Empty: what lies in none; left out: everything.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        continue_: Continue = "",
    ) -> Response:
        asked = VerifyMany(cluster=cluster, namespace=namespace, limit=limit)
        binding = msgspec.json.encode([caller.subject, "VerifyMany", cluster, namespace]).decode()
        if continue_:
            asked.after = _after(continuation.open(continue_, binding))
        page = await bus.request(VERIFY_MANY, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        shown = {name: value for name, value in msgspec.to_builtins(page).items() if name != "next"}
        return json_answer({**shown, "continue": token})

    return router


def _after(position: list[Any]) -> str:
    match position:
        case [str(after)]:
            return after
    raise BadRequest("the continue token is no position in a verification")
