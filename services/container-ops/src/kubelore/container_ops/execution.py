"""Commands asked for over the bus: checked, written down, and carried by a session each.

The answer to the request is the session; what happens then is told there, so
that a caller who leaves ends the command, and large input and output flow at
the pace of the slower side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from kubelore.common.bus.sessions import Session, new_session_id
from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import SERVICE, ContainerId
from kubelore.common.contracts.execution import (
    MAX_COMMAND_BYTES,
    MAX_TIMEOUT_S,
    MAX_WORDS,
    DebugContainer,
    DebugContainerReady,
    ExecEnd,
    StartedExec,
    StartExec,
    Stream,
)
from kubelore.common.errors import (
    BadRequest,
    Invalid,
    KubeloreError,
    TooManyRequests,
    Unavailable,
    Unsupported,
)
from kubelore.common.kube import Channel
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.reach import Reached
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.debugging import TARGET_ROOT, debug_container
from kubelore.container_ops.house import House
from kubelore.container_ops.operations import Entry
from kubelore.container_ops.pods import named_container, read_pod
from kubelore.container_ops.running import Command, run_command
from kubelore.container_ops.sighting import Seen

log = get_logger(__name__)

MAX_RUNNING = 256
"""Commands at once in one replica."""
KEPT_OUTPUT = 16 * 1024
"""Bytes of each of stdout and stderr that the journal keeps."""
_PIECE = 60 * 1024
_RENEW_S = 4.0
_COME_S = 10.0


class Execution:
    """Answers EXEC and DEBUG."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._running: set[asyncio.Task[None]] = set()

    async def start(self, request: StartExec) -> StartedExec:
        """Check that it may be run, and begin. Raises as `check_exec` does, Invalid, and what debugging raises."""
        target = _checked(request)
        debugging = ["debug", self._house.settings.debug_image]
        for command in [request.command, debugging] if request.debug else [request.command]:
            await self._house.exec_policies.check_exec(current_caller(), target, command, request.reason)
        if len(self._running) >= MAX_RUNNING:
            raise TooManyRequests(f"{MAX_RUNNING} commands are running here", retry_after_s=1)
        target = await self._located(target, request)
        started: asyncio.Future[StartedExec] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._carry(target, request, started))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await started
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def debug(self, request: DebugContainer) -> DebugContainerReady:
        """Have a debug container, as an operation of its own. Raises as `check_exec` and `debug_container` do."""
        target = ContainerId.parse(request.id)
        command = ["debug", self._house.settings.debug_image]
        await self._house.exec_policies.check_exec(current_caller(), target, command, request.reason)
        made = await self._debug(target, request.reason)
        return DebugContainerReady(id=str(made), target=str(target), root=TARGET_ROOT)

    async def stop(self) -> None:
        """End every command, as their callers' leaving would."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _located(self, target: ContainerId, request: StartExec) -> ContainerId:
        if request.debug:
            return await self._debug(target, request.reason)
        return target if target.container else await self._named(target)

    async def _named(self, target: ContainerId) -> ContainerId:
        async with self._house.reach.using(target.cluster) as reached:
            return named_container(await read_pod(reached, target), target)

    async def _debug(self, target: ContainerId, reason: str) -> ContainerId:
        image = self._house.settings.debug_image
        target = await self._named(target)
        async with (
            self._house.journal.recording("exec", target, ["debug", image], reason=reason) as entry,
            self._house.reach.streaming(target.cluster) as reached,
        ):
            made = await debug_container(reached, target, image)
            entry.result["container"] = made.container
            return made

    async def _carry(
        self, target: ContainerId, request: StartExec, started: asyncio.Future[StartedExec]
    ) -> None:
        """The life of one command; until `started` is set, errors are the answer to the request."""
        house = self._house
        try:
            async with (
                acting_under(house.bus, Mandate.of_request(), renew_every_s=_RENEW_S),
                house.reach.streaming(target.cluster) as reached,
                Session(house.bus, new_session_id(SERVICE, "gateway"), "server") as session,
                _told(session),
            ):
                conversation = _Conversation(session, request.output_bytes)
                recording = house.journal.recording("exec", target, request.command, reason=request.reason)
                async with recording as entry:
                    begun = StartedExec(session=session.id, operation_id=entry.operation_id, id=str(target))
                    started.set_result(begun)
                    seen = house.journal.seen(entry)
                    end = await _converse(conversation, reached, target, request, entry, seen)
                if end is not None:
                    await conversation.end(end)
        except KubeloreError as error:
            if not started.done():
                started.set_exception(error)
        except Exception as error:
            log.error("a command ended unexpectedly", exc_info=error)
            if not started.done():
                started.set_exception(error)


@asynccontextmanager
async def _told(session: Session) -> AsyncGenerator[None]:
    """Tell the caller in the session why it ends early."""
    try:
        yield
    except KubeloreError as error:
        await session.fail(error)
        raise
    except asyncio.CancelledError:
        ended = Unavailable(
            "the command was ended: this Kubelore is stopping, the cluster was removed, or the caller's credential "
            "no longer stands",
            remedy="Log in, and run it again if it may run twice.",
        )
        await session.fail(ended)
        raise


async def _converse(
    conversation: _Conversation,
    reached: Reached,
    target: ContainerId,
    request: StartExec,
    entry: Entry,
    seen: Seen,
) -> ExecEnd | None:
    """Run the command and note how it ended; None when its caller left."""
    listening = asyncio.create_task(conversation.listen())
    command = Command(target, request.command, request.timeout_s, request.tty)
    stdin = conversation.stdin() if request.stdin else None
    running = asyncio.create_task(run_command(reached, command, conversation.take, stdin, seen))
    try:
        await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            entry.status = "cancelled"
            return None
        end = running.result()
        end.truncated = conversation.truncated
        entry.status = "failed" if end.timed_out else "completed"
        entry.result |= msgspec.to_builtins(end)
        return end
    finally:
        entry.result |= conversation.kept()
        for task in (listening, running):
            task.cancel()
        await asyncio.gather(listening, running, return_exceptions=True)


class _Conversation:
    """Frames of one session as input and output of a command; keeps the beginning of what it said."""

    def __init__(self, session: Session, output_bytes: int) -> None:
        self._session = session
        self._left: dict[Channel, int] = {Channel.STDOUT: output_bytes, Channel.STDERR: output_bytes}
        self._bounded = output_bytes > 0
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue(4)
        self._heads: dict[Channel, bytearray] = {Channel.STDOUT: bytearray(), Channel.STDERR: bytearray()}
        self.truncated = False

    async def listen(self) -> None:
        """Take the caller's frames until it leaves: then this returns, or raises SessionEnded."""
        async for frame in self._session:
            if frame[:1] == bytes([Stream.STDIN]):
                await self._input.put(frame[1:])
            elif frame[:1] == bytes([Stream.STDIN_END]):
                await self._input.put(None)

    async def stdin(self) -> AsyncIterator[bytes]:
        """What the caller sends, until it says that this was all."""
        while (data := await self._input.get()) is not None:
            yield data

    async def take(self, channel: Channel, data: bytes) -> None:
        """Pass output on, as far as it is wanted."""
        head = self._heads[channel]
        head += data[: KEPT_OUTPUT - len(head)]
        if self._bounded:
            self.truncated = self.truncated or len(data) > self._left[channel]
            data = data[: self._left[channel]]
            self._left[channel] -= len(data)
        for start in range(0, len(data), _PIECE):
            await self._session.send(bytes([channel]) + data[start : start + _PIECE])

    async def end(self, end: ExecEnd) -> None:
        """Say how it ended, and wait until that was taken."""
        await self._session.send(bytes([Stream.END]) + msgspec.msgpack.encode(end))
        await self._session.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(_COME_S):
                await self._session.until_peer_done()

    def kept(self) -> dict[str, str]:
        """The beginning of the output for the journal; bytes that are no text are replaced."""
        heads = (("stdout", Channel.STDOUT), ("stderr", Channel.STDERR))
        return {name: self._heads[channel].decode(errors="replace") for name, channel in heads}


def _checked(request: StartExec) -> ContainerId:
    words = request.command
    if not 0 < len(words) <= MAX_WORDS or not words[0]:
        raise BadRequest(f"a command has 1 to {MAX_WORDS} words", remedy='Write it as ["ls", "-l"].')
    if sum(len(word.encode(errors="replace")) for word in words) > MAX_COMMAND_BYTES:
        raise BadRequest(f"a command has at most {MAX_COMMAND_BYTES} bytes", remedy="Send it by stdin.")
    if any("\0" in word for word in words):
        raise BadRequest("no word of a command can hold NUL")
    if not 0 < request.timeout_s <= MAX_TIMEOUT_S:
        raise Invalid(f"a command may take up to {MAX_TIMEOUT_S:g} s")
    if request.tty and request.stdin:
        raise Unsupported("a terminal is no one-shot command", remedy="Open one with exec/terminal.")
    return ContainerId.parse(request.id)
