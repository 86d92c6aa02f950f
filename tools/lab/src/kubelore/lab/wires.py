"""A way to a server that a test can slow down and cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

_Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Wire:
    """TCP to a port of this machine. Use as an async context manager; clients connect to `port`.

    `delay_s` is how long each piece that the server says takes.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> int:
        """Reset every connection that stands; how many those were."""
        cut = len(self._writers) // 2
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        return cut

    async def asks(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry what the client says."""
        while piece := await source.read(64 * 1024):
            target.write(piece)
            await target.drain()

    async def answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry what the server says."""
        while piece := await source.read(64 * 1024):
            await asyncio.sleep(self.delay_s)
            target.write(piece)
            await target.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for carry, source, target in ((self.asks, reader, back), (self.answers, there, writer)):
            task = asyncio.create_task(self._carry(carry, source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, carry: _Carry, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await carry(source, target)
        target.close()
        self._writers.discard(target)
