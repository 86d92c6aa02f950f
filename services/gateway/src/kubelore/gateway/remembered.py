"""What was read from the database a moment ago, so that not every request reads it again.

A record counts as it was read for 5 s: that is how soon a revocation is seen at
every replica. While the database cannot be asked, what is known is good for 30 s
after it was read, and what is not known raises Unavailable.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from kubelore.common.errors import DeadlineExceeded, Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

FRESH_S = 5.0
GRACE_S = 30.0
KEPT = 10_000
PATIENCE_S = 2.0
"""How long a request waits for the database before it makes do with what is known."""
PAUSE_S = 1.0
"""After a failure nobody waits again for so long."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """Records by id, 10,000 at most, those used last. What is not there is not remembered: it may come to be."""

    def __init__(
        self, read: Callable[[str], Awaitable[T | None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._kept: OrderedDict[str, tuple[T, float]] = OrderedDict()
        self._reading: dict[str, asyncio.Task[T | None]] = {}
        self._away_until = 0.0

    def known(self, key: str) -> T | None:
        """What is remembered, without asking anybody, if it is recent enough to count."""
        kept = self._kept.get(key)
        return kept[0] if kept is not None and self._clock() - kept[1] < GRACE_S else None

    async def get(self, key: str) -> T | None:
        """The record, None when there is none. Raises Unavailable when that cannot be told now."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[1] < FRESH_S:
            self._kept.move_to_end(key)
            return kept[0]
        try:
            return await self._fresh(key)
        except (Unavailable, DeadlineExceeded, TimeoutError) as error:
            known = self.known(key)
            if known is None:
                raise Unavailable(
                    "credentials cannot be checked now: the database does not answer",
                    remedy="Ask again in a few seconds.",
                    retry_after_s=5,
                ) from error
            return known

    def forget(self, key: str) -> None:
        """Read it anew next time."""
        self._kept.pop(key, None)

    async def _fresh(self, key: str) -> T | None:
        if self._clock() < self._away_until:
            raise Unavailable("the database did not answer a moment ago")
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.create_task(self._ask(key))
            self._reading[key] = reading
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        # Shielded: one of those who wait for it may leave.
        return await asyncio.shield(reading)

    async def _ask(self, key: str) -> T | None:
        at = self._clock()
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await self._read(key)
        except (Unavailable, DeadlineExceeded, TimeoutError) as error:
            self._away_until = self._clock() + PAUSE_S
            log.warning("credentials not read", error=type(error).__name__)
            raise
        self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = (found, at)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found
