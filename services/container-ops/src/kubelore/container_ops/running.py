"""One command in one container, from its start to its end, whoever it is for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.execution import ExecEnd
from kubelore.common.errors import (
    BadRequest,
    DeadlineExceeded,
    Invalid,
    KubeloreError,
    Unavailable,
    UpstreamError,
)
from kubelore.common.kube import Channel, ExecStream
from kubelore.common.reach import Reached
from kubelore.container_ops.pods import named_container, read_pod
from kubelore.container_ops.sighting import Seen, Sighting

Take = Callable[[Channel, bytes], Awaitable[None]]
"""Takes output as it comes; the command waits while it does not return."""

_NOT_FOUND = ("executable file not found", "no such file or directory", "not found")


@dataclass(frozen=True)
class Command:
    """What is to be run where. `target` names its container; `timeout_s` is after how long it is stopped."""

    target: ContainerId
    words: Sequence[str]
    timeout_s: float
    tty: bool = False


async def run_command(
    reached: Reached,
    command: Command,
    take: Take,
    stdin: AsyncIterator[bytes] | None = None,
    seen: Seen | None = None,
) -> ExecEnd:
    """Run a command and pass its output to `take`; when its time is over, or this is cancelled, it is stopped.

    `seen` is told which process it is when it lasts. Raises what
    `KubeClient.exec` does, NotFound for a container that the pod does not have,
    and Unavailable when the connection breaks or `take` or `stdin` raise it;
    then too the command is stopped.
    """
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    until = asked_at + command.timeout_s
    end = ExecEnd()
    try:
        async with asyncio.timeout_at(until):
            stream = await _open(reached, command, stdin is not None)
        sighting = Sighting(reached, command.target, command.words, stream, asked_at, seen)
        async with stream, sighting:
            end.exit_code = await _carried(stream, sighting, take, stdin, until)
            end.timed_out = end.exit_code is None
            end.stopped = end.exit_code is None and await sighting.stop()
    except TimeoutError:
        end.timed_out = True
    except UpstreamError as error:
        raise _not_found(command, error) from error
    end.duration_ms = round((loop.time() - asked_at) * 1000)
    return end


async def _carried(
    stream: ExecStream, sighting: Sighting, take: Take, stdin: AsyncIterator[bytes] | None, until: float
) -> int | None:
    """The exit code of a command; None when its time was over before it ended."""
    try:
        async with asyncio.timeout_at(until):
            await _converse(stream, take, stdin)
    except TimeoutError:
        return None
    except (asyncio.CancelledError, Unavailable, DeadlineExceeded):
        if stream.exit_code is None:
            await asyncio.shield(asyncio.create_task(sighting.stop()))
        raise
    return stream.exit_code


async def _open(reached: Reached, command: Command, stdin: bool) -> ExecStream:
    target = command.target
    try:
        return await reached.client.exec(
            target.namespace, target.pod, target.container, list(command.words), stdin=stdin, tty=command.tty
        )
    except BadRequest:
        # A refused handshake seldom says which of the pod's containers could have been meant.
        named_container(await read_pod(reached, target), target)
        raise


async def _converse(stream: ExecStream, take: Take, stdin: AsyncIterator[bytes] | None) -> None:
    """Both directions until the command ends; input that it does not read any more is nobody's fault."""
    feeding = asyncio.create_task(_feed(stream, stdin)) if stdin is not None else None
    reading = asyncio.create_task(_read(stream, take))
    try:
        if feeding is not None:
            await asyncio.wait((feeding, reading), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                feeding.result()
        await reading
    finally:
        tasks = [task for task in (feeding, reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(stream: ExecStream, take: Take) -> None:
    async for channel, data in stream:
        await take(channel, data)


async def _feed(stream: ExecStream, stdin: AsyncIterator[bytes]) -> None:
    async for data in stdin:
        await stream.send(data)
    with suppress(KubeloreError):
        await stream.close_stdin()


def _not_found(command: Command, error: UpstreamError) -> KubeloreError:
    """Of a program that is not there the runtime tells in the middle of its own troubles."""
    if not any(sign in error.detail for sign in _NOT_FOUND):
        return error
    return Invalid(
        f"the container {command.target.container} has no program {command.words[0][:200]!r}",
        remedy="Look into it from a debug container, which brings its own programs (`debug`, --debug).",
        code="NoSuchProgram",
    )
