"""The gateway's side of a command: asks for it, carries its input, and collects what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from fastapi import Request

from kubelore.common.bus import Bus
from kubelore.common.bus.sessions import Session, SessionEnded
from kubelore.common.contracts.execution import EXEC, ExecEnd, StartedExec, StartExec, Stream
from kubelore.common.errors import DeadlineExceeded, Unavailable
from kubelore.common.mandates import ended_by

PIECE = 60 * 1024
ANSWER_S = 15.0
"""How much longer we wait than the command may take: it is stopped where it runs, which takes a while too."""
_LOOK = "Look it up in `kubelore operations`, and run it again if it may run twice."


@dataclass
class Ran:
    """A command that ended, and what it said."""

    started: StartedExec
    end: ExecEnd
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)


async def run(bus: Bus, asked: StartExec, stdin: bytes = b"") -> Ran:
    """Run a command to its end. Cancelling this stops it.

    Raises what container-ops does, and Unavailable with an unknown outcome when
    the service goes away meanwhile.
    """
    started = await bus.request(EXEC, asked)
    ran = Ran(started, ExecEnd())
    try:
        async with (
            asyncio.timeout(asked.timeout_s + ANSWER_S),
            Session(bus, started.session, "client") as session,
        ):
            await _converse(session, ran, stdin if asked.stdin else None)
    except SessionEnded as error:
        raise _untold() from error
    except TimeoutError as error:
        raise DeadlineExceeded(
            "nobody said how the command ended", remedy=_LOOK, outcome="unknown"
        ) from error
    return ran


async def _converse(session: Session, ran: Ran, stdin: bytes | None) -> None:
    feeding = asyncio.create_task(_feed(session, stdin)) if stdin is not None else None
    try:
        await _collect(session, ran)
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
    await session.finish()


async def _feed(session: Session, stdin: bytes) -> None:
    for start in range(0, len(stdin), PIECE):
        await session.send(bytes([Stream.STDIN]) + stdin[start : start + PIECE])
    await session.send(bytes([Stream.STDIN_END]))


async def _collect(session: Session, ran: Ran) -> None:
    async for frame in session:
        channel, data = frame[0], frame[1:]
        if channel == Stream.STDOUT:
            ran.stdout += data
        elif channel == Stream.STDERR:
            ran.stderr += data
        elif channel == Stream.END:
            ran.end = msgspec.msgpack.decode(data, type=ExecEnd)
            return
    raise _untold()


def _untold() -> Unavailable:
    return Unavailable("the command's end was not told", remedy=_LOOK, outcome="unknown")


class ClientGone(Unavailable):
    """Whoever asked does not wait any more."""

    reason = "ClientGone"


@asynccontextmanager
async def while_connected(request: Request) -> AsyncGenerator[None]:
    """A block that is cancelled when the client of the request goes; raises ClientGone then."""
    async with ended_by(asyncio.create_task(_until_gone(request))):
        yield


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientGone("the client left before its command ended: it was stopped")
