"""Something that is done again and again, and whoever waits for a time that begins after they asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Rounds:
    """Counts the rounds of a loop, begun and ended."""

    def __init__(self) -> None:
        self._begun = self._ended = 0
        self._turn = asyncio.Condition()

    @property
    def next(self) -> int:
        """The number of the first round that has not begun yet."""
        return self._begun + 1

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None]:
        """One round, however it ends."""
        self._begun = number = self._begun + 1
        try:
            yield
        finally:
            async with self._turn:
                self._ended = number
                self._turn.notify_all()

    async def ended(self, number: int) -> None:
        """Wait until a round has ended."""
        async with self._turn:
            await self._turn.wait_for(lambda: self._ended >= number)


class Pause:
    """A wait that somebody may cut short."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    @property
    def cut(self) -> bool:
        """Whether it was cut short, and nobody has noticed yet."""
        return self._over.is_set()

    def cut_short(self) -> None:
        """End the wait that is under way, or else the next one."""
        self._over.set()

    async def wait(self, seconds: float) -> bool:
        """Wait; True when it was cut short."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        self._over.clear()
        return True
