"""An observer over a simulated cluster, on a real bus, with everything it publishes at hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.bus import Bus, Feed, FeedReset, Leases, connect, ensure_streams
from kubelore.common.contracts.changes import Change, Gap, Record, Synced
from kubelore.common.contracts.resources import observer_lease
from kubelore.common.crypto import Keyring
from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, read_kubeconfig
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.observer import ClusterObserver, Sealing
from kubelore.resource_ops.read_model import ReadModel

POLICY = AddressPolicy(allow_private=True)
CLUSTER = "sim"
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)


@dataclass
class Published:
    """What came over the feed, in order."""

    records: list[Record | FeedReset] = field(default_factory=list)

    def changes(self, type_name: str = "configmaps") -> list[Change]:
        return [record for record in self.records if isinstance(record, Change) and record.type == type_name]

    def told(self, type_name: str = "configmaps") -> list[tuple[str, str]]:
        """(kind, name) of every change of a type."""
        return [(change.kind, change.id.split(":", 3)[3]) for change in self.changes(type_name)]

    def gaps(self, type_name: str = "configmaps") -> list[Gap]:
        return [record for record in self.records if isinstance(record, Gap) and record.type == type_name]

    def synced(self, type_name: str = "configmaps") -> list[Synced]:
        return [record for record in self.records if isinstance(record, Synced) and record.type == type_name]


class Bench:
    """One simulated cluster, a client that writes to it, and observers that come and go."""

    def __init__(self, fleet: SimulatedFleet, bus: Bus, settings: CommonSettings) -> None:
        self.cluster = fleet[0]
        self.bus = bus
        self.published = Published()
        self.keyring = Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
        self.versions = Keyring.load_or_create(settings.keyring_dir / "versions.json", "versions")
        self.blobs = BlobStore.open(settings.blob_url)
        self.client = KubeClient(read_kubeconfig(fleet[0].kubeconfig, None, POLICY), POLICY)
        self.observer: ClusterObserver

    @contextlib.asynccontextmanager
    async def observing(self) -> AsyncIterator[ClusterObserver]:
        """An observer for as long as the block runs, as a replica that took the lease."""
        lease = await Leases(self.bus).wait(observer_lease(CLUSTER))
        access = read_kubeconfig(self.cluster.kubeconfig, None, POLICY)
        sealing = Sealing(self.keyring, self.versions.recipient(), self.blobs.put)
        model = ReadModel().open(CLUSTER)
        observer = ClusterObserver(access, POLICY, bus=self.bus, lease=lease, model=model, sealing=sealing)
        running = asyncio.create_task(observer.run())
        try:
            await wait_for(lambda: self.is_live(observer), "the observer to be live", 20)
            yield observer
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await lease.release()

    async def is_live(self, observer: ClusterObserver) -> bool:
        return observer.state().status == "live"

    async def create(self, name: str, labels: dict[str, str] | None = None, **data: str) -> None:
        metadata = {"name": name, "namespace": "default", "labels": labels or {}}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await self.client.create(CONFIG_MAPS, "default", json.dumps(manifest).encode())

    async def patch(self, name: str, body: dict[str, Any]) -> None:
        await self.client.patch(CONFIG_MAPS, "default", name, json.dumps(body).encode())

    async def delete(self, name: str) -> None:
        await self.client.delete(CONFIG_MAPS, "default", name)

    async def until_told(self, *expected: tuple[str, str], type_name: str = "configmaps") -> None:
        async def told() -> bool:
            return set(expected) <= set(self.published.told(type_name))

        await wait_for(told, f"{expected} to be published", 20)


@pytest_asyncio.fixture(loop_scope="session")
async def bench(settings: CommonSettings) -> AsyncIterator[Bench]:
    bus = await connect(settings, name="resource-ops")
    await ensure_streams(bus)
    async with SimulatedFleet(clusters=1, pods=5, bookmark_interval_s=0.5) as fleet:
        made = Bench(fleet, bus, settings)
        following = asyncio.create_task(_follow(Feed(bus), await Feed(bus).position(), made.published))
        async with made.client:
            yield made
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await bus.close()


async def _follow(feed: Feed, position: str, published: Published) -> None:
    async for _, record in feed.follow(position):
        published.records.append(record)


@pytest.fixture
def config_maps() -> ResourceType:
    return CONFIG_MAPS
