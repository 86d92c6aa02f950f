"""The process of cluster-registry: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio

from kubelore.cluster_registry.prober import Prober
from kubelore.cluster_registry.registry import Registry
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.service import endpoints, probe_under_lease, record_syncs
from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.contracts.clusters import SERVICE
from kubelore.common.crypto import Keyring
from kubelore.common.kube import AddressPolicy
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database


async def main(settings: CommonSettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set."""
    keyring = Keyring.load(settings.keyring_dir / "clusters.json")
    policy = AddressPolicy.from_settings(settings)
    database = await open_database(settings)
    bus = await buses.connect(settings, name=SERVICE)
    try:
        await buses.until_prepared(bus)
        repository = ClusterRepository(database)
        await repository.prepare()
        registry = Registry(repository, keyring, policy, bus)
        service = endpoints(bus, registry)
        await service.start()
        background = [
            asyncio.create_task(
                probe_under_lease(buses.Leases(bus), Prober(registry, repository, policy, bus))
            ),
            asyncio.create_task(record_syncs(bus, repository)),
            asyncio.create_task(bus.until_closed()),
        ]
        await process.until_stopped_or_failed(stopping, background)
        await service.stop()
    finally:
        await bus.close()
        await database.close()


if __name__ == "__main__":
    process.run(SERVICE, CommonSettings(), main)
