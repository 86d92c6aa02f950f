"""Which clusters there are, which replica observes each and how that goes, kept current by events and leases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from kubelore.common.authz import Caller, no_such_cluster
from kubelore.common.bus import Bus, Leases
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import ClusterConnection, ClusterEvent, ListRoster
from kubelore.common.contracts.flows import CLUSTER_EVENTS
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.errors import KubeloreError, Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

REFRESH_S = 10.0
RETRY_S = 1.0
_LEASE_PREFIX = "observer."
_BY_PROPERTY = ("group:", "tag:")

UNOWNED = "no observer holds this cluster yet"


@dataclass(frozen=True, slots=True)
class Observed:
    """What the observer of a cluster last said of itself. `as_of` is in seconds since the epoch."""

    status: str
    as_of: float | None = None
    error: str = ""


class Roster:
    """A cache of the registry's clusters (re-read on every cluster event) and of the observers' leases."""

    def __init__(self, bus: Bus, leases: Leases) -> None:
        self._bus = bus
        self._leases = leases
        self._clusters: dict[str, ClusterConnection] = {}
        self._owners: dict[str, str] = {}
        self._owners_known = False
        self._changed = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._news = asyncio.Event()
        self._observed: dict[str, Observed] = {}
        self._turn = asyncio.Event()
        self.ready = False

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_registry())
            group.create_task(self._follow_events())
            group.create_task(self._follow_owners())

    async def refresh(self) -> None:
        """Read every cluster from the registry now.

        One at a time, so that an older answer never replaces a newer one.
        """
        async with self._refreshing:
            found: dict[str, ClusterConnection] = {}
            after: str | None = None
            while True:
                page = await self._bus.request(clusters.ROSTER, ListRoster(after=after))
                found.update((cluster.id, cluster) for cluster in page.items)
                if page.next is None:
                    break
                after = page.next
            changed = {name: _choosable(one) for name, one in found.items()} != {
                name: _choosable(one) for name, one in self._clusters.items()
            }
            self._clusters, self.ready = found, True
            if changed:
                self._news.set()
                self._news = asyncio.Event()

    async def hurry(self) -> None:
        """Refresh after a change made here; when that fails, the event of the change does it soon."""
        try:
            await self.refresh()
        except KubeloreError as error:
            log.info("clusters not read", reason=error.reason, detail=error.detail)
            self._changed.set()

    def news(self) -> asyncio.Event:
        """Set when the clusters, or what chooses them, are no longer what they are now."""
        return self._news

    def turn(self) -> asyncio.Event:
        """Set when the observer of any cluster is no longer as `observed` says now."""
        return self._turn

    def observed(self, caller: Caller, name: str) -> Observed | None:
        """How the observer of a cluster is; None until it says so: for a second, or a minute after this gateway began."""
        if self._owners_known and name not in self._owners:
            return Observed("error", error=UNOWNED)
        found = self._observed.get(name)
        return replace(found, error=caller.told(name, found.error)) if found is not None else None

    def select(self, caller: Caller, selectors: Iterable[str]) -> list[str]:
        """Names for `clusters=`: names, `group:x` and `tag:y`; all that the caller sees when nothing is given.

        Raises NotFound for a name that is not onboarded or not for the caller, BadRequest for what is
        no name, and Unavailable until the clusters are known.
        """
        if not self.ready:
            raise Unavailable(
                "the clusters are not known yet", remedy="Try again in a few seconds.", retry_after_s=2
            )
        wanted = [selector for selector in selectors if selector]
        for name in wanted:
            if name.startswith(_BY_PROPERTY):
                continue
            if check_cluster_name(name) not in self._clusters or not caller.sees(name):
                raise no_such_cluster(name)
        return self.matching(caller, wanted)

    def matching(self, caller: Caller, selectors: Iterable[str]) -> list[str]:
        """As `select`, but a name that is not onboarded chooses nothing."""
        chosen = frozenset(selectors)
        found = (
            (name for name, one in self._clusters.items() if chosen & _selectors_of(one))
            if any(selector.startswith(_BY_PROPERTY) for selector in chosen)
            else (chosen & self._clusters.keys() if chosen else self._clusters)
        )
        return sorted(found if caller.unrestricted else filter(caller.sees, found))

    def generation(self, name: str) -> int:
        """Which of the clusters that ever had this name; 0 for none."""
        cluster = self._clusters.get(name)
        return cluster.generation if cluster else 0

    def count(self) -> int:
        """How many clusters are onboarded."""
        return len(self._clusters)

    def known(self, name: str) -> bool:
        """Whether a cluster of this name is onboarded."""
        return name in self._clusters

    def observes(self, name: str, namespace: str) -> bool:
        """Whether a namespace (empty: what lies in none) of a cluster is observed, rather than left out."""
        cluster = self._clusters.get(name)
        return cluster is not None and (not cluster.namespaces or namespace in cluster.namespaces)

    def limited_to(self, name: str) -> tuple[str, ...]:
        """The namespaces that a cluster was onboarded for; none where that is all of it."""
        cluster = self._clusters.get(name)
        return tuple(cluster.namespaces) if cluster is not None else ()

    def owner(self, cluster: str) -> str | None:
        """The replica that observes a cluster, None while nobody does."""
        return self._owners.get(cluster)

    def observer(self, caller: Caller, cluster: str) -> tuple[str, str]:
        """A cluster that the caller sees, and the replica that observes it.

        Raises what `select` does, and Unavailable while nobody observes it.
        """
        (name,) = self.select(caller, [cluster])
        owner = self._owners.get(name)
        if owner is None:
            raise Unavailable(
                f"no observer holds {name} yet", remedy="Try again in a few seconds.", retry_after_s=5
            )
        return name, owner

    def by_owner(self, names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Clusters by the replica that observes them, and those that none does."""
        owned: dict[str, list[str]] = {}
        orphans: list[str] = []
        for name in names:
            owner = self._owners.get(name)
            if owner is None:
                orphans.append(name)
            else:
                owned.setdefault(owner, []).append(name)
        return owned, orphans

    async def _follow_registry(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self.refresh()
            except KubeloreError as error:
                log.warning("clusters not read", reason=error.reason, detail=error.detail)
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S if self.ready else 0.5):
                    await self._changed.wait()

    async def _follow_events(self) -> None:
        async for event in self._bus.subscribe_events(CLUSTER_EVENTS, ClusterEvent):
            if event.happened == "synced":
                self._hear(event)
            else:
                self._changed.set()

    def _hear(self, event: ClusterEvent) -> None:
        before = self._observed.get(event.cluster)
        self._observed[event.cluster] = Observed(event.detail, event.as_of, event.error)
        if before is None or before.status != event.detail:
            self._tell_turn()

    def _tell_turn(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()

    async def _follow_owners(self) -> None:
        while True:
            try:
                async for holders in self._leases.watch_holders(_LEASE_PREFIX):
                    before = self._owners.keys()
                    self._owners = {
                        key.removeprefix(_LEASE_PREFIX): replica for key, replica in holders.items()
                    }
                    for name in before - self._owners.keys():
                        self._observed.pop(name, None)
                    if before != self._owners.keys() or not self._owners_known:
                        self._owners_known = True
                        self._tell_turn()
            except KubeloreError as error:
                log.warning("owners not read", reason=error.reason, detail=error.detail)
                await asyncio.sleep(RETRY_S)


def _selectors_of(cluster: ClusterConnection) -> set[str]:
    """Every selector that chooses a cluster."""
    return {cluster.name, f"group:{cluster.group}", *(f"tag:{tag}" for tag in cluster.tags)}


def _choosable(cluster: ClusterConnection) -> tuple[int, set[str]]:
    return cluster.generation, _selectors_of(cluster)
