"""Which clusters this replica observes: every onboarded cluster has one holder, found by leases.

A replica takes at most its fair share at once, so that replicas which start
together divide the clusters between them; what nobody has held for a while is
taken by anybody, so that a share which no longer fits strands nothing. One that
holds more than its share for a while, since others have come, hands over one
cluster at a time: it goes on answering until the other has listed it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from kubelore.common.bus import Bus, Lease, Leases
from kubelore.common.contracts import clusters, resources
from kubelore.common.contracts.clusters import (
    ClusterConnection,
    ClusterEvent,
    ClusterRef,
    ListRoster,
    cluster_event_subject,
)
from kubelore.common.contracts.flows import CLUSTER_EVENTS
from kubelore.common.errors import DeadlineExceeded, KubeloreError, Unavailable
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.allocator import give_back
from kubelore.resource_ops.budget import Budget, Hold, Key, beyond_watches, plan
from kubelore.resource_ops.observer import OVER_MEMORY, OVER_WATCHES, ClusterObserver
from kubelore.resource_ops.read_model import ClusterModel, ReadModel
from kubelore.resource_ops.replicas import Replicas, fair_share
from kubelore.resource_ops.setbacks import Setbacks

log = get_logger(__name__)

RECONCILE_S = 2.0
LINGER_S = 60.0
"""The longest that a cluster handed over is answered for by the replica that gave it."""
GRACE_S = 2.0
"""Whoever still follows the lease a moment late asks the one that gave it."""
SETTLE_S = 30.0
"""After this long the replica that took a cluster answers for it even though it is not live."""
REPORT_S = 10.0
BUDGET_S = 1.0
REFRESH_S = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a cluster is nobody's until anybody takes it, and over its share until a replica gives one up."""

    orphan_s: float = 10.0
    surplus_s: float = 30.0


