"""The observer of one cluster: every listable, watchable type, one set of watches for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from kubelore.common.bus import Bus, ChangePublisher, Checkpoint, Lease, LeaseLost
from kubelore.common.contracts.resources import ClusterState, ObserverReport, ObserverStatus
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.errors import Forbidden, KubeloreError
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient
from kubelore.common.kube.well_known import NAMESPACES, cluster_uid
from kubelore.common.telemetry import get_logger, outgoing
from kubelore.resource_ops.change_log import ChangeLog
from kubelore.resource_ops.contact import Contact
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.records import RecordMaker
from kubelore.resource_ops.type_watch import Surroundings, TypeWatch

log = get_logger(__name__)

FIRST_LISTS = 4
REDISCOVER_S = 300.0
DEBOUNCE_S = 0.5
CHECKPOINT_S = 1.0
_FIRST = ("customresourcedefinitions.apiextensions.k8s.io", "namespaces", "nodes", "pods", "deployments.apps")
"""Types listed before others, since people look at them first."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """The keys an observer needs: the clusters keyring (HMACs), and the public half of the versions keyring."""

    clusters: Keyring
    versions: Recipient
    put_blob: Callable[[str, bytes], Awaitable[None]]


class ClusterObserver:
    """Observes one cluster under a lease, fills its read model and publishes its changes."""

    def __init__(
        self,
        access: ClusterAccess,
        policy: AddressPolicy,
        *,
        bus: Bus,
        lease: Lease,
        model: ClusterModel,
        sealing: Sealing,
    ) -> None:
        self.cluster = model.cluster
        self.model = model
        self._bus = bus
        self._lease = lease
        self._sealing = sealing
        self._client = KubeClient(access, policy, headers=outgoing)
        self._contact = Contact(self._client.ready)
        self._watches: dict[str, TypeWatch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._definitions_changed = asyncio.Event()
        self._changes: ChangeLog | None = None
        self._incarnation = 0
        self._discovered = False
        self._problem: str | None = None

    async def run(self) -> None:
        """Observe until cancelled. Raises LeaseLost (in an ExceptionGroup) when another replica took over."""
        publisher = ChangePublisher(
            self._bus, self.cluster, self._lease, on_acked=lambda records: changes.acknowledged(records)
        )
        await publisher.fence()
        try:
            checkpoint = await Checkpoint.load(self._bus, self.cluster, self._lease)
            async with self._client, asyncio.TaskGroup() as group:
                group.create_task(self._contact.run())
                await self._contact.reachable.wait()
                await self._settle_incarnation(checkpoint)
                changes = self._changes = ChangeLog(publisher, checkpoint.positions)
                group.create_task(self._save_checkpoints(checkpoint, changes))
                group.create_task(self._keep_discovering(group, self._surroundings(changes)))
        finally:
            await publisher.close()

    def _surroundings(self, changes: ChangeLog) -> Surroundings:
        sealing = self._sealing
        records = RecordMaker(
            self.cluster, self._incarnation, sealing.clusters, sealing.versions, sealing.put_blob
        )
        return Surroundings(
            client=self._client,
            contact=self._contact,
            model=self.model,
            changes=changes,
            records=records,
            first_lists=asyncio.Semaphore(FIRST_LISTS),
            definitions_changed=self._definitions_changed,
        )

    async def _settle_incarnation(self, checkpoint: Checkpoint) -> None:
        """Start a new incarnation when this is no longer the cluster that the checkpoint knew.

        That is so when kube-system has another uid, or when a list's
        resourceVersion lies below a checkpoint: a restored or re-made etcd.
        """
        uid = await cluster_uid(self._client)
        highest = max((int(rv) for rv in checkpoint.positions.values() if rv.isdigit()), default=0)
        backwards = 0 < await self._newest_version() < highest
        if checkpoint.uid and (checkpoint.uid != uid or backwards):
            log.warning("cluster restored or replaced", cluster=self.cluster, uid=uid, backwards=backwards)
            checkpoint.incarnation += 1
            checkpoint.positions.clear()
        checkpoint.uid = uid
        self._incarnation = checkpoint.incarnation

    async def _newest_version(self) -> int:
        """The newest resourceVersion of the cluster; 0 when the credentials do not show it."""
        try:
            page = await self._client.list(NAMESPACES, limit=1)
        except Forbidden:
            return 0
        return int(page.rv) if page.rv.isdigit() else 0

    async def _save_checkpoints(self, checkpoint: Checkpoint, changes: ChangeLog) -> None:
        try:
            while True:
                await asyncio.sleep(CHECKPOINT_S)
                try:
                    await self._save(checkpoint, changes)
                except LeaseLost:
                    raise
                except KubeloreError as error:
                    log.info("checkpoint not saved", cluster=self.cluster, detail=error.detail)
        finally:
            with suppress(KubeloreError, TimeoutError):
                await asyncio.shield(self._save(checkpoint, changes))

    async def _save(self, checkpoint: Checkpoint, changes: ChangeLog) -> None:
        if checkpoint.positions != changes.positions:
            checkpoint.positions = dict(changes.positions)
            await checkpoint.save()

    async def _keep_discovering(self, group: asyncio.TaskGroup, around: Surroundings) -> None:
        while True:
            self._definitions_changed.clear()
            try:
                await self._rediscover(group, around)
                self._problem = None
                wait = REDISCOVER_S
            except KubeloreError as error:
                self._problem, wait = error.detail, 5.0
                self._contact.suspect()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._definitions_changed.wait()
                await asyncio.sleep(DEBOUNCE_S)
            await self._contact.reachable.wait()

    async def _rediscover(self, group: asyncio.TaskGroup, around: Surroundings) -> None:
        discovery = await self._client.discovery()
        served = {found.name: found for found in discovery.types if found.observable}
        for name in list(self._watches):
            unknowable = self._watches[name].type.api_version in discovery.broken
            if name not in served and not unknowable:
                await self._stop_watching(name)
        for name in sorted(served, key=_by_importance):
            if name not in self._watches:
                self.model.learn(served[name])
                watch = self._watches[name] = TypeWatch(served[name], around)
                self._tasks[name] = group.create_task(watch.run())
        self._discovered = True

    async def _stop_watching(self, name: str) -> None:
        task, watch = self._tasks.pop(name), self._watches.pop(name)
        task.cancel()
        await asyncio.wait([task], timeout=5.0)
        await watch.withdraw()

    def state(self, types: Iterable[str] = (), count: int = 0) -> ClusterState:
        """How far the rows of these types (all when empty) can be trusted right now."""
        status, problem = self._status(set(types))
        return ClusterState(
            name=self.cluster, status=status, as_of=self._contact.last_ok, error=problem, count=count
        )

    def _status(self, types: set[str]) -> tuple[ObserverStatus, str | None]:
        watches = [watch for name, watch in self._watches.items() if not types or name in types]
        synced = self._discovered and any(watch.status != "syncing" for watch in watches)
        if not self._contact.reachable.is_set():
            problem = self._contact.error or "not reached yet"
            return ("stale" if synced else "error"), problem
        if not self._discovered:
            return ("error", self._problem) if self._problem else ("syncing", None)
        for status in ("error", "stale", "syncing"):
            broken = next((watch for watch in watches if watch.status == status), None)
            if broken is not None:
                return status, f"{broken.type.name}: {broken.detail}" if broken.detail else None
        if self._changes is not None and self._changes.throttled:
            return "throttled", "the change stream is full: its consumers are behind"
        return "live", None

    def report(self, with_types: bool) -> ObserverReport:
        """Everything there is to say about this observer."""
        status, problem = self._status(set())
        return ObserverReport(
            cluster=self.cluster,
            replica=self._bus.replica,
            status=status,
            as_of=self._contact.last_ok,
            error=problem,
            objects=self.model.total(),
            published=self._changes.published if self._changes else 0,
            incarnation=self._incarnation,
            types=[watch.state() for _, watch in sorted(self._watches.items())] if with_types else [],
        )


def _by_importance(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)
