"""Logs of many containers, or one, as they are written: server-sent events, a WebSocket, or plain lines.

What is sent is made by container-ops and passed on as it is: nothing is queued
here, and a reader that is slow holds up its own session and nothing else.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from kubelore.common.bus import Bus
from kubelore.common.bus.sessions import Session
from kubelore.common.contracts import log_streams
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.log_streams import (
    MAX_MANY_PAGE,
    MAX_TAIL,
    SILENT_S,
    LogTarget,
    ManyLogPage,
    ReadManyLogs,
    StreamLogs,
)
from kubelore.common.contracts.logs import LogDirection, LogFilter
from kubelore.common.errors import BadRequest, KubeloreError
from kubelore.common.mandates import ended_by
from kubelore.common.telemetry import get_logger
from kubelore.gateway import container_ids
from kubelore.gateway.container_ids import ContainerPath
from kubelore.gateway.container_logs import LogItem
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import StandingOf, WatcherOf
from kubelore.gateway.event_stream import EventStream, Slots
from kubelore.gateway.log_queries import FilterOf
from kubelore.gateway.parameters import Clusters, Labels, Namespaces, comma
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.standing import Standing
from kubelore.gateway.websockets import accepted

log = get_logger(__name__)

_ = container_ids
MAX_POSITION = 60_000
_LENGTH = struct.Struct(">I")
_MEDIA = {"events": "text/event-stream", "lines": "application/x-ndjson", "text": "text/plain; charset=utf-8"}

Form = Annotated[
    Literal["events", "lines", "text"],
    Query(description="Server-sent events, one JSON document a line, or the text alone."),
]
Workload = Annotated[
    str,
    Query(
        max_length=400,
        description="Pods of a workload in the one namespace that is named.",
        examples=["deployments.apps/web"],
    ),
]
Containers = Annotated[
    str, Query(alias="container", max_length=2000, description="Names, comma separated; `*` and `?` match.")
]
LastEventId = Annotated[str, Header(max_length=MAX_POSITION)]


class _Manner(msgspec.Struct, frozen=True):
    """How lines are to be sent."""

    follow: bool
    tail: int | None
    previous: bool
    plain: bool
    levels: bool
    prefix: bool
    timestamps: bool
    after: str


async def _manner(
    follow: Annotated[bool, Query(description="Go on with what is written from now on.")] = True,
    tail: Annotated[
        int | None, Query(ge=0, le=MAX_TAIL, description="So many lines of each container at the start.")
    ] = None,
    previous: Annotated[bool, Query(description="Begin with the run before the latest one.")] = False,
    plain: Annotated[bool, Query(description="Without colours (ANSI sequences).")] = False,
    levels: Annotated[bool, Query(description="With the level of each line, where it has one.")] = False,
    prefix: Annotated[bool, Query(description="In text: the origin before each line.")] = False,
    timestamps: Annotated[bool, Query(description="In text: the time before each line.")] = False,
    after: Annotated[
        str,
        Query(max_length=MAX_POSITION, description="The id of the last event that came, to go on behind it."),
    ] = "",
) -> _Manner:
    return _Manner(follow, tail, previous, plain, levels, prefix, timestamps, after)


async def _targets(
    clusters: Clusters = "",
    namespace: Namespaces = "",
    labels: Labels = "",
    workload: Workload = "",
    container: Containers = "",
) -> tuple[str, LogTarget]:
    return clusters, LogTarget(
        cluster="",
        namespaces=tuple(comma(namespace)),
        labels=labels,
        workload=workload,
        containers=tuple(comma(container)),
    )


MannerOf, TargetsOf = Depends(_manner), Depends(_targets)


class LogReaders:
    """Opens streams for readers, at most `limit` at once."""

    def __init__(self, bus: Bus, roster: Roster, limit: int) -> None:
        self._bus = bus
        self._roster = roster
        self.slots = Slots(limit, "streams of logs")

    def targets(self, standing: Standing, asked: tuple[str, LogTarget]) -> tuple[LogTarget, ...]:
        """The same of each cluster that is meant. Raises what `Roster.select` does."""
        clusters, target = asked
        found: list[LogTarget] = []
        for name in self._roster.select(standing.caller, comma(clusters)):
            namespaces = target.namespaces or self._roster.limited_to(name)
            found.append(msgspec.structs.replace(target, cluster=name, namespaces=namespaces))
        return tuple(found)

    async def page(self, asked: ReadManyLogs) -> ManyLogPage:
        """One page. Raises what READ_MANY_LOGS does."""
        return await self._bus.request(log_streams.READ_MANY_LOGS, asked)

    async def stream(self, standing: Standing, asked: StreamLogs) -> Response:
        """The answer. Raises what STREAM_LOGS does, and TooManyRequests, before anything is sent."""
        self.slots.check(standing.caller.subject)
        opened = await self._bus.request(log_streams.STREAM_LOGS, asked)
        chunks = self._chunks(opened.session, standing, events=asked.form == "events")
        answer = EventStream(chunks, self.slots, standing.caller.subject)
        answer.media_type = _MEDIA[asked.form]
        answer.headers["content-type"] = _MEDIA[asked.form]
        return answer

    async def _chunks(self, session: str, standing: Standing, *, events: bool) -> AsyncGenerator[bytes]:
        if events:
            yield b": connected\n\n"
        try:
            async with (
                ended_by(asyncio.create_task(standing.lapse())),
                Session(self._bus, session, "client", idle_s=SILENT_S) as frames,
            ):
                async for frame in frames:
                    yield frame
                await frames.finish()
        except KubeloreError as error:
            log.info("a stream of logs ended", reason=error.reason, detail=error.detail)
            if not events:
                raise
            yield b"event: error\ndata: %b\n\n" % msgspec.json.encode(_told(error))

    async def serve(self, websocket: WebSocket, standing: Standing, asked: StreamLogs) -> None:
        """The same to a WebSocket, one message an event. Raises before it is accepted what STREAM_LOGS does."""
        self.slots.check(standing.caller.subject)
        opened = await self._bus.request(log_streams.STREAM_LOGS, asked)
        async with (
            accepted(websocket, standing, self.slots) as socket,
            Session(self._bus, opened.session, "client", idle_s=SILENT_S) as frames,
        ):
            leaving = asyncio.create_task(_until_left(socket))
            async with ended_by(leaving), aclosing(_messages(frames)) as messages:
                async for message in messages:
                    await socket.send(message.decode())
                await frames.finish()


async def _until_left(socket: Any) -> None:
    """Raises SocketClosed when the client leaves; what it sends is not heeded."""
    while True:
        await socket.receive()


async def _messages(frames: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Messages out of frames: each is behind its length."""
    held = bytearray()
    async for frame in frames:
        held += frame
        while len(held) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(held)[0]
            if len(held) < end:
                break
            yield bytes(held[_LENGTH.size : end])
            del held[:end]


