"""A command while it runs: which process it is, for whoever has to end it.

It is looked for while its connection stands, so that it is there to be found:
later another may have begun in the same moment. A command that lasts is looked
for by itself, and told to `seen`, so that others can end it should this process
be killed; a short one only when it has to end. Where several may be meant, none
is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Self, TypeAlias

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import KubeloreError
from kubelore.common.kube import ExecStream
from kubelore.common.reach import Reached
from kubelore.container_ops.stopping import Process, ProcessRow, candidates, end_process, processes

Seen: TypeAlias = Callable[[Process], Awaitable[None]]

LOOK_AFTER_S = (5.0, 10.0, 20.0, 40.0)
"""When a command is looked for, each after the one before; once found, no more."""
STOP_S = 10.0
START_S = 2.0
"""How long after its connection stands a command may begin: a server takes it first, and then asks the node."""
_CLOCK_S = 0.25


class Sighting:
    """Of a command whose `stream` is open and read by its owner. Use as an async context manager, within the stream's.

    `asked_at` is when it was asked for, by the clock of the loop.
    """

    def __init__(
        self,
        reached: Reached,
        target: ContainerId,
        command: Sequence[str],
        stream: ExecStream,
        asked_at: float,
        seen: Seen | None = None,
    ) -> None:
        self._reached = reached
        self._target = target
        self._command = command
        self._stream = stream
        self._asked_at = asked_at
        self._opened_at = asyncio.get_running_loop().time()
        self._seen = seen
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await _ended(self._looking)

    async def stop(self) -> bool:
        """End the command, which nobody reads from any more; whether it is known to have ended.

        Takes at most 10 s, and never raises for what the cluster says.
        """
        await _ended(self._looking)
        draining = asyncio.create_task(_drain(self._stream))
        try:
            async with asyncio.timeout(STOP_S):
                rows, may_be = await self._looked()
                process = self._process
                if process is None and len(may_be) == 1 and not draining.done():
                    process = may_be[0].process
                if process is None:
                    return self._stream.exit_code is not None
                return await end_process(self._reached, self._target, process, rows) != "unknown"
        except (KubeloreError, TimeoutError):
            return False
        finally:
            await _ended(draining)

    async def _look(self) -> None:
        for wait_s in LOOK_AFTER_S:
            await asyncio.sleep(wait_s)
            with suppress(KubeloreError, TimeoutError):
                async with asyncio.timeout(STOP_S):
                    _, may_be = await self._looked()
                    if len(may_be) == 1 and self._stream.caught_up:
                        self._process = may_be[0].process
                        if self._seen is not None:
                            await self._seen(self._process)
                        return

    async def _looked(self) -> tuple[list[ProcessRow], list[ProcessRow]]:
        """All processes of the container, and those that may be the command."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        rows = await processes(self._reached, self._target)
        least, most = before - self._opened_at - START_S, loop.time() - self._asked_at + _CLOCK_S
        return rows, candidates(rows, self._command, least, most)


async def _drain(stream: ExecStream) -> None:
    """Read on, so that the word that a command has ended is heard."""
    with suppress(KubeloreError):
        async for _ in stream:
            pass


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