@dataclass(slots=True)
class Held:
    """One cluster that this replica observes."""

    lease: Lease
    observer: ClusterObserver
    task: asyncio.Task[bool]
    """Its outcome: whether the observer failed, rather than lost its lease."""
    generation: int
    since: float = field(default_factory=time.monotonic)
    reported: tuple[str, int] = ("", -1)
    reported_at: float = 0.0
    given_at: float = 0.0
    """When it was handed over; 0 while it is not."""
    answered_at: float = 0.0
    """Since when another answers for it; 0 while none does."""

    @property
    def ended(self) -> bool:
        """Whether nobody observes any more, whatever the held state still says."""
        return self.task.done() or (self.lease.lost.is_set() and not self.given_at)


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
        pace: Pace | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._bus = bus
        self._leases = leases
        self._make_observer = make_observer
        self._pace = pace or Pace()
        self.budget = budget or Budget()
        self._model = ReadModel()
        self._held: dict[str, Held] = {}
        self._given: dict[str, Held] = {}
        """Clusters handed over, for which this replica still answers."""
        self._unheld_since: dict[str, float] = {}
        self._surplus_since: float | None = None
        self._setbacks = Setbacks()
        self._wake = asyncio.Event()
        self._replicas = Replicas(bus, leases, self._wake.set)

    @property
    def model(self) -> ReadModel:
        """What this replica answers from."""
        return self._model

    def observer(self, cluster: str) -> ClusterObserver | None:
        """The observer of a cluster, None when this replica does not hold it (any more)."""
        held = self._held.get(cluster) or self._given.get(cluster)
        return held.observer if held and not held.ended else None

    def observers(self, names: Iterable[str] = ()) -> list[ClusterObserver]:
        """The observers of these clusters that this replica holds; all of them when none is named."""
        wanted = list(names) or sorted(self._held.keys() | self._given.keys())
        return [found for name in wanted if (found := self.observer(name)) is not None]

    def has_replica(self, replica: str) -> bool:
        """Whether a replica of this service is there."""
        return self._replicas.has(replica)

    async def run(self) -> None:
        """Reconcile until cancelled, then give every lease back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._replicas.run())
                group.create_task(self._reconcile_forever())
                group.create_task(self._wake_on_events())
                group.create_task(self._report_forever())
                group.create_task(self._keep_budget())
        finally:
            await self._forget_given(*self._given)
            await self._give_up(*self._held)

    async def _reconcile_forever(self) -> None:
        await self._replicas.known.wait()
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
        while True:
            try:
                async for event in self._bus.subscribe_events(CLUSTER_EVENTS, ClusterEvent):
                    if event.happened in ("added", "removed", "updated"):
                        self._wake.set()
                    elif event.happened == "connected" and (observer := self.observer(event.cluster)):
                        observer.recover()
            except KubeloreError as error:
                log.warning("cluster events not followed", reason=error.reason, detail=error.detail)
                await asyncio.sleep(RECONCILE_S)

    async def _reconcile(self) -> None:
        # First what needs no registry: an observer that ended must not answer while the registry is away.
        await self._drop_ended()
        await self._forget_given(*self._answered_elsewhere())
        wanted = await self._onboarded()
        self._setbacks.keep(set(wanted))
        await self._give_up(
            *(
                name
                for name, held in self._held.items()
                if name not in wanted or wanted[name].generation != held.generation
            )
        )
        for name in self._takeable(wanted):
            orphaned = time.monotonic() - self._unheld_since[name] > self._pace.orphan_s
            due = orphaned or self._replicas.is_given(name)
            if due or len(self._held) < fair_share(len(wanted), self._replicas.count):
                await self._take(wanted[name])
        for name in self._surplus(len(wanted)):
            await self._hand_over(name)

    async def _drop_ended(self) -> None:
        ended = {name: held for name, held in self._held.items() if held.ended}
        await self._give_up(*ended)
        for name, held in ended.items():
            if not held.task.cancelled() and held.task.result():
                lasted = time.monotonic() - held.since
                self._setbacks.note(name, held.generation, lasted_s=lasted)

    def _takeable(self, wanted: dict[str, ClusterConnection]) -> list[str]:
        """What nobody holds, and has not just failed here."""
        free = [name for name in wanted if name not in self._held and not self._replicas.holds(name)]
        now = time.monotonic()
        self._unheld_since = {name: self._unheld_since.get(name, now) for name in free}
        return sorted(name for name in free if self._setbacks.may_try(name, wanted[name].generation))

    def _surplus(self, wanted: int) -> list[str]:
        """The one cluster to give up now, when this replica has held more than its share for a while."""
        now = time.monotonic()
        if len(self._held) <= fair_share(wanted, self._replicas.count):
            self._surplus_since = None
        elif self._surplus_since is None:
            self._surplus_since = now
        elif now - self._surplus_since >= self._pace.surplus_s:
            self._surplus_since = now
            return [min(self._held, key=lambda name: self._held[name].observer.model.total())]
        return []

    async def _hand_over(self, name: str) -> None:
        """Give a cluster to the replica that has the fewest, and answer for it until that one can."""
        taker, held = self._replicas.least_laden(), self._held[name]
        if taker is None:
            return
        if held.observer.state().status != "live":
            await self._give_up(name)
            return
        await held.observer.fall_silent()
        held.given_at = time.monotonic()
        self._given[name] = self._held.pop(name)
        await held.lease.hand_over(taker)
        log.info("handed over", cluster=name, to=taker)

    def _answered_elsewhere(self) -> list[str]:
        """What was handed over and is answered for by another by now, or has been for too long."""
        now = time.monotonic()
        for name, held in self._given.items():
            if not held.answered_at and self._replicas.asked(name) != self._bus.replica:
                held.answered_at = now
        return [
            name
            for name, held in self._given.items()
            if held.ended or 0 < held.answered_at <= now - GRACE_S or now - held.given_at > LINGER_S
        ]

    async def _forget_given(self, *names: str) -> None:
        given = [(name, self._given.pop(name)) for name in names]
        for _, held in given:
            held.task.cancel()
        await asyncio.gather(*(held.task for _, held in given), return_exceptions=True)
        for name, _ in given:
            self._model.close(name)
            log.info("no longer answering", cluster=name)

    async def _onboarded(self) -> dict[str, ClusterConnection]:
        found: dict[str, ClusterConnection] = {}
        after: str | None = None
        while True:
            page = await self._bus.request(clusters.ROSTER, ListRoster(after=after))
            found.update((cluster.id, cluster) for cluster in page.items)
            if page.next is None:
                return found
            after = page.next

    async def _take(self, cluster: ClusterConnection) -> None:
        await self._forget_given(*({cluster.id} & self._given.keys()))
        lease = await self._leases.acquire(resources.observer_lease(cluster.id), absent=self._replicas.absent)
        if lease is None:
            return
        try:
            credentials = await self._bus.request(clusters.CREDENTIALS, ClusterRef(cluster.id))
            observer = self._make_observer(credentials, lease, self._model.open(cluster.id))
        except BaseException as error:
            self._model.close(cluster.id)
            await lease.release()
            if not isinstance(error, Exception):
                raise
            # Whatever is wrong with one cluster must not stop the others.
            unexpected = None if isinstance(error, KubeloreError) else error
            log.warning("cluster not observed", cluster=cluster.id, detail=str(error), exc_info=unexpected)
            if not isinstance(error, Unavailable | DeadlineExceeded):
                self._setbacks.note(cluster.id, cluster.generation)
            return
        observer.beyond = partial(self._beyond, observer)
        task = asyncio.create_task(self._observe(observer, lease))
        self._held[cluster.id] = Held(lease, observer, task, credentials.generation)
        log.info("observing", cluster=cluster.id, epoch=lease.epoch)

    async def _observe(self, observer: ClusterObserver, lease: Lease) -> bool:
        """Run an observer until its lease is lost; True when it failed before that, which is logged."""
        running = asyncio.create_task(observer.run())
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
            failed = running.done() and not lease.lost.is_set()
            if observer.silent:
                await asyncio.wait({running})
        finally:
            lost.cancel()
            running.cancel()
            outcome = (await asyncio.gather(running, return_exceptions=True))[0]
            if isinstance(outcome, Exception):
                log.warning("observer ended", cluster=observer.cluster, exc_info=outcome)
            self._wake.set()
        return failed

    async def _give_up(self, *names: str) -> None:
        """Stop observing clusters, all at once, and forget what is held of them."""
        given_up = [(name, self._held[name]) for name in names]
        for _, held in given_up:
            if not held.ended:
                held.task.cancel()
        await asyncio.gather(*(held.task for _, held in given_up), return_exceptions=True)
        for name, held in given_up:
            self._model.close(name)
            with suppress(KubeloreError):
                await held.lease.release()
            del self._held[name]
            log.info("no longer observing", cluster=name)

    def _over_watches(self, *more: ClusterObserver) -> set[Key]:
        observers = {one.cluster: one for one in (*self.observers(), *more)}
        wanted = {
            (one.cluster, name): count for one in observers.values() for name, count in one.wanted.items()
        }
        return beyond_watches(wanted, self.budget)

    def _beyond(self, observer: ClusterObserver) -> list[str]:
        """The types of a cluster that are over the watch budget, known before any watch of them is opened."""
        return [name for cluster, name in self._over_watches(observer) if cluster == observer.cluster]

    async def _keep_budget(self) -> None:
        while True:
            await asyncio.sleep(BUDGET_S)
            observers = {one.cluster: one for one in self.observers()}
            for observer in observers.values():
                observer.tidy()
            beyond = self._over_watches()
            for (cluster, name), hold, why in [*self._watched_otherwise(beyond), *self._held_otherwise()]:
                await observers[cluster].hold(name, hold, why)

    def _watched_otherwise(self, beyond: set[Key]) -> list[tuple[Key, Hold, str]]:
        """Types that are to be watched no longer, or again."""
        changes: list[tuple[Key, Hold, str]] = []
        for observer in self.observers():
            already = {(observer.cluster, name) for name in observer.held_for(OVER_WATCHES)}
            mine = {key for key in beyond if key[0] == observer.cluster}
            changes.extend((key, "on-demand", OVER_WATCHES) for key in mine - already)
            changes.extend((key, "whole", "") for key in already - mine)
        return changes

    def _held_otherwise(self) -> list[tuple[Key, Hold, str]]:
        """Types that are to be held as less or as more, by the memory budget."""
        observers = self.observers()
        reduced = any(observer.held_for(OVER_MEMORY) for observer in observers)
        if not reduced and not 0 < self.budget.memory_bytes < self.memory_bytes():
            return []
        holdings = [holding for observer in observers for holding in observer.holdings()]
        return [
            (key, hold, OVER_MEMORY if hold != "whole" else "")
            for key, hold in plan(holdings, self.budget).items()
        ]

    def memory_bytes(self) -> int:
        """An estimate of what the read model takes."""
        return sum(observer.memory_bytes() for observer in self.observers())

    async def _report_forever(self) -> None:
        settled: set[str] = set()
        while True:
            await asyncio.sleep(1.0)
            for name, held in list(self._held.items()):
                _answer_when_able(held)
                await self._report(name, held)
            synced = {name for name, held in self._held.items() if held.observer.state().status == "live"}
            if not synced <= settled:
                settled |= synced
                _settle()

    async def _report(self, name: str, held: Held) -> None:
        """Tell a new status at once, new counts every 10 s, and the same again once a minute.

        `syncing` is said by who begins, and no more: a type that comes later takes nothing from the others.
        """
        state = held.observer.state()
        said = (state.status, held.observer.model.total())
        begun = held.reported[0] != ""
        if held.lease.answering or (state.status == "syncing" and begun):
            return
        waited = time.monotonic() - held.reported_at
        due = REFRESH_S if said == held.reported else REPORT_S
        if held.reported[0] == state.status and waited < due:
            return
        event = ClusterEvent(
            cluster=name,
            happened="synced",
            at=time.time(),
            as_of=state.as_of,
            detail=state.status,
            resource_count=None if state.status == "syncing" or state.as_of is None else said[1],
            error=state.error or "",
        )
        with suppress(KubeloreError):
            await self._bus.publish_event(cluster_event_subject(event), event)
            held.reported, held.reported_at = said, time.monotonic()


def _answer_when_able(held: Held) -> None:
    """Answer for a cluster that another replica gave, as soon as what is held of it is as good as what that one holds."""
    able = held.observer.state().status in ("live", "throttled")
    if able or time.monotonic() - held.since > SETTLE_S:
        held.lease.answer()


def _settle() -> None:
    """Take what a first sync has built out of the garbage collector's sight.

    It lives until its cluster is removed, and a full collection that walks it
    stops every answer for up to 100 ms.
    """
    gc.collect()
    gc.freeze()
    give_back()
