"""The health loop: probes every cluster, records what changed, and says so on the bus.

One replica of the registry runs it (lease `registry.health`); a probe is one
small request, so that one loop serves 500 clusters. What others say of a cluster
(an observer that is live again, a connection test that succeeded) brings the
next probe forward: a cluster that is back need not wait for its turn.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from kubelore.cluster_registry.health import TIMEOUT_S, ProbeState, Verdict
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.vault import Vault
from kubelore.common.bus import Bus
from kubelore.common.contracts.clusters import ClusterEvent, ListClusters, Status, cluster_event_subject
from kubelore.common.contracts.flows import CLUSTER_EVENTS
from kubelore.common.errors import KubeloreError, NotFound, Unauthenticated
from kubelore.common.kube import AddressPolicy, KubeClient
from kubelore.common.telemetry import get_logger, outgoing

log = get_logger(__name__)

ROSTER_S = 5.0
RETRY_S = 1.0


@dataclass(slots=True)
class Probed:
    """One cluster with one generation of credentials, as the loop knows it."""

    state: ProbeState = field(default_factory=ProbeState)
    recorded: str = ""
    untold: Verdict | None = None
    decided_at: float = 0.0
    """When the last verdict fell, in seconds since the epoch: what was said before it is no news."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, event: ClusterEvent) -> None:
        """Take in what somebody else says of the cluster."""
        reached_at = event.at if event.as_of is None else event.as_of
        if self.state.connected is not False or reached_at < self.decided_at:
            return
        if event.happened == "connected" and self.state.believe():
            self.recorded, self.untold = "connected", None
        self.hurry.set()

    def observe(self, error: KubeloreError | None) -> float:
        """Take in a probe's outcome; seconds until the next one."""
        verdict, delay = self.state.observe(error is None)
        if verdict is not None:
            self.untold, self.decided_at = verdict, time.time()
        return delay

    async def pause(self, seconds: float) -> None:
        """Until the next probe is due, or somebody has news."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurry.wait()
        self.hurry.clear()


class Prober:
    """Keeps one probing task per cluster for as long as it runs."""

    def __init__(self, vault: Vault, repository: ClusterRepository, policy: AddressPolicy, bus: Bus) -> None:
        self._vault = vault
        self._repository = repository
        self._policy = policy
        self._bus = bus
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._probed: dict[str, Probed] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the roster of clusters until cancelled; its probes end with it."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                self._changed.clear()
                try:
                    await self._follow_roster()
                except KubeloreError as error:
                    log.warning("roster not read", reason=error.reason, detail=error.detail)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROSTER_S):
                        await self._changed.wait()
        finally:
            tasks = [listening, *self._tasks.values()]
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Follow what is said of clusters, until cancelled."""
        while True:
            try:
                async for event in self._bus.subscribe_events(CLUSTER_EVENTS, ClusterEvent):
                    self._hear(event)
            except KubeloreError as error:
                log.warning("cluster events not followed", reason=error.reason, detail=error.detail)
                await asyncio.sleep(RETRY_S)

    def _hear(self, event: ClusterEvent) -> None:
        if event.happened in ("added", "removed", "updated"):
            self._changed.set()
            return
        reached = event.happened == "connected" or (event.happened == "synced" and event.detail == "live")
        if reached and (probed := self._probed.get(event.cluster)) is not None:
            probed.hear(event)

    async def _follow_roster(self) -> None:
        wanted: set[tuple[str, int]] = set()
        after: str | None = None
        while True:
            page = await self._repository.page(ListClusters(limit=500, after=after))
            wanted.update((cluster.id, cluster.generation) for cluster in page.items)
            if page.next is None:
                break
            after = page.next
        for key in set(self._tasks) - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted:
            if key not in self._tasks or self._tasks[key].done():
                self._tasks[key] = asyncio.create_task(self._probe_forever(key[0]))

    async def _probe_forever(self, name: str) -> None:
        try:
            await self._probe_until_gone(name)
        except KubeloreError as error:
            log.warning("probing stopped", cluster=name, reason=error.reason, detail=error.detail)
        except Exception as error:
            # The task's boundary: the roster starts it again.
            log.error("probing failed", cluster=name, exc_info=error)

    async def _probe_until_gone(self, name: str) -> None:
        with suppress(NotFound):
            cluster, sealed = await self._repository.credentials(name)
            probed = self._probed[name] = Probed()
            try:
                access = self._vault.open(name, sealed)
                async with KubeClient(access, self._policy, headers=outgoing) as client:
                    while True:
                        error = await _probe(client)
                        delay = probed.observe(error)
                        await self._follow_up(cluster.id, probed, error)
                        await probed.pause(delay)
            finally:
                if self._probed.get(name) is probed:
                    del self._probed[name]

    async def _follow_up(self, name: str, probed: Probed, error: KubeloreError | None) -> None:
        """Write and tell what has changed; what could not be, is tried again after the next probe."""
        status = _status(probed.state, error)
        if status is None or (status, probed.untold) == (probed.recorded, None):
            return
        if await self._record(name, status, probed.untold, error):
            probed.recorded, probed.untold = status, None

    async def _record(
        self, name: str, status: Status, verdict: Verdict | None, error: KubeloreError | None
    ) -> bool:
        """Write the status, and tell of a verdict; whether it was written, else it is tried again."""
        detail = error.detail if error else ""
        try:
            await self._repository.update(
                name,
                status=status,
                health_status="healthy" if status == "connected" else "unhealthy",
                status_detail=detail,
            )
            if verdict is not None:
                event = ClusterEvent(cluster=name, happened=verdict, at=time.time(), detail=detail)
                await self._bus.publish_event(cluster_event_subject(event), event)
        except KubeloreError as problem:
            log.warning("status not recorded", cluster=name, status=status, detail=problem.detail)
            return False
        return True


def _status(state: ProbeState, error: KubeloreError | None) -> Status | None:
    """What to write of a cluster; None while a first failure waits for its confirmation."""
    if error is None:
        return "connected"
    if state.connected is not False:
        return None
    return "error" if isinstance(error, Unauthenticated) else "disconnected"


async def _probe(client: KubeClient) -> KubeloreError | None:
    try:
        await client.ready(timeout_s=TIMEOUT_S)
    except KubeloreError as error:
        return error
    return None
