"""The bus endpoints of cluster-registry: one line to the domain each."""

from __future__ import annotations

import asyncio

from kubelore.cluster_registry.prober import Prober
from kubelore.cluster_registry.registry import Registry, iso_utc
from kubelore.cluster_registry.repository import ClusterRepository
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


def endpoints(bus: Bus, registry: Registry) -> Service:
    """The ADR-32 service with every endpoint of the contract."""
    service = Service(bus, clusters.SERVICE, VERSION)
    service.serve(clusters.RECIPIENT, registry.recipient)
    service.serve(clusters.INSPECT, registry.inspect)
    service.serve(clusters.ADD, registry.add)
    service.serve(clusters.LIST, registry.list)
    service.serve(clusters.ROSTER, registry.roster)
    service.serve(clusters.GET, registry.get)
    service.serve(clusters.REMOVE, registry.remove)
    service.serve(clusters.TEST, registry.test)
    service.serve(clusters.CREDENTIALS, registry.credentials)
    return service


async def probe_under_lease(leases: Leases, prober: Prober) -> None:
    """Run the health loop whenever this replica holds its lease; until cancelled."""
    while True:
        lease = await leases.wait(LEASE, retry_s=LEASE_RETRY_S)
        probing = asyncio.create_task(prober.run())
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({probing, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            probing.cancel()
            (outcome,) = await asyncio.gather(probing, return_exceptions=True)
            if isinstance(outcome, Exception):
                log.error("health loop ended", exc_info=outcome)
            await lease.release()


async def record_syncs(bus: Bus, repository: ClusterRepository) -> None:
    """Write what observers report (last sync, object counts) into the clusters' records; until cancelled.

    A report that cannot be written is followed by the next in seconds.
    """
    async for event in bus.subscribe_events(SYNCED_EVENTS, ClusterEvent):
        try:
            await repository.update(
                event.cluster,
                last_sync_time=iso_utc(event.at),
                resource_count=event.resource_count,
            )
        except KubeloreError as error:
            log.warning("sync not recorded", cluster=event.cluster, detail=error.detail)
