"""Which clusters there are and which replica observes each, kept current by events and leases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from kubelore.common.bus import Bus, Leases
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import ClusterConnection, ClusterEvent, ListClusters
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.errors import KubeloreError, NotFound
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

REFRESH_S = 10.0
_LEASE_PREFIX = "observer."


class Roster:
    """A cache of the registry's clusters (re-read on every cluster event) and of the observers' leases."""

    def __init__(self, bus: Bus, leases: Leases) -> None:
        self._bus = bus
        self._leases = leases
        self._clusters: dict[str, ClusterConnection] = {}
        self._owners: dict[str, str] = {}
        self._changed = asyncio.Event()
        self.ready = False

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_registry())
            group.create_task(self._follow_events())
            group.create_task(self._follow_owners())

    async def refresh(self) -> None:
        """Read every cluster from the registry now."""
        found: dict[str, ClusterConnection] = {}
        after: str | None = None
        while True:
            page = await self._bus.request(clusters.LIST, ListClusters(limit=500, after=after))
            found.update((cluster.id, cluster) for cluster in page.items)
            if page.next is None:
                break
            after = page.next
        self._clusters = found
        self.ready = True

    def select(self, selectors: Iterable[str]) -> list[str]:
        """Names for `clusters=`: names, `group:x` and `tag:y`; all of them when nothing is given.

        Raises NotFound for a name that is not onboarded, BadRequest for what is no name.
        """
        chosen: set[str] = set()
        wanted = [selector for selector in selectors if selector]
        for selector in wanted:
            kind, colon, value = selector.partition(":")
            if colon and kind == "group":
                chosen.update(name for name, cluster in self._clusters.items() if cluster.group == value)
            elif colon and kind == "tag":
                chosen.update(name for name, cluster in self._clusters.items() if value in cluster.tags)
            elif check_cluster_name(selector) in self._clusters:
                chosen.add(selector)
            else:
                raise NotFound(
                    f"there is no cluster named {selector!r}",
                    remedy="`kubelore clusters list` shows their names.",
                )
        return sorted(chosen if wanted else self._clusters)

    def known(self, name: str) -> bool:
        """Whether a cluster of this name is onboarded."""
        return name in self._clusters

    def owner(self, cluster: str) -> str | None:
        """The replica that observes a cluster, None while nobody does."""
        return self._owners.get(cluster)

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
        async for _ in self._bus.subscribe_events("kubelore.v1.events.cluster.>", ClusterEvent):
            self._changed.set()

    async def _follow_owners(self) -> None:
        async for holders in self._leases.watch_holders(_LEASE_PREFIX):
            self._owners = {key.removeprefix(_LEASE_PREFIX): replica for key, replica in holders.items()}
