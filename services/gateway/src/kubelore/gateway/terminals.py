"""`/api/k8s/containers/{id}/exec/terminal` and `…/exec/ws`: terminals in containers, and their recordings.

The WebSocket speaks `v5.channel.k8s.io`, so that any client of Kubernetes'
exec works. It carries what a replica of container-ops holds: bytes pass through
here, and who may have them is decided there. A client that closes with code
1000 hangs up; after any other end the terminal waits to be attached to again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from kubelore.common.bus import Bus, Session
from kubelore.common.contracts import terminals
from kubelore.common.contracts.container_history import ContainerOperationRef
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.terminals import (
    MAX_PAYLOAD,
    MAX_SIDE,
    STATUS,
    STDIN,
    AttachedTerminal,
    AttachTerminal,
    EndTerminal,
    OpenTerminal,
    replica_of,
)
from kubelore.common.errors import BadRequest, KubeloreError, NotFound, Unavailable
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.container_ids import ContainerPath
from kubelore.gateway.dependencies import StandingOf
from kubelore.gateway.event_stream import Outflow, Slots
from kubelore.gateway.problems import documented
from kubelore.gateway.standing import Standing
from kubelore.gateway.websockets import NORMAL, Socket, SocketClosed, accepted, agreed

PREFIX = "/api/k8s/containers"
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
SESSION_HEADER = "Kubelore-Session"
"""Names the session in the answer to a handshake that opened one."""
IDLE_S = 12.0
_GOODBYE_S = 5.0

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Words = Annotated[list[Annotated[str, Field(max_length=131_072)]], Field(max_length=1000)]
Reason = Annotated[str, Field(max_length=1000)]
SessionId = Annotated[str, Query(max_length=100, description="A terminal's `session_id`.")]


class TerminalBody(BaseModel):
    """What a terminal begins with."""

    model_config = ConfigDict(extra="forbid")

    command: Words = Field([], description="Without one a shell: bash, else sh.")
    columns: Side = 80
    rows: Side = 24
    reason: Reason = Field("", description="Why; policies may ask for one.")
    debug: bool = Field(
        False,
        description="In an ephemeral container beside this one, which is added to the pod when there is none.",
    )


class TerminalSession(BaseModel):
    """A terminal that runs, and waits a minute for a WebSocket."""

    session_id: str
    websocket_url: str = Field(
        description="With subprotocol v5.channel.k8s.io; relative to this API's address."
    )
    container: str = Field(description="Where it runs.")
    command: list[str]
    operation_id: str = Field(description="Its entry in the history of operations, and of its recording.")


def terminal_routes(bus: Bus, slots: Slots, public_url: str) -> APIRouter:
    """The router; `slots` bounds the WebSockets that are open."""
    router = APIRouter(prefix=PREFIX, tags=["containers"])
    base = "ws" + public_url.rstrip("/").removeprefix("http") if public_url else ""

    @router.post(
        "/{id:container}/exec/terminal",
        status_code=201,
        response_model=TerminalSession,
        dependencies=[audited("containers.terminal", path="id")],
        summary="Open a terminal in a container",
        responses=documented(403, 404, 409, 422),
    )
    async def open_terminal(id: ContainerPath, body: TerminalBody) -> Response:
        asked = OpenTerminal(target=id, **body.model_dump())
        opened = await bus.request(terminals.OPEN_TERMINAL, asked)
        path = f"{PREFIX}/{quote(id, safe=':')}/exec/ws?{urlencode({'session': opened.id})}"
        answer = TerminalSession(
            session_id=opened.id,
            websocket_url=base + path,
            container=opened.target,
            command=opened.command,
            operation_id=opened.operation_id,
        )
        return json_answer(answer.model_dump(), 201)

    @router.delete(
        "/{id:container}/exec/terminal",
        status_code=204,
        dependencies=[audited("containers.terminal-end", path="id")],
        summary="Hang up a terminal of one's own",
        responses=documented(403, 404),
    )
    async def end_terminal(id: ContainerPath, session: SessionId) -> Response:
        ContainerId.parse(id)
        await _of_replica(
            bus.request(terminals.END_TERMINAL, EndTerminal(session), target=replica_of(session))
        )
        return Response(status_code=204)

    _socket(router, bus, slots)
    _recording(router, bus)
    return router


async def _asked(
    id: ContainerPath,
    command: Annotated[Words | None, Query()] = None,
    tty: bool = False,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    columns: Annotated[Side, Query()] = 80,
    rows: Annotated[Side, Query()] = 24,
    reason: Annotated[Reason, Query()] = "",
    debug: bool = False,
) -> OpenTerminal:
    """What Kubernetes' own clients ask for, and what only Kubelore knows; without a command it is a shell."""
    del stdout, stderr  # Always both; clients of Kubernetes say so.
    shell = not command
    return OpenTerminal(
        target=id,
        command=command or [],
        tty=tty or shell,
        stdin=stdin or shell,
        columns=columns,
        rows=rows,
        reason=reason,
        debug=debug,
    )


