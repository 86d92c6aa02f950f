"""A command in a container, over the WebSocket protocols v5 and v4 of channel.k8s.io.

Every message begins with a byte for its channel. v5 can close stdin, v4 cannot:
there a command that reads to the end of its input never finishes, and
`close_stdin` says so. Nothing piles up here: reading stops while the caller
does not read, and `send` waits while the peer does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import Self

import aiohttp
import msgspec

from kubelore.common.errors import DeadlineExceeded, KubeloreError, Unavailable, Unsupported, UpstreamError
from kubelore.common.kube.errors import Status, error_from_status, parse_status
from kubelore.common.kube.transport import NETWORK_ERRORS

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
MAX_SEND = 32 * 1024
"""Bytes in one frame, as kubectl sends; API servers read frames into buffers of this size."""
SEND_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 5.0
IDLE_S = 4 * 3600.0


class Channel(IntEnum):
    """The first byte of a message."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


class ExecStream:
    """A running command: iterate for its output, then read `exit_code`. Use as an async context manager.

    Iterating raises Unavailable when the connection breaks before the command
    ended, the API server's error when the command could not be run, and
    WatchSilent's like, DeadlineExceeded, after `idle_s` without output.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, idle_s: float = IDLE_S) -> None:
        self._socket = socket
        self._idle_s = idle_s
        self._sending = asyncio.Lock()
        self.exit_code: int | None = None
        """None until the command has ended."""
        self.caught_up = False
        """Whether its reader waits for more: then all that came was read, and the end was not among it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    @property
    def protocol(self) -> str:
        """The protocol that the server chose."""
        return self._socket.protocol or ""

    async def __aiter__(self) -> AsyncIterator[tuple[Channel, bytes]]:
        """Output as (STDOUT or STDERR, bytes), until the command has ended."""
        while self.exit_code is None:
            data = await self._receive()
            if not data:
                continue
            channel = data[0]
            if channel == Channel.ERROR:
                self.exit_code = exit_code(data[1:])
            elif channel in (Channel.STDOUT, Channel.STDERR) and len(data) > 1:
                yield Channel(channel), data[1:]

    async def _receive(self) -> bytes:
        self.caught_up = True
        try:
            message = await self._socket.receive(timeout=self._idle_s)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the command said nothing for {self._idle_s:g} s") from error
        except NETWORK_ERRORS as error:
            raise _broken() from error
        finally:
            self.caught_up = False
        if message.type == aiohttp.WSMsgType.BINARY:
            return message.data
        if message.type == aiohttp.WSMsgType.TEXT:
            return message.data.encode()
        raise _broken()

    async def send(self, data: bytes | memoryview) -> None:
        """Write to the command's stdin; returns when the peer has room for more. Raises Unavailable."""
        for start in range(0, len(data), MAX_SEND):
            await self._send(bytes([Channel.STDIN]) + data[start : start + MAX_SEND])

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal its size in characters."""
        size = msgspec.json.encode({"Width": columns, "Height": rows})
        await self._send(bytes([Channel.RESIZE]) + size)

    async def close_stdin(self) -> None:
        """End the command's input; raises Unsupported over v4, which has no message for it."""
        if self.protocol != PROTOCOLS[0]:
            raise Unsupported(
                "this cluster's exec protocol (v4) cannot end a command's input",
                remedy="use a command that knows its input's length, such as `head -c BYTES`",
            )
        await self._send(bytes([Channel.CLOSE, Channel.STDIN]))

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S), self._sending:
                await self._socket.send_bytes(message)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the command took no input for {SEND_TIMEOUT_S:g} s") from error
        except NETWORK_ERRORS as error:
            raise _broken() from error

    async def close(self) -> None:
        """Hang up; a command that still runs gets SIGHUP or goes on, as its container's runtime decides."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close()
        except NETWORK_ERRORS:
            return


def exit_code(raw: bytes) -> int:
    """The exit code in the Status that ends a command; raises its error when the command was not run.

    Servers leave `kind` out of this one Status.
    """
    status = parse_status(raw, says_kind=False) or Status(message=raw[:300].decode(errors="replace"))
    if status.status == "Success":
        return 0
    causes = (status.details.causes if status.details else None) or []
    for cause in causes if status.reason == "NonZeroExitCode" else ():
        if cause.reason == "ExitCode" and cause.message.isdecimal():
            return int(cause.message)
    raise _not_run(status)


def _not_run(status: Status) -> KubeloreError:
    error = error_from_status(status)
    if type(error) is UpstreamError:
        error.remedy = "check that the command exists in the container, and that the container runs"
    return error


def _broken() -> Unavailable:
    return Unavailable(
        "the connection to the container broke before the command ended",
        remedy="run it again if it may run twice; nobody can say how far it came",
        outcome="unknown",
    )
