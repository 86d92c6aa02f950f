"""The gateway's side of a command: asks for it, carries its input, and collects what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from fastapi import Request

from kubelore.common.bus import Bus
from kubelore.common.bus.sessions import Session
from kubelore.common.contracts.execution import EXEC, ExecEnd, StartedExec, StartExec, Stream
from kubelore.common.errors import Unavailable

PIECE = 60 * 1024
ANSWER_S = 15.0
"""How much longer we wait than the command may take: it is stopped where it runs, which takes a while too."""


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
    async with asyncio.timeout(asked.timeout_s + ANSWER_S), Session(bus, started.session, "client") as session:
        feeding = asyncio.create_task(_feed(session, stdin)) if asked.stdin else None
        try:
            await _collect(session, ran)
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
        await session.finish()
    return ran


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
    raise Unavailable(
        "the command's end was not told",
        remedy="Look it up in `kubelore operations`, and run it again if it may run twice.",
        outcome="unknown",
    )


class ClientGone(Exception):
    """Whoever asked does not wait any more: nobody is there to be answered."""


@asynccontextmanager
async def while_connected(request: Request) -> AsyncGenerator[None]:
    """A block that is cancelled when the client of the request goes; raises ClientGone then."""
    work = asyncio.current_task()
    assert work is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        work.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and work.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
