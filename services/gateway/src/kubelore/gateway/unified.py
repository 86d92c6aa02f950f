"""`/api/k8s/unified`: every cluster's objects as if they were one cluster's."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from kubelore.common.authz import Caller
from kubelore.common.bus import Feed
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import Get
from kubelore.common.kube.documents import dump
from kubelore.gateway.answering import freshness, json_answer, list_answer
from kubelore.gateway.compiled_routes import CompiledRoute
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf, WatcherOf
from kubelore.gateway.fanout import FanOut
from kubelore.gateway.parameters import (
    Clusters,
    Continue,
    Fields,
    Labels,
    Namespaces,
    Search,
    Types,
    comma,
)
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.schemas import OneItem, ResourceList
from kubelore.gateway.standing import Standing
from kubelore.gateway.watch import Watches, WatchRequest

POSITION_MAX_AGE_S = 0.1
"""How much a watch from a list's `watch_from` may see again: asking the server takes a third of a page's time."""

Sort = Annotated[
    str,
    Query(
        max_length=50,
        description="name, namespace, cluster, type, created, phase; with '-' before it the other way round.",
    ),
]


def unified_routes(
    fan_out: FanOut, roster: Roster, continuation: Continuation, feed: Feed, watches: Watches
) -> APIRouter:
    """The router over the fan-out."""
    router = APIRouter(prefix="/api/k8s/unified", tags=["unified"], route_class=CompiledRoute)
    _list(router, fan_out, roster, continuation, feed)
    _get(router, fan_out)
    _watch(router, watches)
    return router


def _list(router: APIRouter, fan_out: FanOut, roster: Roster, continuation: Continuation, feed: Feed) -> None:
    @router.get(
        "/resources",
        response_model=ResourceList,
        summary="List and search objects across clusters",
        responses=documented(404, 410),
    )
    async def list_resources(
        caller: Annotated[Caller, CallerOf],
        type_: Types = "",
        clusters: Clusters = "",
        namespace: Namespaces = "",
        labels: Labels = "",
        fields: Fields = "",
        search: Search = "",
        sort: Sort = "name",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
        continue_: Continue = "",
        view: Annotated[Literal["object", "metadata", "table"], Query()] = "object",
        stale: Annotated[Literal["include", "exclude"], Query()] = "include",
    ) -> Response:
        query = resources.Query(
            clusters=roster.select(caller, comma(clusters)),
            types=comma(type_),
            namespaces=comma(namespace),
            labels=labels,
            fields=fields,
            search=search,
            sort=sort,
            limit=limit,
            view=view,
            exclude_stale=stale == "exclude",
        )
        binding = _binding(caller, clusters, query)
        if continue_:
            query.after = continuation.open(continue_, binding)
        watch_from = await feed.position(max_age_s=POSITION_MAX_AGE_S)
        found = await fan_out.query(query)
        token = continuation.seal(found.last, binding) if found.last is not None else None
        return list_answer(found, token, watch_from)


def _get(router: APIRouter, fan_out: FanOut) -> None:
    @router.get(
        "/resources/{id}",
        response_model=OneItem,
        summary="One object as JSON or YAML",
        responses={200: {"content": {"application/yaml": {"schema": {"type": "object"}}}}, **documented(404)},
    )
    async def get_resource(
        request: Request,
        caller: Annotated[Caller, CallerOf],
        id: Annotated[str, Path(description="cluster:type:namespace:name", max_length=1000)],
        output: Annotated[
            Literal["json", "yaml"] | None, Query(description="Wins over the Accept header.")
        ] = None,
        at_least: Annotated[str, Query(max_length=40, pattern="^[0-9]*$")] = "",
    ) -> Response:
        found = await fan_out.get(caller, Get(id=id, at_least=at_least))
        accepted = request.headers.get("accept", "")
        if output == "yaml" or (output is None and "yaml" in accepted):
            # A megabyte takes a second to write as YAML; the other requests need not wait for it.
            text = await asyncio.to_thread(_yaml, found.object)
            return Response(text, media_type="application/yaml")
        cluster = found.id.partition(":")[0]
        state = freshness(found.state)
        return json_answer(
            {"id": found.id, "cluster": cluster, "object": msgspec.Raw(found.object), "state": state}
        )


def _watch(router: APIRouter, watches: Watches) -> None:
    @router.get(
        "/watch",
        summary="Watch objects across clusters (server-sent events)",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **documented(403, 404, 429),
        },
    )
    async def watch(
        standing: Annotated[Standing, WatcherOf],
        type_: Types = "",
        clusters: Clusters = "",
        namespace: Namespaces = "",
        labels: Labels = "",
        fields: Fields = "",
        since: Annotated[str, Query(max_length=100, description="`watch_from` of a list.")] = "",
        last_event_id: Annotated[str, Header(max_length=100)] = "",
    ) -> Response:
        asked = WatchRequest(
            standing=standing,
            types=comma(type_),
            clusters=comma(clusters),
            namespaces=comma(namespace),
            labels=labels,
            fields=fields,
            since=last_event_id or since,
        )
        return await watches.open(asked)


def _binding(caller: Caller, clusters: str, query: resources.Query) -> str:
    bare = msgspec.structs.replace(query, clusters=[], after=None, limit=0)
    return msgspec.json.encode([caller.subject, clusters, bare]).decode()


def _yaml(raw: bytes) -> str:
    return dump(msgspec.json.decode(raw))
