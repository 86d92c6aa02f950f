"""Who else observes: the replicas that are there, and the holder of every cluster, as the leases say.

Both are followed and not asked for, so that a cluster whose holder died is seen
the moment its lease ends.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from kubelore.common.bus import Bus, Leases
from kubelore.common.contracts.resources import observer_lease
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

RETRY_S = 1.0
_OBSERVERS = "observer."
_PRESENCE = "replica.resource-ops."


class Replicas:
    """The replicas of this service and what each holds; `on_change` is called whenever that changes."""

    def __init__(self, bus: Bus, leases: Leases, on_change: Callable[[], None]) -> None:
        self._own = bus.replica
        self._leases = leases
        self._on_change = on_change
        self._holders: dict[str, str] = {}
        self._present: set[str] = set()
        self._read: set[str] = set()
        self.known = asyncio.Event()
        """Set once both have been read."""

    @property
    def count(self) -> int:
        """How many replicas there are, this one among them."""
        return len(self._present | {self._own})

    def holds(self, cluster: str) -> bool:
        """Whether anybody observes a cluster."""
        return observer_lease(cluster) in self._holders

    async def run(self) -> None:
        """Be present, and follow the others, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_present())
            group.create_task(self._follow(_OBSERVERS))
            group.create_task(self._follow(_PRESENCE))

    async def _stay_present(self) -> None:
        """Hold a lease of its own, for the others to count, and take it again whenever it is lost."""
        while True:
            lease = await self._leases.wait(_PRESENCE + self._own)
            try:
                await lease.lost.wait()
            finally:
                await lease.release()

    async def _follow(self, prefix: str) -> None:
        while True:
            try:
                async for holders in self._leases.watch_holders(prefix):
                    self._learn(prefix, holders)
            except KubeloreError as error:
                log.warning("leases not followed", prefix=prefix, reason=error.reason, detail=error.detail)
                await asyncio.sleep(RETRY_S)

    def _learn(self, prefix: str, holders: dict[str, str]) -> None:
        if prefix == _OBSERVERS:
            self._holders = holders
        else:
            self._present = set(holders.values())
        self._read.add(prefix)
        if len(self._read) == 2:
            self.known.set()
        self._on_change()


def fair_share(clusters: int, replicas: int) -> int:
    """The most clusters that one replica takes while others could."""
    return math.ceil(clusters / max(1, replicas))
