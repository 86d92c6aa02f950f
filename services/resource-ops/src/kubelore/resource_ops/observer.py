"""The observer of one cluster: every listable, watchable type, one set of watches for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from kubelore.common.bus import Bus, ChangePublisher, Checkpoint, Lease, LeaseLost
from kubelore.common.contracts.changes import Applied
from kubelore.common.contracts.resources import ClusterState, ObserverReport, ObserverStatus, TypeState
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.errors import KubeloreError, Unavailable, UpstreamError
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient, ResourceType
from kubelore.common.kube.well_known import NAMESPACES
from kubelore.common.telemetry import get_logger, outgoing
from kubelore.resource_ops import incarnation
from kubelore.resource_ops.budget import ROW_BYTES, Hold, Holding
from kubelore.resource_ops.change_log import ChangeLog
from kubelore.resource_ops.contact import Contact
from kubelore.resource_ops.incarnation import ClusterReplaced
from kubelore.resource_ops.namespace_watch import LeftOut, NamespacesByName, Watched, together
from kubelore.resource_ops.on_demand import Completion, OnDemand
from kubelore.resource_ops.positions import namespace_of, position_key, type_of
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.records import RecordMaker
from kubelore.resource_ops.rounds import Rounds
from kubelore.resource_ops.rows import Row
from kubelore.resource_ops.type_watch import Surroundings, TypeWatch, published

log = get_logger(__name__)

FIRST_LISTS = 4
REDISCOVER_S = 300.0
AGAIN_S = 5.0
DEBOUNCE_S = 0.5
DEBOUNCE_LIMIT_S = 8.0
STOP_S = 5.0
NAMED = 5
LOOK_UP_S = 2.0
OVER_WATCHES = "over the watch budget"
OVER_MEMORY = "over the memory budget"
SETTLE_POLL_S = 0.05
_FIRST = ("customresourcedefinitions.apiextensions.k8s.io", "namespaces", "nodes", "pods", "deployments.apps")
"""Types listed before others, since people look at them first."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """The keys an observer needs: the clusters keyring (HMACs), and the public half of the versions keyring."""

    clusters: Keyring
    versions: Recipient
    put_blob: Callable[[str, bytes], Awaitable[None]]


class ClusterObserver:
    """Observes one cluster under a lease, fills its read model and publishes its changes.

    `namespaces` limits it to these; empty means all, and what is in none.
    """

    def __init__(
        self,
        access: ClusterAccess,
        policy: AddressPolicy,
        *,
        bus: Bus,
        lease: Lease,
        model: ClusterModel,
        sealing: Sealing,
        namespaces: Sequence[str] = (),
    ) -> None:
        self.cluster = model.cluster
        self.model = model
        self._bus = bus
        self._lease = lease
        self._sealing = sealing
        self._client = KubeClient(access, policy, headers=outgoing)
        self._contact = Contact(self._client.ready, self._greet)
        self._checkpoint: Checkpoint | None = None
        self._namespaces = tuple(namespaces)
        self._holds: dict[str, tuple[Hold, str]] = {}
        """Types that are not held whole, and why."""
        self._sizes: dict[str, Holding] = {}
        """What a type took when it was last held as more than it is now."""
        self._served: dict[str, ResourceType] = {}
        self._around: Surroundings | None = None
        self._completion: Completion | None = None
        self._refilling: dict[str, asyncio.Task[None]] = {}
        self.beyond: Callable[[], Collection[str]] = tuple
        """Which of the types in `wanted` are over the watch budget; the fleet knows."""
        self._watches: dict[str, list[Watched]] = {}
        """By type: one, or one per namespace."""
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._definitions_changed = asyncio.Event()
        self._changes: ChangeLog | None = None
        self._discovered = False
        self.silent = False
        self._missing: set[str] = set()
        self._problem: str | None = None
        self._discoveries = Rounds()

    @property
    def namespaces(self) -> list[str]:
        """What it is limited to; empty means the whole cluster."""
        return list(self._namespaces)

    @property
    def client(self) -> KubeClient:
        """The connection to the cluster, for what is asked of it and not held."""
        return self._client

    def hurry(self) -> None:
        """Probe, discover, and try again what could not be read, all now; do not wait for it."""
        self._contact.hurry()
        self._definitions_changed.set()
        for watch in self._type_watches():
            watch.hurry()

    def recover(self) -> None:
        """Somebody has reached the cluster: probe now, if it is out of reach from here."""
        if not self._contact.reachable.is_set():
            self._contact.hurry()

    async def resync(self, within_s: float) -> None:
        """As `hurry`; returns when all of it is done, or the cluster does not answer, or time is up."""
        probe, discovery = self._contact.probes.next, self._discoveries.next
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                self.hurry()
                await self._contact.probes.ended(probe)
                if not self._contact.reachable.is_set():
                    return
                await self._discoveries.ended(discovery)
                while any(watch.unsettled for watch in self._type_watches()):  # noqa: ASYNC110 - they tell nobody
                    await asyncio.sleep(SETTLE_POLL_S)

    def _type_watches(self) -> list[TypeWatch]:
        return [watch for parts in self._watches.values() for watch in parts if isinstance(watch, TypeWatch)]

    def unread(self, type_name: str) -> str | None:
        """Why not all objects of a type are held, None when they are (or were, before it went stale)."""
        parts = self._watches.get(type_name)
        if parts is None:
            return self._contact.error or "the cluster has not been read yet"
        return next((part.detail or part.status for part in parts if not part.listed), None)

    async def run(self) -> None:
        """Observe until cancelled. Raises LeaseLost or ClusterReplaced (in an ExceptionGroup)."""
        publisher = ChangePublisher(
            self._bus, self.cluster, self._lease, on_acked=lambda records: changes.acknowledged(records)
        )
        await publisher.fence()
        try:
            checkpoint = self._checkpoint = await Checkpoint.load(self._bus, self.cluster, self._lease)
            async with self._client, asyncio.TaskGroup() as group:
                group.create_task(self._contact.run())
                await self._contact.reachable.wait()
                changes = self._changes = ChangeLog(publisher, checkpoint)
                group.create_task(changes.keep_saving())
                around = self._around = self._surroundings(changes, checkpoint)
                self._completion = Completion(around)
                group.create_task(self._keep_discovering(group, around))
        finally:
            self._stop_demands()
            await publisher.close()
            if self._changes is not None:
                with suppress(KubeloreError):
                    await self._changes.save()

    async def fall_silent(self) -> None:
        """Publish nothing from here on, and go on reading: another replica is about to publish instead."""
        self.silent = True
        if self._changes is not None:
            await self._changes.fall_silent()

    def _surroundings(self, changes: ChangeLog, checkpoint: Checkpoint) -> Surroundings:
        sealing = self._sealing
        records = RecordMaker(
            self.cluster, checkpoint.incarnation, sealing.clusters, sealing.versions, sealing.put_blob
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

    async def _greet(self) -> None:
        """At the first contact, and whenever it was in doubt: which cluster is it that answers?"""
        if self._checkpoint is None:
            return
        if self._changes is None:
            await incarnation.settle(self._client, self._checkpoint)
            return
        await self._check_identity(self._changes)
        if not self._contact.reachable.is_set():
            self._definitions_changed.set()

    async def _check_identity(self, changes: ChangeLog) -> None:
        uid = self._checkpoint.uid if self._checkpoint else ""
        await incarnation.check(self._client, self.cluster, uid, changes.positions)

    async def _keep_discovering(self, group: asyncio.TaskGroup, around: Surroundings) -> None:
        """Discover when definitions change, and now and then.

        Once more a little after each change, since discovery lags behind the
        definitions; ever more seldom while they keep changing.
        """
        pause = DEBOUNCE_S
        again = REDISCOVER_S
        while True:
            self._definitions_changed.clear()
            async with self._discoveries.one():
                wait = min(again, await self._discover(group, around))
            changed = await self._definitions_change(wait)
            again = AGAIN_S if changed else REDISCOVER_S
            if changed:
                await asyncio.sleep(pause)
            pause = min(pause * 2, DEBOUNCE_LIMIT_S) if changed else DEBOUNCE_S
            await self._contact.reachable.wait()

    async def _discover(self, group: asyncio.TaskGroup, around: Surroundings) -> float:
        """Discover once; returns the seconds after which to do so again."""
        try:
            await self._check_identity(around.changes)
            await self._rediscover(group, around)
        except (LeaseLost, ClusterReplaced):
            raise
        except KubeloreError as error:
            self._problem = error.detail
            self._contact.suspect()
            return AGAIN_S
        self._problem = None
        return AGAIN_S if self._missing else REDISCOVER_S

    async def _definitions_change(self, within_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._definitions_changed.wait()
                return True
        return False

    async def _rediscover(self, group: asyncio.TaskGroup, around: Surroundings) -> None:
        discovery = await self._client.discovery()
        served = {found.name: found for found in discovery.types if found.observable}
        if NAMESPACES.name not in served:
            raise UpstreamError(
                "the API server's discovery lacks the types that every cluster has",
                remedy="look at what stands between here and the API server",
            )
        await self._leave_removed(served, discovery.broken, around)
        refill = await self._leave_switched(served, discovery.broken)
        new = [name for name in sorted(served, key=_by_importance) if name not in self._watches]
        self._served = served
        for name in self.beyond():
            self._holds.setdefault(name, ("on-demand", OVER_WATCHES))
        keys = [
            position_key(name, namespace)
            for name in new
            if published(name) and self._hold(name) != "on-demand"
            for namespace in self._parts(served[name])
        ]
        interrupted = await around.changes.begin(keys)
        for name in new:
            self.model.learn(served[name])
            self._begin(served[name], group, around, interrupted, refill=name in refill)
        self._discovered = True

    def _parts(self, resource_type: ResourceType) -> Sequence[str]:
        """The namespaces in which a type is watched, each by itself; one that is empty stands for all there is."""
        if not self._namespaces:
            return ("",)
        return self._namespaces if resource_type.namespaced else ()

    def _begin(
        self,
        resource_type: ResourceType,
        group: asyncio.TaskGroup,
        around: Surroundings,
        interrupted: Container[str],
        *,
        refill: bool,
    ) -> None:
        """Start to observe a type, or say that it is left out."""
        name = resource_type.name
        if self._hold(name) == "on-demand" and self._parts(resource_type):
            why = self._holds[name][1]
            if why == OVER_MEMORY:
                self.model.hold_metadata_only(resource_type)
            self._tasks[name] = []
            self._watches[name] = [OnDemand(resource_type, around, self._parts(resource_type), why)]
            return
        if self._hold(name) == "metadata":
            self.model.hold_metadata_only(resource_type)
        watches: list[TypeWatch | NamespacesByName] = [
            TypeWatch(
                resource_type,
                around,
                namespace=namespace,
                interrupted=position_key(name, namespace) in interrupted,
                refill=refill,
            )
            for namespace in self._parts(resource_type)
        ]
        if name == NAMESPACES.name and not watches:
            watches = [NamespacesByName(self._namespaces, around.client, around.contact, around.model)]
        self._tasks[name] = [group.create_task(watch.run()) for watch in watches]
        self._watches[name] = list(watches) or [
            LeftOut(resource_type, f"only what is in {', '.join(self._namespaces)} is observed")
        ]

    async def _leave_removed(
        self, served: Container[str], broken: Iterable[str], around: Surroundings
    ) -> None:
        """Withdraw types that two discoveries in a row lack: while an API server starts, its first may lack some.

        Types of a group that does not answer are not known to be gone, nor are
        those that an earlier observer published and nobody serves any more known
        to be there.
        """
        silent = {name.rpartition("/")[0] for name in broken}
        published_once = {type_of(key) for key in around.changes.positions} - around.changes.leaving
        known = self._watches.keys() | published_once
        missing = {name for name in known if name not in served and name.partition(".")[2] not in silent}
        for name in sorted(missing & self._missing):
            if name in self._watches:
                await self._stop_watching(name)
            await self._withdraw(name, around)
        self._missing = missing - self._missing

    async def _leave_switched(self, served: Mapping[str, ResourceType], broken: Container[str]) -> set[str]:
        """Stop the watches of types that are served in another version by now; returns their names."""
        switched = {
            name
            for name, (watch, *_) in self._watches.items()
            if name in served and watch.type.api_version not in broken and _differs(served[name], watch.type)
        }
        for name in switched:
            await self._stop_watching(name)
        return switched

    async def _stop_watching(self, name: str) -> None:
        tasks = self._tasks.pop(name)
        for watch in self._watches.pop(name):
            if isinstance(watch, OnDemand):
                watch.stop()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

    async def _withdraw(self, name: str, around: Surroundings) -> None:
        """The type is no longer served: to consumers that is a gap and an empty list."""
        log.info("type withdrawn", cluster=self.cluster, type=name)
        self.model.drop_type(name)
        changes, records = around.changes, around.records
        for key, position in [item for item in changes.positions.items() if type_of(item[0]) == name]:
            namespace = namespace_of(key)
            gap = records.gap(name, position, namespace)
            await changes.withdraw(gap, records.synced(name, position, 0, namespace))

    async def tell(self, records: Sequence[Applied]) -> None:
        """Publish who wrote what, among the cluster's changes; returns once the bus has it.

        Raises Unavailable before the first contact with the cluster, and LeaseLost. Set your own deadline.
        """
        if self._changes is None:
            raise Unavailable(f"{self.cluster} has not been reached yet")
        await self._changes.tell(records)

    @property
    def wanted(self) -> dict[str, int]:
        """How many watches each type takes, watched or not."""
        return {name: parts for name, one in self._served.items() if (parts := len(self._parts(one)))}

    @property
    def watches(self) -> int:
        """How many watches are open, or about to be."""
        return sum(map(len, self._tasks.values()))

    @property
    def reduced(self) -> bool:
        """Whether some type is not held whole."""
        return bool(self._holds)

    def held_for(self, why: str) -> list[str]:
        """The types that are not held whole for one reason."""
        return [name for name, (_, reason) in self._holds.items() if reason == why]

    def memory_bytes(self) -> int:
        """An estimate of what the read model of this cluster takes."""
        return self.model.held_bytes() + ROW_BYTES * self.model.total()

    def holdings(self) -> list[Holding]:
        """How each type is held and what it takes; types over the watch budget are left out."""
        return [
            self._holding(name)
            for name in self._watches
            if self._parts(self._served[name]) and self._holds.get(name, ("", ""))[1] != OVER_WATCHES
        ]

    def _holding(self, name: str) -> Holding:
        hold, before = self._hold(name), self._sizes.get(name)
        count, size = self.model.count(name), self.model.held_bytes(name)
        if hold == "whole" or before is None:
            metadata = self.model.metadata_bytes(name)
            return Holding(self.cluster, name, hold, count, size, metadata)
        if hold == "metadata":
            each = before.whole_bytes / max(before.count, 1)
            return Holding(self.cluster, name, hold, count, max(size, round(each * count)), size)
        return msgspec.structs.replace(before, hold=hold)

    def _hold(self, name: str) -> Hold:
        return self._holds.get(name, ("whole", ""))[0]

    async def hold(self, name: str, hold: Hold, why: str = "") -> None:
        """Hold a type otherwise from now on; a type that is to be more than it is is listed anew."""
        before, resource_type = self._hold(name), self._served.get(name)
        if resource_type is None or before == hold or name not in self._watches:
            return
        log.info("type held otherwise", cluster=self.cluster, type=name, hold=hold, why=why)
        if _AMOUNT.index(hold) < _AMOUNT.index(before):
            self._sizes[name] = self._holding(name)
        self._holds[name] = (hold, why)
        if hold == "whole":
            del self._holds[name]
        if (task := self._refilling.pop(name, None)) is not None:
            task.cancel()
        if "on-demand" in (hold, before):
            await self._stop_watching(name)
            self.model.empty(name)
            self._definitions_changed.set()
        if hold == "whole":
            self.model.hold_whole(resource_type)
            if before == "metadata" and self._around is not None:
                self._refilling[name] = asyncio.create_task(self._refill(resource_type, self._around))
        elif hold == "metadata":
            self.model.hold_metadata_only(resource_type)

    async def _refill(self, resource_type: ResourceType, around: Surroundings) -> None:
        """Make rows whole again that are held as metadata only; what changes meanwhile arrives whole anyway."""
        try:
            async with around.first_lists:
                for namespace in self._parts(resource_type):
                    async for page in around.client.pages(resource_type, namespace=namespace):
                        for raw in page.items:
                            self.model.complete(resource_type, around.records.admit(resource_type, raw).raw)
                            await asyncio.sleep(0)
        except KubeloreError as error:
            # The rows that are left are fetched when they are asked for.
            log.info("type not made whole", type=resource_type.name, detail=error.detail)

    async def fill(self, types: Iterable[str]) -> None:
        """Have those of these types listed that are not watched; waits 0.4 s at most."""
        wanted = [one for name in types for one in self._watches.get(name, ()) if isinstance(one, OnDemand)]
        await asyncio.gather(*(one.fill() for one in wanted))

    async def look_up(self, name: str, namespace: str, object_name: str) -> bytes | None:
        """An object of a type that is not watched, from the API server; None when the type is watched.

        Raises NotFound, and what else keeps it from being read.
        """
        around, resource_type = self._around, self._served.get(name)
        if around is None or resource_type is None or self._hold(name) != "on-demand":
            return None
        raw = await around.client.get(resource_type, namespace or None, object_name, timeout_s=LOOK_UP_S)
        return around.records.admit(resource_type, raw).raw

    async def complete(self, rows: Iterable[Row]) -> None:
        """Fetch the objects of rows of which only the metadata is held; waits 0.4 s at most."""
        if self._completion is not None:
            await self._completion.complete(rows)

    def tidy(self) -> None:
        """Let go of what was fetched on demand a while ago."""
        if self._completion is not None:
            self._completion.take_back()
        for parts in self._watches.values():
            for watch in parts:
                if isinstance(watch, OnDemand):
                    watch.forget()

    def _stop_demands(self) -> None:
        for task in self._refilling.values():
            task.cancel()
        for parts in self._watches.values():
            for watch in parts:
                if isinstance(watch, OnDemand):
                    watch.stop()

    def _note(self, types: frozenset[str]) -> str | None:
        """Which of these types (all when empty) are not held whole, and why."""
        found = [
            f"{name}: {'metadata only' if hold == 'metadata' else 'listed on demand'} ({why})"
            for name, (hold, why) in sorted(self._holds.items())
            if not types or name in types
        ]
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return "; ".join(found[:NAMED]) + more if found else None

    def state(self, types: Iterable[str] = (), count: int = 0) -> ClusterState:
        """How far the rows of these types (all when empty) can be trusted right now."""
        types = frozenset(types)
        status, problem = self._status(types)
        return ClusterState(
            name=self.cluster,
            status=status,
            as_of=self._contact.last_ok,
            error=problem,
            count=count,
            note=self._note(types) if self._holds else None,
        )

    def _status(self, types: frozenset[str]) -> tuple[ObserverStatus, str | None]:
        held = self._watches
        chosen = (held[name] for name in types if name in held) if types else held.values()
        watches = [watch for parts in chosen for watch in _read(parts)]
        if not types:
            watches = [watch for watch in watches if not isinstance(watch, OnDemand)]
        if not self._contact.reachable.is_set():
            if self._contact.error is None:
                return "syncing", None
            listed = self._discovered and (not watches or any(watch.listed for watch in watches))
            return ("stale" if listed else "error"), self._contact.error
        if not self._discovered:
            return ("error", self._problem) if self._problem else ("syncing", None)
        worst = min(watches, key=lambda watch: _rank(watch.status, bool(types)), default=None)
        rank = _rank(worst.status, bool(types)) if worst else _HARMLESS
        if self._changes is not None and self._changes.throttled and rank > 0:
            return "throttled", "the change stream is full: its consumers are behind"
        if worst is None or rank == _HARMLESS:
            return "live", self._problem
        return _RANKS[rank], f"{worst.type.name}: {worst.detail}" if worst.detail else None

    def report(self, with_types: bool) -> ObserverReport:
        """Everything there is to say about this observer."""
        status, problem = self._status(frozenset())
        return ObserverReport(
            cluster=self.cluster,
            replica=self._bus.replica,
            status=status,
            as_of=self._contact.last_ok,
            error=problem,
            objects=self.model.total(),
            published=self._changes.published if self._changes else 0,
            incarnation=self._checkpoint.incarnation if self._checkpoint else 0,
            types=[self._type_state(name) for name in sorted(self._watches)] if with_types else [],
            held_bytes=self.model.held_bytes(),
            watches=self.watches,
        )

    def _type_state(self, name: str) -> TypeState:
        state, (hold, why) = together(self._watches[name]), self._holds.get(name, ("whole", ""))
        if hold == "metadata" and state.status == "live":
            return msgspec.structs.replace(state, status="metadata", detail=why)
        return state


_AMOUNT: tuple[Hold, ...] = ("on-demand", "metadata", "whole")
_RANKS: tuple[ObserverStatus, ...] = ("error", "stale", "syncing")
_HARMLESS = len(_RANKS)
_RANK_OF: dict[str, int] = {status: rank for rank, status in enumerate(_RANKS)}


def _rank(status: str, named: bool) -> int:
    """How bad a type's status is for its cluster, worst first. A type that may not be read matters to who names it."""
    if status == "skipped":
        return 0 if named else _HARMLESS
    return _RANK_OF.get(status, _HARMLESS)


def _read(parts: list[Watched]) -> list[Watched]:
    """The parts of a type that count for its status: a namespace that may not be read does not spoil the others."""
    return parts if len(parts) == 1 else [part for part in parts if part.status != "skipped"] or parts


def _differs(served: ResourceType, watched: ResourceType) -> bool:
    return (served.version, served.kind, served.namespaced) != (
        watched.version,
        watched.kind,
        watched.namespaced,
    )


def _by_importance(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)
