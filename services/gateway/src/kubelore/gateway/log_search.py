"""`/api/k8s/logs/search` and `/histogram`: lines that match, stored and live, of pods that are gone too."""

from __future__ import annotations

import string
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import log_search
from kubelore.common.contracts.log_search import (
    MAX_BUCKETS,
    MAX_FOUND,
    MAX_SEARCH_S,
    CountLogs,
    FoundPosition,
    LogPlaces,
    SearchLogs,
)
from kubelore.common.contracts.logs import LogDirection, LogFilter, LogLevel
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.log_queries import FilterOf
from kubelore.gateway.parameters import Clusters, Continue, Labels, Namespaces, comma
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster

MARGIN_S = 15.0
"""How much longer than the search itself its answer is waited for."""


class FoundLogLine(BaseModel):
    """A line that matches."""

    timestamp: str
    cluster: str
    namespace: str
    pod: str
    container: str
    restart: int
    node: str
    workload: str = Field(description="As the pod's owner was: deployments.apps/web.")
    message: str
    encoding: str = Field(description="base64 where the line is no UTF-8, else empty.")
    level: LogLevel | None
    whole: bool = Field(description="false: the line goes on in the next item.")
    stored: bool = Field(description="false: it was read from the cluster just now.")


class FoundLogGap(BaseModel):
    """Lines of a container that nobody could read, and why."""

    cluster: str
    namespace: str
    pod: str
    container: str
    since: str
    until: str
    reason: str


class LogSearchWork(BaseModel):
    """What was looked at."""

    segments: int
    blocks: int = Field(description="Blocks of stored lines that were read.")
    passed_over: int = Field(description="Blocks that cannot hold a match, by their index.")
    raw_bytes: int = Field(
        description="Text of those blocks, which are read whole; the logs of running containers are not in it."
    )
    live_containers: int


class FoundLogLines(BaseModel):
    """One page in the order of time."""

    items: list[FoundLogLine]
    gaps: list[FoundLogGap]
    partial: bool = Field(description="Something could not be searched: `problems` says what.")
    problems: list[str]
    work: LogSearchWork
    continue_: str | None = Field(
        None,
        alias="continue",
        description="There may be more; also when the time ran out, and then the page may be empty.",
    )


class LogSpan(BaseModel):
    """How many lines match from `since` on, for the length of a span."""

    since: str
    count: int


class LogHistogram(BaseModel):
    """Matching lines over time; before `complete_from` the time ran out."""

    items: list[LogSpan]
    step_s: float
    total: int
    complete_from: str
    partial: bool
    problems: list[str]
    work: LogSearchWork


class _Manner(msgspec.Struct, frozen=True):
    """Which places are searched, and for how long."""

    clusters: list[str]
    places: LogPlaces
    stored: bool
    live: bool
    seconds: float


async def _manner(
    clusters: Clusters = "",
    namespace: Namespaces = "",
    pod: Annotated[str, Query(max_length=253, description="A pod's name, whether it is there or not.")] = "",
    container: Annotated[str, Query(max_length=63)] = "",
    workload: Annotated[
        str, Query(max_length=400, description="What the pods belong to.", examples=["deployments.apps/web"])
    ] = "",
    labels: Labels = "",
    stored: Annotated[bool, Query(description="Search what was collected.")] = True,
    live: Annotated[bool, Query(description="Search what runs now and is not collected yet.")] = True,
    timeout_s: Annotated[
        float, Query(ge=0.1, le=MAX_SEARCH_S, description="After so long the page ends, with a `continue`.")
    ] = 10.0,
) -> _Manner:
    places = LogPlaces(
        namespaces=tuple(comma(namespace)), pod=pod, container=container, workload=workload, labels=labels
    )
    return _Manner(comma(clusters), places, stored, live, timeout_s)


async def _words(
    filter_: Annotated[LogFilter, FilterOf],
    word: Annotated[
        bool, Query(description="`search` is a whole word, and found by an index in any stored amount.")
    ] = False,
) -> LogFilter:
    if not word or not filter_.search:
        return filter_
    if filter_.regex:
        raise BadRequest("word goes with search alone", remedy=r"Write \b where words end in regex.")
    return msgspec.structs.replace(filter_, search="", regex=whole_word(filter_.search))


def whole_word(text: str) -> str:
    """The regular expression of a text that is no part of a longer word."""
    escaped = "".join(f"\\{char}" if char in string.punctuation.replace("_", "") else char for char in text)
    start = r"\b" if text[0].isascii() and (text[0].isalnum() or text[0] == "_") else ""
    end = r"\b" if text[-1].isascii() and (text[-1].isalnum() or text[-1] == "_") else ""
    return f"{start}{escaped}{end}"


def log_search_routes(bus: Bus, roster: Roster, continuation: Continuation) -> APIRouter:
    """The router over the search of container-ops."""
    router = APIRouter(prefix="/api/k8s/logs", tags=["logs"])
    _searching(router, bus, roster, continuation)
    _counting(router, bus, roster)
    return router


def _searching(router: APIRouter, bus: Bus, roster: Roster, continuation: Continuation) -> None:
    @router.get(
        "/search",
        response_model=FoundLogLines,
        summary="Lines of logs that match, stored and live",
        responses=documented(403, 404, 410),
    )
    async def search_logs(
        caller: Annotated[Caller, CallerOf],
        manner: Annotated[_Manner, Depends(_manner)],
        filter_: Annotated[LogFilter, Depends(_words)],
        direction: Annotated[LogDirection, Query(description="backward: the newest first.")] = "backward",
        limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 100,
        continue_: Continue = "",
    ) -> Response:
        asked = SearchLogs(
            places=_within(roster, caller, manner),
            filter=filter_,
            direction=direction,
            limit=limit,
            live=manner.live,
            stored=manner.stored,
            seconds=manner.seconds,
        )
        bound = {**msgspec.to_builtins(asked), "limit": 0, "seconds": 0}
        binding = msgspec.json.encode([caller.subject, "logs", bound]).decode()
        if continue_:
            asked.after = _after(continuation.open(continue_, binding))
        found = await bus.request(log_search.SEARCH_LOGS, asked, deadline_s=manner.seconds + MARGIN_S)
        token = continuation.seal(list(msgspec.to_builtins(found.next)), binding) if found.next else None
        told = {name: getattr(found, name) for name in ("items", "gaps", "partial", "problems", "work")}
        return json_answer({**told, "continue": token})


def _counting(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.get(
        "/histogram",
        response_model=LogHistogram,
        summary="How many lines match over time",
        responses=documented(403, 404),
    )
    async def count_logs(
        caller: Annotated[Caller, CallerOf],
        manner: Annotated[_Manner, Depends(_manner)],
        filter_: Annotated[LogFilter, Depends(_words)],
        buckets: Annotated[int, Query(ge=1, le=MAX_BUCKETS)] = 60,
    ) -> Response:
        asked = CountLogs(
            places=_within(roster, caller, manner),
            filter=filter_,
            buckets=buckets,
            live=manner.live,
            stored=manner.stored,
            seconds=manner.seconds,
        )
        found = await bus.request(log_search.COUNT_LOGS, asked, deadline_s=manner.seconds + MARGIN_S)
        return json_answer(found)


def _within(roster: Roster, caller: Caller, manner: _Manner) -> LogPlaces:
    return msgspec.structs.replace(manner.places, clusters=tuple(roster.select(caller, manner.clusters)))


def _after(position: list[Any]) -> FoundPosition:
    try:
        return msgspec.convert(position, FoundPosition)
    except msgspec.ValidationError:
        raise BadRequest("the continue token is no position among lines") from None