def _socket(router: APIRouter, bus: Bus, slots: Slots) -> None:
    @router.websocket("/{id:container}/exec/ws", dependencies=[audited("containers.terminal", path="id")])
    async def carry(
        websocket: WebSocket,
        id: ContainerPath,
        standing: Annotated[Standing, StandingOf],
        asked: Annotated[OpenTerminal, Depends(_asked)],
        session: SessionId = "",
        watch: bool = False,
    ) -> None:
        agreed(websocket, PROTOCOLS)
        slots.check(standing.caller.subject)
        if not session:
            session = (await bus.request(terminals.OPEN_TERMINAL, asked)).id
        attached = await _attach(bus, id, session, watch)
        async with (
            accepted(websocket, standing, slots, PROTOCOLS, {SESSION_HEADER: session}) as socket,
            Session(bus, attached.session, "client", idle_s=IDLE_S) as carrying,
        ):
            await _relay(socket, carrying)


async def _attach(bus: Bus, id_: str, session: str, watch: bool) -> AttachedTerminal:
    """Attach to a terminal of the pod that the path names. Raises NotFound."""
    asked = AttachTerminal(id=session, watch=watch)
    attached = await _of_replica(bus.request(terminals.ATTACH_TERMINAL, asked, target=replica_of(session)))
    named, found = ContainerId.parse(id_), ContainerId.parse(attached.target)
    if (named.cluster, named.namespace, named.pod) != (found.cluster, found.namespace, found.pod):
        raise _gone()
    return attached


async def _of_replica(asking: Any) -> Any:
    """The answer of the one replica that holds a terminal; where it is gone, so is the terminal."""
    try:
        return await asking
    except Unavailable as error:
        raise _gone() from error


def _gone() -> NotFound:
    return NotFound(
        "there is no such terminal (any more)",
        remedy="Open another; `kubelore operations` tells how it ended.",
    )


async def _relay(socket: Socket, session: Session) -> None:
    """Carry both directions until one ends. Raises what the terminal ended with, after telling it as a Status."""
    showing = asyncio.create_task(_show(socket, session))
    typing = asyncio.create_task(_type(socket, session))
    try:
        await asyncio.wait({showing, typing}, return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            try:
                showing.result()
            except KubeloreError as error:
                await socket.send(bytes([STATUS]) + _status(error))
                raise
            await session.finish()
            return
        try:
            typing.result()
        except SocketClosed as closed:
            if closed.code == NORMAL:
                await _hang_up(session, showing)
            raise
    finally:
        showing.cancel()
        typing.cancel()
        await asyncio.gather(showing, typing, return_exceptions=True)


async def _show(socket: Socket, session: Session) -> None:
    async for frame in session:
        await socket.send(frame)


async def _type(socket: Socket, session: Session) -> None:
    while True:
        received = await socket.receive()
        message = received.encode() if isinstance(received, str) else received
        channel, payload = message[:1], memoryview(message)[1:]
        if len(payload) <= MAX_PAYLOAD:
            await session.send(message)
            continue
        if channel != bytes([STDIN]):
            raise BadRequest("only input may be so long")
        for start in range(0, len(payload), MAX_PAYLOAD):
            await session.send(channel + payload[start : start + MAX_PAYLOAD])


async def _hang_up(session: Session, showing: asyncio.Task[None]) -> None:
    """Say that nobody will come back, and let that arrive."""
    await session.finish()
    await asyncio.wait({showing}, timeout=_GOODBYE_S)


def _status(error: KubeloreError) -> bytes:
    said = f"{error.detail} - {error.remedy}" if error.remedy else error.detail
    return msgspec.json.encode(
        {"metadata": {}, "status": "Failure", "message": said, "reason": error.reason, "code": error.status}
    )


def _recording(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/operations/{id}/recording",
        summary="What a terminal showed, in asciicast v2",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "For `kubelore replay` and asciinema. `Recording-Whole: false` where its end is missing.",
                "content": {"application/x-asciicast": {"schema": {"type": "string"}}},
            },
            **documented(404),
        },
        dependencies=[audited("containers.recording", path="id", of="operations")],
    )
    async def recording(
        id: Annotated[str, Path(max_length=64)], standing: Annotated[Standing, StandingOf]
    ) -> Response:
        found = await bus.request(terminals.RECORDING, ContainerOperationRef(id))
        headers = {"Recording-Whole": str(found.whole).lower()}
        return Outflow(_pieces(bus, found.session), standing, "application/x-asciicast", headers)


async def _pieces(bus: Bus, session: str) -> AsyncGenerator[bytes]:
    async with Session(bus, session, "client") as carrying, aclosing(aiter(carrying)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            yield piece
        await carrying.finish()
