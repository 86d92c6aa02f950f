"""`/api/k8s/containers/{id}/logs`: one container's log as pages, and as a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.bus.sessions import Session
from kubelore.common.contracts import logs
from kubelore.common.contracts.logs import MAX_PAGE, ExportLogs, LogFilter, LogPage, ReadLogs
from kubelore.common.errors import BadRequest
from kubelore.gateway import container_ids
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.container_ids import ContainerPath
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf, WatcherOf
from kubelore.gateway.event_stream import Outflow
from kubelore.gateway.log_queries import FilterOf
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented
from kubelore.gateway.standing import Standing

_ = container_ids

MAX_TAIL = 10_000_000
_MEDIA = {"gzip": "application/gzip", "zstd": "application/zstd"}
_FORMS: dict[str, Literal["text", "lines"]] = {"text": "text", "jsonl": "lines"}
_PLAIN = {"text": "text/plain; charset=utf-8", "jsonl": "application/x-ndjson"}

Previous = Annotated[bool, Query(description="Of the run before the latest one.")]
Tail = Annotated[int | None, Query(ge=0, le=MAX_TAIL, description="Only so many of the last lines.")]
Plain = Annotated[bool, Query(description="Without colours (ANSI sequences).")]


class LogItem(BaseModel):
    """One line. A line over 256 KB comes in pieces, of which all but the last are `partial`."""

    timestamp: str = Field("", description="RFC 3339 with nanoseconds; left out with timestamps=false.")
    cluster: str
    namespace: str
    pod: str
    container: str
    message: str = Field(description="Text; what is not UTF-8 is replaced. The export has the bytes.")
    level: str = Field("", description="trace, debug, info, warn, error or fatal, where the line says one.")
    partial: bool = False


class LogItems(BaseModel):
    """One page of a log."""

    items: list[LogItem]
    gap: bool = Field(
        description="The place to continue from was rotated away: lines before these may be gone."
    )
    continue_: str | None = Field(None, alias="continue")


def container_log_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over container-ops."""
    router = APIRouter(prefix="/api/k8s/containers", tags=["logs"])
    _pages(router, bus, continuation)
    _export(router, bus)
    return router


def _pages(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get(
        "/{id:container}/logs",
        response_model=LogItems,
        summary="A container's log, page by page",
        responses=documented(404, 410),
    )
    async def read_logs(
        id: ContainerPath,
        caller: Annotated[Caller, CallerOf],
        filter_: Annotated[LogFilter, FilterOf],
        previous: Previous = False,
        tail: Tail = None,
        direction: Annotated[
            logs.LogDirection, Query(description="From the oldest line on, or from the latest back.")
        ] = "forward",
        plain: Plain = False,
        timestamps: bool = True,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 500,
        continue_: Continue = "",
    ) -> Response:
        asked = ReadLogs(
            id=id,
            filter=filter_,
            previous=previous,
            tail=tail,
            direction=direction,
            plain=plain,
            timestamps=timestamps,
            limit=limit,
        )
        bound = msgspec.structs.replace(asked, limit=1)
        binding = f"{caller.subject}:logs:{msgspec.json.encode(bound).decode()}"
        if continue_:
            position = _position(continuation.open(continue_, binding))
            asked = msgspec.structs.replace(asked, position=position)
        page = await bus.request(logs.READ_LOGS, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        return Response(_written(page, token), media_type="application/json")


def _export(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/{id:container}/logs/export",
        response_class=StreamingResponse,
        summary="All of a container's log as a file",
        responses={
            200: {"content": {kind: {"schema": {"type": "string"}} for kind in _PLAIN.values()}},
            **documented(403, 404, 429),
        },
        dependencies=[audited("logs.export", path="id")],
    )
    async def export_logs(
        id: ContainerPath,
        standing: Annotated[Standing, WatcherOf],
        filter_: Annotated[LogFilter, FilterOf],
        previous: Previous = False,
        tail: Tail = None,
        format: Literal["text", "jsonl"] = "text",
        compression: Literal["none", "gzip", "zstd"] = "none",
        timestamps: Annotated[bool, Query(description="In text: the time before each line.")] = False,
        plain: Plain = False,
    ) -> Response:
        asked = ExportLogs(
            id=id,
            filter=filter_,
            previous=previous,
            tail=tail,
            form=_FORMS[format],
            compression=compression,
            timestamps=timestamps,
            plain=plain,
        )
        made = await bus.request(logs.EXPORT_LOGS, asked)
        return Outflow(
            _file(bus, made.session),
            standing,
            _MEDIA.get(compression) or _PLAIN[format],
            headers={"Content-Disposition": f'attachment; filename="{made.name}"', "X-Accel-Buffering": "no"},
        )


async def _file(bus: Bus, session: str) -> AsyncGenerator[bytes]:
    """The bytes as they come. A failure breaks the answer off, so that nobody takes a part for the whole."""
    async with Session(bus, session, "client") as frames:
        async for frame in frames:
            yield frame
        await frames.finish()


def _written(page: LogPage, token: str | None) -> bytes:
    tail = msgspec.json.encode({"gap": page.gap, "continue": token})
    return b'{"items":[%b],%b' % (page.items, tail[1:])


def _position(position: Any) -> str:
    match position:
        case [str(after)]:
            return after
    raise BadRequest("the continue token is no position in a log")