def _told(error: KubeloreError) -> dict[str, str]:
    return {"reason": error.reason, "detail": error.detail, "remedy": error.remedy or ""}


def _asked(
    targets: tuple[LogTarget, ...], filter_: LogFilter, manner: _Manner, form: Any, after: str
) -> StreamLogs:
    return StreamLogs(
        targets=targets,
        filter=filter_,
        follow=manner.follow,
        tail=manner.tail,
        previous=manner.previous,
        form=form,
        after=after or manner.after,
        plain=manner.plain,
        levels=manner.levels,
        prefix=manner.prefix,
        timestamps=manner.timestamps,
    )


def _of_one(id_: str) -> tuple[LogTarget, ...]:
    one = ContainerId.parse(id_)
    return (
        LogTarget(
            cluster=one.cluster,
            namespaces=(one.namespace,),
            pod=one.pod,
            containers=(one.container,) if one.container else (),
        ),
    )


_STREAM: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {
        200: {"content": {kind: {"schema": {"type": "string"}} for kind in _MEDIA.values()}},
        **documented(403, 404, 429),
    },
}


class ManyLogItems(BaseModel):
    """One page over many containers."""

    items: list[LogItem]
    containers: int = Field(description="How many are selected.")
    failed: dict[str, str] = Field(description="Containers that could not be read now, and why.")
    continue_: str | None = Field(None, alias="continue")


