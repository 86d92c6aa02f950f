"""What every server of the stack can do: be prepared, started, killed and started again where it was."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from kubelore.common.errors import Unavailable
from kubelore.stack.child import Child, Command, until_ready
from kubelore.stack.output import RotatedLog
from kubelore.stack.ports import free_port

HOST = "127.0.0.1"


class Server:
    """A server with its files in one directory (0700) and one port on the loopback address.

    The supervisor of the stack uses only `prepare`, `command` and `probe`, and
    runs the process itself; the rest is for tests and tools.
    """

    name = "server"
    ready_within_s = 30.0

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port(HOST)
        self._child: Child | None = None
        self._log: RotatedLog | None = None

    async def prepare(self) -> None:
        """Make the directory, and write what the server reads at its start."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self) -> Command:
        """How it is started."""
        raise NotImplementedError

    async def probe(self) -> bool:
        """Whether it takes requests now."""
        return await accepts_connections(self.port)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    async def start(self) -> None:
        """Start it and wait until it takes requests.

        Raises `Unavailable` with the last lines of its log when it does not.
        """
        await self.prepare()
        self._log = self._log or RotatedLog(self.directory / f"{self.name}.log")
        self._log.begin()
        self._child = await Child.start(self.command(), self._log.write)
        try:
            await until_ready(self._child, self.probe, self.ready_within_s)
        except Unavailable as error:
            await self.kill()
            raise Unavailable(f"{error.detail}:\n{self._log.tail()}") from error

    async def stop(self) -> None:
        """Stop it in its own order; nothing happens when it does not run."""
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def kill(self) -> None:
        """Kill -9, as a power cut would."""
        if self._child is not None:
            await self._child.kill()
            self._child = None

    async def restart(self) -> None:
        """Start it again on the same port and data, after a stop when it still runs."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _running(self) -> Child:
        if self._child is None:
            raise Unavailable(f"{self.name} is not running")
        return self._child


async def accepts_connections(port: int) -> bool:
    """Whether anything listens on the port of the loopback address."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(HOST, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
