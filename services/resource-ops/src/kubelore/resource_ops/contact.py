"""Whether one cluster's API server answers, known within seconds, by one probe for all of its watches."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

INTERVAL_S = 5.0
CONFIRM_S = 1.0
BACKOFF_LIMIT_S = 30.0

log = get_logger(__name__)


class Contact:
    """Probes an API server every 5 s, and at once when a watch suspects that it is gone.

    `reachable` is set while it answers; whoever lost a connection waits for it
    instead of trying on its own, so that a dead cluster costs one probe and not
    one per watched type. `last_ok` is in seconds since the epoch.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]]) -> None:
        self._probe = probe
        self._suspected = asyncio.Event()
        self.reachable = asyncio.Event()
        self.last_ok: float | None = None
        self.error: str | None = None

    def heard(self) -> None:
        """Something arrived from the API server: as good as a probe."""
        self.last_ok = time.time()

    def suspect(self) -> None:
        """A connection broke: probe now rather than in five seconds."""
        self._suspected.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        failures = 0
        while True:
            self._suspected.clear()
            failures = 0 if await self._answers() else failures + 1
            if failures >= 2 and self.reachable.is_set():
                log.warning("cluster out of reach", error=self.error)
                self.reachable.clear()
            await self._pause(failures)

    async def _answers(self) -> bool:
        try:
            await self._probe()
        except KubeloreError as error:
            self.error = error.detail
            return False
        self.error = None
        self.heard()
        self.reachable.set()
        return True

    async def _pause(self, failures: int) -> None:
        if failures == 1:
            await asyncio.sleep(CONFIRM_S)
            return
        delay = INTERVAL_S if failures == 0 else min(INTERVAL_S * 2 ** (failures - 2), BACKOFF_LIMIT_S)
        try:
            async with asyncio.timeout(delay * random.uniform(0.9, 1.1)):  # noqa: S311
                await (self._suspected.wait() if failures == 0 else asyncio.Event().wait())
        except TimeoutError:
            return
