"""The process of cluster-registry: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kubelore.cluster_registry.announcements import Announcements
from kubelore.cluster_registry.expiry import ExpiryWatch
from kubelore.cluster_registry.groups import Groups
from kubelore.cluster_registry.prober import Prober
from kubelore.cluster_registry.registry import Registry
from kubelore.cluster_registry.renewal import Renewal
from kubelore.cluster_registry.repository import AlertRepository, ClusterRepository, GroupRepository
from kubelore.cluster_registry.service import (
    endpoints,
    look_after_credentials,
    record_syncs,
    run_under_lease,
)
from kubelore.cluster_registry.upkeep import Upkeep
from kubelore.cluster_registry.vault import Vault
from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.bus import Bus, Service
from kubelore.common.contracts.clusters import SERVICE
from kubelore.common.crypto import Keyring
from kubelore.common.kube import AddressPolicy
from kubelore.common.settings import CommonSettings
from kubelore.common.store import Database, open_database


@dataclass(frozen=True)
class House:
    """The registry's parts, put together over one bus and one database."""

    service: Service
    prober: Prober
    renewal: Renewal
    expiry: ExpiryWatch
    clusters: ClusterRepository


async def build(
    settings: CommonSettings, bus: Bus, database: Database, clock: Callable[[], float] = time.time
) -> House:
    """Put the registry together; `clock`, in seconds since the epoch, says when credentials expire."""
    policy = AddressPolicy.from_settings(settings)
    vault = Vault(Keyring.load(settings.keyring_dir / "clusters.json"))
    announcements = Announcements(bus)
    repository = ClusterRepository(database)
    await repository.prepare()
    groups = Groups(GroupRepository(database), repository, announcements)
    registry = Registry(repository, vault, policy, announcements, groups)
    upkeep = Upkeep(repository, vault, policy, announcements, groups)
    return House(
        service=endpoints(bus, registry, upkeep, groups),
        prober=Prober(vault, repository, policy, bus),
        renewal=Renewal(repository, vault, policy, announcements, clock),
        expiry=ExpiryWatch(repository, AlertRepository(database), bus, clock),
        clusters=repository,
    )


async def main(settings: CommonSettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set."""
    database = await open_database(settings)
    bus = await buses.connect(settings, name=SERVICE)
    try:
        await buses.until_prepared(bus)
        house = await build(settings, bus, database)
        await house.service.start()
        background = [
            asyncio.create_task(
                run_under_lease(
                    buses.Leases(bus),
                    house.prober.run,
                    partial(look_after_credentials, house.renewal, house.expiry),
                )
            ),
            asyncio.create_task(record_syncs(bus, house.clusters)),
            asyncio.create_task(bus.until_closed()),
        ]
        await process.until_stopped_or_failed(stopping, background)
        await house.service.stop()
    finally:
        await bus.close()
        await database.close()


if __name__ == "__main__":
    process.run(SERVICE, CommonSettings(), main)
