"""`/api/k8s/yaml/parked`: changes that could not be taken, as HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from kubelore.common.bus import Bus
from kubelore.common.contracts import keeping
from kubelore.common.contracts.keeping import ListParked, ReplayParked
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.problems import documented


class ParkedInfo(BaseModel):
    """One change that could not be taken; what it is of is empty where it cannot be read at all."""

    number: int
    reason: str
    error_id: str = Field(description="Look for it in the log of yaml-vcs.")
    parked_at: datetime
    cluster: str
    resource_id: str
    happened: str
    resource_version: str
    changed_at: datetime | None


class ParkedList(BaseModel):
    """One page of parked changes, oldest first."""

    items: list[ParkedInfo]
    next: int | None = Field(description="The `after` of the next page.")


class ReplayedInfo(BaseModel):
    """What became of a parked change."""

    number: int
    outcome: str = Field(
        description="recorded, late (behind newer versions), or unchanged: it needs no version."
    )


def parked_routes(bus: Bus) -> APIRouter:
    """The router over what yaml-vcs has parked."""
    router = APIRouter(prefix="/api/k8s/yaml/parked", tags=["versions"])

    @router.get(
        "",
        response_model=ParkedList,
        summary="Changes that could not be taken; for administrators",
        responses=documented(403),
    )
    async def list_parked(
        after: Annotated[int, Query(ge=0, le=1 << 53, description="Behind this number.")] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
    ) -> Response:
        return json_answer(await bus.request(keeping.PARKED, ListParked(after=after, limit=limit)))

    @router.post(
        "/{number}/replay",
        response_model=ReplayedInfo,
        dependencies=[audited("parked.replay", path="number", of="parked")],
        summary="Take a parked change again; for administrators",
        responses=documented(403, 404, 409, 422),
    )
    async def replay(number: Annotated[int, Path(ge=1, le=1 << 53)]) -> Response:
        return json_answer(await bus.request(keeping.REPLAY_PARKED, ReplayParked(number)))

    return router
