"""Whether one cluster's API server answers, known within seconds, by one probe for all of its watches."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from kubelore.common.bus import LeaseLost
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.incarnation import ClusterReplaced
from kubelore.resource_ops.rounds import Pause, Rounds

INTERVAL_S = 5.0
CONFIRM_S = 1.0
BACKOFF_LIMIT_S = 30.0

log = get_logger(__name__)


class Contact:
    """Probes an API server every 5 s, and within one when a watch suspects that it is gone.

    `reachable` is set while it answers; whoever lost a connection waits for it
    instead of trying on its own, so that a dead cluster costs one probe and not
    one per watched type. `greet` is awaited when contact is made or regained,
    before anybody is told, and when a suspicion proved wrong; what it raises counts as no answer, but
    for ClusterReplaced and LeaseLost, which end `run`. `last_ok` is in seconds since the epoch.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]], greet: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._greet = greet
        self._suspected = asyncio.Event()
        self._pausing = Pause()
        self.probes = Rounds()
        self.reachable = asyncio.Event()
        self.last_ok: float | None = None
        self.error: str | None = None

    def heard(self) -> None:
        """Something arrived from the API server: as good as a probe."""
        self.last_ok = time.time()

    def suspect(self) -> None:
        """A connection broke: probe now rather than in five seconds."""
        self._suspected.set()

    def hurry(self) -> None:
        """Somebody wants to know now, or has just reached it: probe at once, however long it has been away."""
        self._suspected.set()
        self._pausing.cut_short()

    async def run(self) -> None:
        """Probe until cancelled. Raises ClusterReplaced and LeaseLost."""
        failures = 0
        while True:
            doubtful = self._suspected.is_set() or failures > 0 or not self.reachable.is_set()
            self._suspected.clear()
            async with self.probes.one():
                failures = 0 if await self._answers(doubtful) else failures + 1
            if failures >= 2 and self.reachable.is_set():
                log.warning("cluster out of reach", error=self.error)
                self.reachable.clear()
            await self._pause(failures)

    async def _answers(self, doubtful: bool) -> bool:
        try:
            await self._probe()
            if doubtful:
                await self._greet()
        except (ClusterReplaced, LeaseLost):
            raise
        except KubeloreError as error:
            self.error = error.detail
            return False
        self.error = None
        self.heard()
        self.reachable.set()
        return True

    async def _pause(self, failures: int) -> None:
        """Wait for the next probe; a suspicion cuts that short, but never below a second, whoever suspects."""
        wait = pause_s(failures)
        if await self._pausing.wait(wait if failures else CONFIRM_S) or failures:
            return
        try:
            async with asyncio.timeout(wait - CONFIRM_S):
                await self._suspected.wait()
        except TimeoutError:
            return


def pause_s(failures: int) -> float:
    """Seconds from one probe to the next, after so many that failed in a row."""
    if failures == 1:
        return CONFIRM_S
    # The exponent is bounded too: a cluster that is down for a night must not overflow a float.
    factor = 2.0 ** min(failures - 2, 8) if failures else 1.0
    return min(INTERVAL_S * factor, BACKOFF_LIMIT_S) * random.uniform(0.9, 1.1)  # noqa: S311
