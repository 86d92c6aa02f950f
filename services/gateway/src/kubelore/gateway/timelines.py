"""`/api/k8s/yaml`: which objects have a history, and histories from their beginning, as HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import timelines
from kubelore.common.contracts.timelines import ListObjects, ReadHistory
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.problems import documented
from kubelore.gateway.versions import Continue, GapInfo, ResourceId, VersionInfo


class VersionedObjectInfo(BaseModel):
    """An object that has a history, and its newest version."""

    id: str
    type: str
    namespace: str
    name: str
    live: bool = Field(description="false: it was deleted.")
    version: int
    commit_hash: str
    created_at: datetime


class VersionedObjects(BaseModel):
    """One page of objects that have a history, those that are gone among them."""

    items: list[VersionedObjectInfo]
    continue_: str | None = Field(None, alias="continue")


class Step(BaseModel):
    """A version, the object as it was, and what it changed."""

    version: VersionInfo
    yaml_content: str
    diff_content: str = Field(description="Unified diff from the version before.")


class Steps(BaseModel):
    """One page of a history, oldest first."""

    items: list[Step]
    next: int | None = Field(description="The `after` of the next page.")
    gaps: list[GapInfo] = Field(description="Between them, and behind the last.")


def timeline_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over what yaml-vcs tells of whole histories."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])

    @router.get(
        "/objects",
        response_model=VersionedObjects,
        summary="Which objects have a history, deleted ones among them",
        responses=documented(404, 410),
    )
    async def list_objects(
        caller: Annotated[Caller, CallerOf],
        cluster: Annotated[str, Query(max_length=63)],
        namespace: Annotated[
            str | None, Query(max_length=63, description="Empty: what lies in none; left out: everything.")
        ] = None,
        type: Annotated[str, Query(max_length=253)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        continue_: Continue = "",
    ) -> Response:
        asked = ListObjects(cluster=cluster, namespace=namespace, type=type, limit=limit)
        bound = {**msgspec.to_builtins(asked), "limit": 0}
        binding = msgspec.json.encode([caller.subject, "ListObjects", bound]).decode()
        if continue_:
            asked.after = _after(continuation.open(continue_, binding))
        page = await bus.request(timelines.OBJECTS, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": page.items, "continue": token})

    @router.get(
        "/versions/{id}/history",
        response_model=Steps,
        summary="The versions of an object from the oldest on, with contents and diffs",
        responses=documented(404),
    )
    async def read_history(
        id: ResourceId,
        after: Annotated[int, Query(ge=0, le=0xFFFFFFFF, description="Behind this version.")] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
    ) -> Response:
        return json_answer(await bus.request(timelines.HISTORY, ReadHistory(id=id, after=after, limit=limit)))

    return router


def _after(position: list[Any]) -> str:
    match position:
        case [str(after)]:
            return after
    raise BadRequest("the continue token is no position among the objects")