def log_stream_routes(readers: LogReaders, continuation: Continuation) -> APIRouter:
    """The streams over HTTP, and pages over many containers."""
    router = APIRouter(prefix="/api/k8s", tags=["logs"])
    _pages(router, readers, continuation)
    _events(router, readers)
    _sockets(router, readers)
    return router


def _events(router: APIRouter, readers: LogReaders) -> None:
    @router.get("/logs/stream", summary="Logs of many containers as they are written", **_STREAM)
    async def stream_logs(
        standing: Annotated[Standing, WatcherOf],
        targets: Annotated[tuple[str, LogTarget], TargetsOf],
        filter_: Annotated[LogFilter, FilterOf],
        manner: Annotated[_Manner, MannerOf],
        format: Form = "events",
        last_event_id: LastEventId = "",
    ) -> Response:
        asked = _asked(readers.targets(standing, targets), filter_, manner, format, last_event_id)
        return await readers.stream(standing, asked)

    @router.get(
        "/containers/{id:container}/logs/stream", summary="A container's log as it is written", **_STREAM
    )
    async def stream_container_logs(
        id: ContainerPath,
        standing: Annotated[Standing, WatcherOf],
        filter_: Annotated[LogFilter, FilterOf],
        manner: Annotated[_Manner, MannerOf],
        format: Form = "events",
        last_event_id: LastEventId = "",
    ) -> Response:
        return await readers.stream(standing, _asked(_of_one(id), filter_, manner, format, last_event_id))


def _sockets(router: APIRouter, readers: LogReaders) -> None:
    @router.websocket("/logs/ws")
    async def logs_socket(
        websocket: WebSocket,
        standing: Annotated[Standing, WatcherOf],
        targets: Annotated[tuple[str, LogTarget], TargetsOf],
        filter_: Annotated[LogFilter, FilterOf],
        manner: Annotated[_Manner, MannerOf],
    ) -> None:
        asked = _asked(readers.targets(standing, targets), filter_, manner, "messages", "")
        await readers.serve(websocket, standing, asked)

    @router.websocket("/containers/{id:container}/logs/ws")
    async def container_logs_socket(
        id: ContainerPath,
        websocket: WebSocket,
        standing: Annotated[Standing, WatcherOf],
        filter_: Annotated[LogFilter, FilterOf],
        manner: Annotated[_Manner, MannerOf],
    ) -> None:
        await readers.serve(websocket, standing, _asked(_of_one(id), filter_, manner, "messages", ""))


def _pages(router: APIRouter, readers: LogReaders, continuation: Continuation) -> None:
    @router.get(
        "/logs",
        response_model=ManyLogItems,
        summary="Logs of many containers as one, page by page",
        responses=documented(404, 410),
    )
    async def read_many_logs(
        standing: Annotated[Standing, StandingOf],
        targets: Annotated[tuple[str, LogTarget], TargetsOf],
        filter_: Annotated[LogFilter, FilterOf],
        direction: Annotated[
            LogDirection, Query(description="From the oldest line on, or from the latest back.")
        ] = "forward",
        tail: Annotated[int | None, Query(ge=0, le=MAX_TAIL)] = None,
        previous: bool = False,
        plain: bool = False,
        limit: Annotated[int, Query(ge=1, le=MAX_MANY_PAGE)] = 500,
        continue_: Annotated[str, Query(alias="continue", max_length=MAX_POSITION)] = "",
    ) -> Response:
        asked = ReadManyLogs(
            targets=readers.targets(standing, targets),
            filter=filter_,
            direction=direction,
            limit=limit,
            tail=tail,
            previous=previous,
            plain=plain,
        )
        bound = msgspec.json.encode(msgspec.structs.replace(asked, limit=1)).decode()
        binding = f"{standing.caller.subject}:many-logs:{bound}"
        if continue_:
            asked = msgspec.structs.replace(asked, position=_after(continuation.open(continue_, binding)))
        page = await readers.page(asked)
        token = continuation.seal([page.next], binding) if page.next else None
        rest = {"containers": page.containers, "failed": page.failed, "continue": token}
        body = b'{"items":[%b],%b' % (page.items, msgspec.json.encode(rest)[1:])
        return Response(body, media_type="application/json")


def _after(position: Any) -> str:
    match position:
        case [str(after)]:
            return after
    raise BadRequest("the continue token is no position in logs")
