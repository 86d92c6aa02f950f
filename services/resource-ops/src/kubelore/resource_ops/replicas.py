"""Who else observes: the replicas that are there, and the holder of every cluster, as the leases say.

Both are followed and not asked for, so that a cluster whose holder died is seen
the moment its lease ends. A replica that was killed is seen sooner: the bus
knows at once that nobody serves its name any more. One that was stopped still
has its connection; for that one there is the lease.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from time import monotonic

from kubelore.common.bus import Bus, Holding, Leases, NobodyAnswers
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import AreYouThere, observer_lease
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

RETRY_S = 1.0
ABSENT_S = 2.0
"""A replica whose connection broke is back within one second and a little; after this long it is gone."""
ASK_S = 0.5
_OBSERVERS = "observer."
_PRESENCE = "replica.resource-ops."


class Replicas:
    """The replicas of this service and what each holds; `on_change` is called whenever that changes."""

    def __init__(self, bus: Bus, leases: Leases, on_change: Callable[[], None]) -> None:
        self._bus = bus
        self._own = bus.replica
        self._leases = leases
        self._on_change = on_change
        self._holdings: dict[str, Holding] = {}
        self._present: set[str] = set()
        self._unheard_since: dict[str, float] = {}
        self._read: set[str] = set()
        self.absent: frozenset[str] = frozenset()
        """Replicas that still hold something and are not connected to the bus."""
        self.known = asyncio.Event()
        """Set once both have been read."""

    @property
    def count(self) -> int:
        """How many replicas there are, this one among them."""
        return len((self._present - self.absent) | {self._own})

    def has(self, replica: str) -> bool:
        """Whether a replica is there; the answer is yes until all have been read."""
        return not self.known.is_set() or replica == self._own or replica in self._present

    def holds(self, cluster: str) -> bool:
        """Whether anybody observes a cluster, or is about to."""
        holding = self._holdings.get(observer_lease(cluster))
        return holding is not None and holding.replica not in self.absent and not self.is_given(cluster)

    def is_given(self, cluster: str) -> bool:
        """Whether another replica has handed a cluster over to this one, which has not taken it yet."""
        holding = self._holdings.get(observer_lease(cluster))
        return holding is not None and holding.given_to(self._own)

    def asked(self, cluster: str) -> str:
        """The replica that is asked about a cluster; empty when none is."""
        holding = self._holdings.get(observer_lease(cluster))
        return holding.asked if holding is not None else ""

    def least_laden(self) -> str | None:
        """The other replica that holds the fewest clusters."""
        held = Counter(holding.replica for holding in self._holdings.values())
        others = self._present - self.absent - {self._own}
        return min(others, key=lambda replica: (held[replica], replica), default=None)

    async def run(self) -> None:
        """Be present, and follow the others, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_present())
            group.create_task(self._follow(_OBSERVERS))
            group.create_task(self._follow(_PRESENCE))
            group.create_task(self._keep_listening())

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
                async for holdings in self._leases.watch_holdings(prefix):
                    self._learn(prefix, holdings)
            except KubeloreError as error:
                log.warning("leases not followed", prefix=prefix, reason=error.reason, detail=error.detail)
                await asyncio.sleep(RETRY_S)

    def _learn(self, prefix: str, holdings: dict[str, Holding]) -> None:
        if prefix == _OBSERVERS:
            self._holdings = holdings
        else:
            self._present = {holding.replica for holding in holdings.values()}
        self._read.add(prefix)
        if len(self._read) == 2:
            self.known.set()
        self._on_change()

    async def _keep_listening(self) -> None:
        """Ask every other holder, each second, whether it is there."""
        while True:
            others = {holding.replica for holding in self._holdings.values()} | self._present
            others.discard(self._own)
            await asyncio.gather(*(self._listen_to(replica) for replica in others))
            self._unheard_since = {name: at for name, at in self._unheard_since.items() if name in others}
            gone = frozenset(name for name, at in self._unheard_since.items() if monotonic() - at >= ABSENT_S)
            if gone != self.absent:
                log.info("replicas gone", gone=sorted(gone))
                self.absent = gone
                self._on_change()
            await asyncio.sleep(RETRY_S)

    async def _listen_to(self, replica: str) -> None:
        try:
            await self._bus.request(resources.PRESENT, AreYouThere(), target=replica, deadline_s=ASK_S)
        except NobodyAnswers:
            self._unheard_since.setdefault(replica, monotonic())
            return
        except KubeloreError:
            # Slow, stopped, or this replica is itself cut off: nothing is proved.
            pass
        self._unheard_since.pop(replica, None)


def fair_share(clusters: int, replicas: int) -> int:
    """The most clusters that one replica takes while others could."""
    return math.ceil(clusters / max(1, replicas))
