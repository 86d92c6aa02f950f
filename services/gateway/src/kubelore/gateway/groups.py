"""`/api/k8s/groups`: groups of clusters, as things of their own."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Response

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import CreateGroup, Group, GroupRef, ListGroups, UpdateGroup
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.schemas import ClusterGroup, CreateGroupBody, GroupList, UpdateGroupBody

GroupName = Annotated[
    str, Path(description="The group's name.", min_length=1, max_length=63, examples=["production"])
]


def group_routes(bus: Bus, roster: Roster, continuation: Continuation) -> APIRouter:
    """The router. A group's name may hold a slash, so it is all of the rest of the path."""
    router = APIRouter(prefix="/api/k8s/groups", tags=["clusters"])
    _reading(router, bus, continuation)
    _changing(router, bus, roster)
    return router


def _reading(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get("", response_model=GroupList, summary="List groups of clusters", responses=documented(410))
    async def list_groups(
        caller: Annotated[Caller, CallerOf],
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        continue_: Continue = "",
    ) -> Response:
        binding = msgspec.json.encode(["groups", caller.subject]).decode()
        after = continuation.open_name(continue_, binding) if continue_ else None
        page = await bus.request(clusters.LIST_GROUPS, ListGroups(limit=limit, after=after))
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": page.items, "total": page.total, "continue": token})

    @router.get("/{group:path}", response_model=ClusterGroup, summary="One group", responses=documented(404))
    async def get(group: GroupName) -> Response:
        return json_answer(await bus.request(clusters.GET_GROUP, GroupRef(group)))


def _changing(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "",
        status_code=201,
        response_model=ClusterGroup,
        dependencies=[audited("groups.create", body="name", of="groups")],
        summary="Make a group without members",
        responses=documented(403, 409),
    )
    async def create(body: CreateGroupBody) -> Response:
        request = CreateGroup(name=body.name, description=body.description)
        return json_answer(await bus.request(clusters.CREATE_GROUP, request), 201)

    @router.patch(
        "/{group:path}",
        response_model=ClusterGroup,
        dependencies=[audited("groups.update", path="group", of="groups")],
        summary="Rename a group with all its members, or describe it",
        responses=documented(403, 404, 409),
    )
    async def update(group: GroupName, body: UpdateGroupBody) -> Response:
        request = UpdateGroup(name=group)
        if body.name is not None:
            request.rename = body.name
        if body.description is not None:
            request.description = body.description
        changed: Group = await bus.request(clusters.UPDATE_GROUP, request)
        await roster.hurry()
        return json_answer(changed)

    @router.delete(
        "/{group:path}",
        status_code=204,
        dependencies=[audited("groups.delete", path="group", of="groups")],
        summary="Delete a group that has no members",
        responses=documented(403, 404, 409),
    )
    async def delete(group: GroupName) -> Response:
        await bus.request(clusters.DELETE_GROUP, GroupRef(group))
        return Response(status_code=204)
