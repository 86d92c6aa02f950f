"""The process of resource-ops: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass

from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.bus import Bus, Lease, Service
from kubelore.common.contracts.clusters import Credentials
from kubelore.common.contracts.resources import SERVICE
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.kube import AddressPolicy
from kubelore.common.reach import Reach, open_access
from kubelore.common.store import BlobStore, Database, open_database
from kubelore.resource_ops.allocator import map_large_blocks
from kubelore.resource_ops.answers import Answers
from kubelore.resource_ops.budget import Budget
from kubelore.resource_ops.exports import Exports
from kubelore.resource_ops.fleet import Fleet, Pace
from kubelore.resource_ops.live import Live
from kubelore.resource_ops.many import ManyWriter
from kubelore.resource_ops.observer import ClusterObserver, Sealing
from kubelore.resource_ops.outbox import Outbox
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.repository import OperationRepository
from kubelore.resource_ops.service import endpoints, serve_live, serve_validating
from kubelore.resource_ops.settings import ResourceOpsSettings
from kubelore.resource_ops.validating import Validating
from kubelore.resource_ops.whole_clusters import WholeClusters
from kubelore.resource_ops.writer import Writer

OTHER_FILES = 256
"""Files and connections that are no watches: lists, probes, the bus."""


def build_fleet(settings: ResourceOpsSettings, bus: Bus, blobs: BlobStore, pace: Pace | None = None) -> Fleet:
    """A fleet whose observers open credentials with the clusters keyring, and seal to the versions key."""
    keyring = load_keyring(settings)
    versions = load_versions(settings)
    policy = AddressPolicy.from_settings(settings)
    sealing = Sealing(keyring, versions, blobs.put)

    def make_observer(credentials: Credentials, lease: Lease, model: ClusterModel) -> ClusterObserver:
        return ClusterObserver(
            open_access(keyring, credentials),
            policy,
            bus=bus,
            lease=lease,
            model=model,
            sealing=sealing,
            namespaces=credentials.namespaces,
        )

    budget = Budget(settings.memory_budget_bytes, _connections(settings.watch_budget))
    return Fleet(bus, buses.Leases(bus), make_observer, pace, budget)


def load_keyring(settings: ResourceOpsSettings) -> Keyring:
    """The keyring that credentials are sealed with, and Secrets' values hashed."""
    return Keyring.load(settings.keyring_dir / "clusters.json")


def load_versions(settings: ResourceOpsSettings) -> Recipient:
    """Whom Secrets' values are sealed to."""
    return Recipient.load(settings.keyring_dir / "versions.pub")


@dataclass(frozen=True, slots=True)
class Parts:
    """What one replica consists of."""

    fleet: Fleet
    reach: Reach
    outbox: Outbox
    writer: Writer
    many: ManyWriter
    exports: Exports
    live: Live
    validating: Validating

    def service(self, bus: Bus) -> Service:
        """What the replica answers, not started yet."""
        answers, whole = Answers(self.fleet), WholeClusters(self.fleet)
        service = endpoints(bus, answers, whole, self.writer, self.many, self.exports)
        serve_live(service, self.live)
        serve_validating(service, self.validating)
        return service

    def background(self) -> list[asyncio.Task[None]]:
        """What runs all the time, started."""
        return [asyncio.create_task(part.run()) for part in (self.fleet, self.reach, self.outbox)]


def assemble(settings: ResourceOpsSettings, bus: Bus, database: Database, pace: Pace | None = None) -> Parts:
    """The parts of a replica over its bus, its database and its blob store."""
    fleet = build_fleet(settings, bus, BlobStore.open(settings.blob_url), pace)
    reach = Reach.open(bus, load_keyring(settings), AddressPolicy.from_settings(settings))
    repository = OperationRepository(database)
    outbox = Outbox(fleet, repository, reach)
    keyring, replica, hurry = load_keyring(settings), bus.replica, outbox.hurry
    return Parts(
        fleet=fleet,
        reach=reach,
        outbox=outbox,
        writer=Writer(reach, repository, keyring, replica=replica, hurry=hurry),
        many=ManyWriter(reach, repository, keyring, replica=replica, hurry=hurry),
        exports=Exports(reach, keyring, load_versions(settings)),
        live=Live(reach, keyring),
        validating=Validating(reach),
    )


def _connections(watches: int) -> int:
    """As many watches as the process may have connections for; it may have as many as its hard limit says.

    Each watch is a connection of its own.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return watches
    return min(watches or hard, max(1, hard - OTHER_FILES))


async def main(settings: ResourceOpsSettings, stopping: asyncio.Event) -> None:
    """Observe, answer and write until `stopping` is set."""
    map_large_blocks()
    # Not waited for: reading needs no database.
    database = await open_database(settings, ping=False)
    bus = await buses.connect(settings, name=SERVICE)
    try:
        await buses.until_prepared(bus)
        parts = assemble(settings, bus, database)
        service = parts.service(bus)
        await service.start()
        background = [*parts.background(), asyncio.create_task(bus.until_closed())]
        await process.until_stopped_or_failed(stopping, background)
        await service.stop()
    finally:
        await bus.close()
        await database.close()


if __name__ == "__main__":
    process.run(SERVICE, ResourceOpsSettings(), main)
