"""`/api/k8s/unified` beyond single objects: what the clusters have in common, how much of it, and of which types."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Response

from kubelore.common.authz import Caller
from kubelore.common.contracts import resources
from kubelore.common.kube.noise import paths_of
from kubelore.gateway.answering import freshness_of, json_answer
from kubelore.gateway.comparing import Compared, Comparer, CompareRequest
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.counting import Counting
from kubelore.gateway.dependencies import CallerOf
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
from kubelore.gateway.schemas import ComparisonPage, Summary, TypeList

SomeTypes = Annotated[
    str, Query(alias="type", min_length=1, max_length=2000, description="Types as kubectl names them.")
]
Ignored = Annotated[
    str,
    Query(
        max_length=5000,
        description="Paths to leave out besides the usual ones, comma separated.",
        examples=["spec.replicas,metadata.labels['example.com/site']"],
    ),
]


def overview_routes(
    comparer: Comparer, counting: Counting, roster: Roster, continuation: Continuation
) -> APIRouter:
    """The router over comparing and counting."""
    router = APIRouter(prefix="/api/k8s/unified", tags=["unified"])
    _compare(router, comparer, roster, continuation)
    _summary(router, counting, roster)
    _types(router, counting, roster)
    return router


def _compare(router: APIRouter, comparer: Comparer, roster: Roster, continuation: Continuation) -> None:
    @router.get(
        "/compare",
        response_model=ComparisonPage,
        summary="Compare the same objects between clusters",
        responses=documented(404, 410, 413),
    )
    async def compare(
        caller: Annotated[Caller, CallerOf],
        type_: SomeTypes,
        clusters: Clusters = "",
        namespace: Namespaces = "",
        name: Annotated[str, Query(max_length=253, description="Only objects of this name.")] = "",
        labels: Labels = "",
        ignore: Ignored = "",
        status: Annotated[
            Literal["", "same", "different", "missing", "unknown"], Query(description="Only these items.")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        continue_: Continue = "",
    ) -> Response:
        asked = CompareRequest(
            caller=caller,
            clusters=roster.select(caller, comma(clusters)),
            types=comma(type_),
            namespaces=comma(namespace),
            labels=labels,
            name=name,
            ignore=ignore,
            status=status,
            limit=limit,
            after=None,
        )
        binding = _binding(asked, clusters)
        if continue_:
            kind, home, last = continuation.open(continue_, binding)
            asked = msgspec.structs.replace(asked, after=(str(kind), str(home), str(last)))
        found = await comparer.compare(asked)
        return json_answer(
            {
                "items": found.items,
                "summary": found.summary,
                **freshness_of(found.clusters),
                "ignored": _ignored(found.items),
                "continue": continuation.seal(list(found.last), binding) if found.last else None,
            }
        )


def _summary(router: APIRouter, counting: Counting, roster: Roster) -> None:
    @router.get(
        "/summary",
        response_model=Summary,
        summary="How many objects there are, by cluster, type, namespace and phase",
        responses=documented(404),
    )
    async def summary(
        caller: Annotated[Caller, CallerOf],
        type_: Types = "",
        clusters: Clusters = "",
        namespace: Namespaces = "",
        labels: Labels = "",
        fields: Fields = "",
        search: Search = "",
    ) -> Response:
        query = resources.Query(
            clusters=roster.select(caller, comma(clusters)),
            types=comma(type_),
            namespaces=comma(namespace),
            labels=labels,
            fields=fields,
            search=search,
        )
        counts, left_out = await counting.count(query)
        return json_answer(
            {
                "total": counts.total,
                "types": counts.types,
                "namespaces": counts.namespaces,
                "namespaces_left_out": left_out,
                "phases": counts.phases,
                **freshness_of(counts.clusters),
            }
        )


def _types(router: APIRouter, counting: Counting, roster: Roster) -> None:
    @router.get(
        "/types",
        response_model=TypeList,
        summary="The types that the clusters serve",
        responses=documented(404),
    )
    async def types(caller: Annotated[Caller, CallerOf], clusters: Clusters = "") -> Response:
        found, states = await counting.types(roster.select(caller, comma(clusters)))
        return json_answer({"items": found, **freshness_of(states)})


def _binding(asked: CompareRequest, clusters: str) -> str:
    bare = [asked.types, asked.namespaces, asked.labels, asked.name, asked.ignore, asked.status]
    return msgspec.json.encode(["compare", asked.caller.subject, clusters, bare]).decode()


def _ignored(items: list[Compared]) -> list[str]:
    """What was left out of these objects, so that nobody takes "same" for more than it says."""
    return list(
        dict.fromkeys(path for kind in dict.fromkeys(one.type for one in items) for path in paths_of(kind))
    )
