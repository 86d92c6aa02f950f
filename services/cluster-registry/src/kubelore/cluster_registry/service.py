"""The bus endpoints of cluster-registry: one line to the domain each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kubelore.cluster_registry.expiry import ExpiryWatch
from kubelore.cluster_registry.groups import Groups
from kubelore.cluster_registry.lifetimes import iso_utc
from kubelore.cluster_registry.registry import Registry
from kubelore.cluster_registry.renewal import Renewal
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.upkeep import Upkeep
from kubelore.common.bus import Bus, Leases, Service
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import ClusterEvent
from kubelore.common.contracts.flows import SYNCED_EVENTS
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

VERSION = "0.1.0"
LEASE = "registry.health"
LEASE_RETRY_S = 3.0
CREDENTIALS_S = 60.0
"""Between two looks at what expires: a token lives ten minutes at least."""


def endpoints(bus: Bus, registry: Registry, upkeep: Upkeep, groups: Groups) -> Service:
    """The ADR-32 service with every endpoint of the contract."""
    service = Service(bus, clusters.SERVICE, VERSION)
    service.serve(clusters.RECIPIENT, registry.recipient)
    service.serve(clusters.INSPECT, registry.inspect)
    service.serve(clusters.ADD, registry.add)
    service.serve(clusters.LIST, registry.list)
    service.serve(clusters.ROSTER, registry.roster)
    service.serve(clusters.GET, registry.get)
    service.serve(clusters.UPDATE, upkeep.update)
    service.serve(clusters.ROTATE, upkeep.rotate)
    service.serve(clusters.REMOVE, registry.remove)
    service.serve(clusters.TEST, registry.test)
    service.serve(clusters.CREDENTIALS, registry.credentials)
    service.serve(clusters.LIST_GROUPS, groups.list)
    service.serve(clusters.GET_GROUP, groups.get)
    service.serve(clusters.CREATE_GROUP, groups.create)
    service.serve(clusters.UPDATE_GROUP, groups.update)
    service.serve(clusters.DELETE_GROUP, groups.delete)
    return service


async def run_under_lease(leases: Leases, *loops: Callable[[], Awaitable[None]]) -> None:
    """Run what one replica does for all whenever this one holds the lease; until cancelled."""
    while True:
        lease = await leases.wait(LEASE, retry_s=LEASE_RETRY_S)
        running = [asyncio.ensure_future(loop()) for loop in loops]
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({*running, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            for task in running:
                task.cancel()
            for outcome in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a loop of the registry ended", exc_info=outcome)
            await lease.release()


async def look_after_credentials(renewal: Renewal, expiry: ExpiryWatch) -> None:
    """Renew what can be renewed, and warn of what expires; until cancelled."""
    while True:
        try:
            await renewal.renew_due()
            await expiry.tell_due()
        except KubeloreError as error:
            log.warning("credentials not looked after", reason=error.reason, detail=error.detail)
        await asyncio.sleep(CREDENTIALS_S)


async def record_syncs(bus: Bus, repository: ClusterRepository) -> None:
    """Write what observers report (last sync, object counts) into the clusters' records; until cancelled.

    A report that cannot be written is followed by the next in seconds.
    """
    async for event in bus.subscribe_events(SYNCED_EVENTS, ClusterEvent):
        if event.as_of is None or event.resource_count is None:
            continue
        try:
            await repository.update(
                event.cluster,
                last_sync_time=iso_utc(event.as_of),
                resource_count=event.resource_count,
            )
        except KubeloreError as error:
            log.warning("sync not recorded", cluster=event.cluster, detail=error.detail)
