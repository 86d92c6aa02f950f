"""Which clusters this replica observes: every onboarded cluster has one holder, found by leases.

A replica takes at most its fair share at once, so that replicas which start
together divide the clusters between them; what nobody has held for a while is
taken by anybody, so that a share which no longer fits strands nothing.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from kubelore.common.bus import Bus, Lease, Leases
from kubelore.common.contracts import clusters, resources
from kubelore.common.contracts.clusters import (
    ClusterConnection,
    ClusterEvent,
    ClusterRef,
    ListClusters,
    cluster_event_subject,
)
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.observer import ClusterObserver
from kubelore.resource_ops.read_model import ClusterModel, ReadModel

log = get_logger(__name__)

RECONCILE_S = 2.0
REPORT_S = 10.0
ORPHAN_S = 10.0
_REPLICA_LEASE = "replica.resource-ops."


@dataclass(slots=True)
class Held:
    """One cluster that this replica observes."""

    lease: Lease
    observer: ClusterObserver
    task: asyncio.Task[None]
    generation: int
    reported: tuple[str, int] = ("", -1)
    report_due: float = 0.0


class Fleet:
    """Takes, keeps and gives up observers as clusters, leases and replicas come and go.

    `make_observer(credentials, lease, model)` opens the sealed credentials; it
    raises KubeloreError when they cannot be used.
    """

    def __init__(
        self,
        bus: Bus,
        leases: Leases,
        make_observer: Callable[[clusters.Credentials, Lease, ClusterModel], ClusterObserver],
    ) -> None:
        self._bus = bus
        self._leases = leases
        self._make_observer = make_observer
        self._model = ReadModel()
        self._held: dict[str, Held] = {}
        self._unheld_since: dict[str, float] = {}
        self._wake = asyncio.Event()

    @property
    def model(self) -> ReadModel:
        """What this replica answers from."""
        return self._model

    def observer(self, cluster: str) -> ClusterObserver | None:
        """The observer of a cluster, None when this replica does not hold it."""
        held = self._held.get(cluster)
        return held.observer if held else None

    def observers(self, names: Iterable[str] = ()) -> list[ClusterObserver]:
        """The observers of these clusters that this replica holds; all of them when none is named."""
        wanted = list(names) or sorted(self._held)
        return [self._held[name].observer for name in wanted if name in self._held]

    async def run(self) -> None:
        """Reconcile until cancelled, then give every lease back."""
        presence = await self._leases.acquire(_REPLICA_LEASE + self._bus.replica)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reconcile_forever())
                group.create_task(self._wake_on_events())
                group.create_task(self._report_forever())
        finally:
            await asyncio.gather(*(self._give_up(name) for name in list(self._held)))
            if presence is not None:
                await presence.release()

    async def _reconcile_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._reconcile()
            except KubeloreError as error:
                log.warning("clusters not reconciled", reason=error.reason, detail=error.detail)
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_S):
                    await self._wake.wait()

    async def _wake_on_events(self) -> None:
        async for event in self._bus.subscribe_events("kubelore.v1.events.cluster.>", ClusterEvent):
            if event.happened in ("added", "removed", "updated"):
                self._wake.set()

    async def _reconcile(self) -> None:
        wanted = await self._onboarded()
        for name, held in list(self._held.items()):
            gone = name not in wanted or wanted[name].generation != held.generation
            if gone or held.task.done() or held.lease.lost.is_set():
                await self._give_up(name)
        holders = await self._leases.holders("observer.")
        replicas = max(1, len(await self._leases.holders(_REPLICA_LEASE)))
        share = math.ceil(len(wanted) / replicas)
        for name in self._takeable(wanted, holders):
            orphaned = time.monotonic() - self._unheld_since[name] > ORPHAN_S
            if len(self._held) < share or orphaned:
                await self._take(wanted[name])

    def _takeable(self, wanted: dict[str, ClusterConnection], holders: dict[str, str]) -> list[str]:
        free = [
            name
            for name in wanted
            if name not in self._held and resources.observer_lease(name) not in holders
        ]
        now = time.monotonic()
        self._unheld_since = {name: self._unheld_since.get(name, now) for name in free}
        return sorted(free)

    async def _onboarded(self) -> dict[str, ClusterConnection]:
        found: dict[str, ClusterConnection] = {}
        after: str | None = None
        while True:
            page = await self._bus.request(clusters.LIST, ListClusters(limit=500, after=after))
            found.update((cluster.id, cluster) for cluster in page.items)
            if page.next is None:
                return found
            after = page.next

    async def _take(self, cluster: ClusterConnection) -> None:
        lease = await self._leases.acquire(resources.observer_lease(cluster.id))
        if lease is None:
            return
        try:
            credentials = await self._bus.request(clusters.CREDENTIALS, ClusterRef(cluster.id))
            observer = self._make_observer(credentials, lease, self._model.open(cluster.id))
        except KubeloreError as error:
            log.warning("cluster not observed", cluster=cluster.id, reason=error.reason, detail=error.detail)
            await lease.release()
            return
        task = asyncio.create_task(self._observe(observer, lease))
        self._held[cluster.id] = Held(lease, observer, task, credentials.generation)
        log.info("observing", cluster=cluster.id, epoch=lease.epoch)

    async def _observe(self, observer: ClusterObserver, lease: Lease) -> None:
        """Run an observer until its lease is lost; whatever else ends it is logged, and it is taken up again."""
        running = asyncio.create_task(observer.run())
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            running.cancel()
            outcome = (await asyncio.gather(running, return_exceptions=True))[0]
            if isinstance(outcome, Exception):
                log.warning("observer ended", cluster=observer.cluster, exc_info=outcome)
            self._wake.set()

    async def _give_up(self, name: str) -> None:
        held = self._held.pop(name)
        held.task.cancel()
        await asyncio.gather(held.task, return_exceptions=True)
        self._model.close(name)
        with suppress(KubeloreError):
            await held.lease.release()
        log.info("no longer observing", cluster=name)

    async def _report_forever(self) -> None:
        settled: set[str] = set()
        while True:
            await asyncio.sleep(1.0)
            for name, held in list(self._held.items()):
                await self._report(name, held)
            synced = {name for name, held in self._held.items() if held.observer.state().status == "live"}
            if not synced <= settled:
                settled |= synced
                _settle()

    async def _report(self, name: str, held: Held) -> None:
        state = held.observer.state()
        said = (state.status, held.observer.model.total())
        if state.status == "syncing" or state.as_of is None or said == held.reported:
            return
        if held.reported[0] == state.status and time.monotonic() < held.report_due:
            return
        held.reported, held.report_due = said, time.monotonic() + REPORT_S
        event = ClusterEvent(
            cluster=name, happened="synced", at=state.as_of, detail=state.status, resource_count=said[1]
        )
        with suppress(KubeloreError):
            await self._bus.publish_event(cluster_event_subject(event), event)


def _settle() -> None:
    """Take what a first sync has built out of the garbage collector's sight.

    It lives until its cluster is removed, and a full collection that walks it
    stops every answer for up to 100 ms.
    """
    gc.collect()
    gc.freeze()
