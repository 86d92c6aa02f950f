"""An observer over a simulated cluster, on a real bus, with everything it publishes at hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller
from kubelore.common.bus import (
    Bus,
    Checkpoint,
    Feed,
    FeedReset,
    Leases,
    Service,
    connect,
    ensure_streams,
)
from kubelore.common.contracts import clusters, writes
from kubelore.common.contracts.changes import Applied, Change, Gap, Record, Synced
from kubelore.common.contracts.clusters import (
    ClusterConnection,
    ClusterEvent,
    ClusterPage,
    ClusterRef,
    Credentials,
    ListRoster,
    cluster_event_subject,
)
from kubelore.common.contracts.resources import observer_lease
from kubelore.common.contracts.writes import Apply, OperationRecord, OperationRef, Written
from kubelore.common.crypto import Keyring
from kubelore.common.errors import KubeloreError, NotFound
from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, read_kubeconfig
from kubelore.common.operations import new_operation_id, operating
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.fixtures import LabPair
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.__main__ import Parts, assemble
from kubelore.resource_ops.fleet import Fleet, Pace
from kubelore.resource_ops.observer import ClusterObserver, Sealing
from kubelore.resource_ops.read_model import ReadModel
from kubelore.resource_ops.settings import ResourceOpsSettings
from kubelore.stack.fixtures import speak_as

POLICY = AddressPolicy(allow_private=True)
CLUSTER = "sim"
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
HAND_CLUSTER = "sim-01"
ANSWERED = {endpoint.request: endpoint for endpoint in writes.BY_ACTION.values()}
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

    def order(self, type_name: str = "configmaps") -> list[str]:
        """What came of a type, in a word each: gap, observed, created, updated, deleted, synced."""
        return [
            record.kind if isinstance(record, Change) else type(record).__name__.lower()
            for record in self.records
            if isinstance(record, Change | Gap | Synced) and record.type == type_name
        ]

    def gaps(self, type_name: str = "configmaps") -> list[Gap]:
        return [record for record in self.records if isinstance(record, Gap) and record.type == type_name]

    def since_last_gap(self, type_name: str = "configmaps") -> Published:
        """What came from a type's last gap on: nothing of what an observer before it had published of it."""
        gaps = (
            n for n, record in enumerate(self.records) if isinstance(record, Gap) and record.type == type_name
        )
        last = max(gaps)
        return Published(self.records[last:])

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
        self.put_blob = self.blobs.put
        self.running: asyncio.Task[None]
        """The observer that runs now, or ran last."""

    @contextlib.asynccontextmanager
    async def observing(
        self, *, namespaces: Sequence[str] = (), until_live: bool = True
    ) -> AsyncIterator[ClusterObserver]:
        """An observer for as long as the block runs, as a replica that took the lease."""
        lease = await Leases(self.bus).wait(observer_lease(CLUSTER))
        access = read_kubeconfig(self.cluster.kubeconfig, None, POLICY)
        sealing = Sealing(self.keyring, self.versions.recipient(), self.put_blob)
        model = ReadModel().open(CLUSTER)
        observer = ClusterObserver(
            access,
            POLICY,
            bus=self.bus,
            lease=lease,
            model=model,
            sealing=sealing,
            namespaces=namespaces,
        )
        self.running = asyncio.create_task(observer.run())
        try:
            if until_live:
                await wait_for(lambda: self.is_live(observer), "the observer to be live", 20)
            yield observer
        finally:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            await lease.release()

    @contextlib.asynccontextmanager
    async def checkpoint(self) -> AsyncIterator[Checkpoint]:
        """The checkpoint while nobody observes, as the next holder of the lease loads it."""
        lease = await Leases(self.bus).wait(observer_lease(CLUSTER))
        yield await Checkpoint.load(self.bus, CLUSTER, lease)
        await lease.release()

    async def is_live(self, observer: ClusterObserver) -> bool:
        return observer.state().status == "live"

    async def create(
        self,
        name: str,
        labels: dict[str, str] | None = None,
        *,
        namespace: str = "default",
        **data: str,
    ) -> None:
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await self.client.create(CONFIG_MAPS, namespace, json.dumps(manifest).encode())

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
def policy() -> AddressPolicy:
    return POLICY


@pytest.fixture
def config_maps() -> ResourceType:
    return CONFIG_MAPS


@dataclass
class Replica:
    """One replica of resource-ops in this process."""

    bus: Bus
    parts: Parts

    @property
    def fleet(self) -> Fleet:
        return self.parts.fleet


class House:
    """A stand-in for cluster-registry over simulated clusters, and replicas of resource-ops that come and go."""

    def __init__(self, fleet: Sequence[Any], bus: Bus, settings: CommonSettings) -> None:
        self.clusters = fleet
        self.bus = bus
        self.leases = Leases(bus)
        self.keyring = Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
        Keyring.load_or_create(settings.keyring_dir / "versions.json", "versions")
        self.registry = Service(bus, clusters.SERVICE, "0.1.0")
        self.registry.serve(clusters.ROSTER, self._list)
        self.registry.serve(clusters.CREDENTIALS, self._credentials)
        self.asked: list[tuple[str, float]] = []
        """Whose credentials were asked for, and when."""
        self.synced: list[ClusterEvent] = []
        self.settings = settings
        self._known: dict[str, ClusterConnection] = {}
        self._sealed: dict[str, bytes] = {}

    def add(self, *numbers: int, generation: int = 1) -> None:
        """Onboard simulated clusters by their place in the fleet, or give them new credentials."""
        for number in numbers:
            name, server = self.clusters[number].name, self.clusters[number].server
            self._known[name] = ClusterConnection(
                id=name, name=name, display_name=name, context="", server=server, generation=generation
            )
            access = read_kubeconfig(self.clusters[number].kubeconfig, None, POLICY)
            self.give(name, self.keyring.seal(msgspec.msgpack.encode(access), context=f"cluster:{name}"))

    def give(self, name: str, sealed: bytes) -> None:
        """Answer with these sealed credentials from now on."""
        self._sealed[name] = sealed

    async def remove(self, number: int) -> None:
        """Remove a cluster, as the registry does: first the record, then the event."""
        name = self.clusters[number].name
        del self._known[name]
        event = ClusterEvent(cluster=name, happened="removed", at=time.time())
        await self.bus.publish_event(cluster_event_subject(event), event)

    @contextlib.asynccontextmanager
    async def replica(self, name: str, pace: Pace | None = None, **budgets: int) -> AsyncIterator[Replica]:
        """A replica for as long as the block runs."""
        common = self.settings.model_dump() | {"replica": f"resource-ops-{name}"}
        settings = ResourceOpsSettings(**(common | budgets))
        bus = await connect(settings, name="resource-ops")
        database = await open_database(settings)
        parts = assemble(settings, bus, database, pace)
        service = parts.service(bus)
        await service.start()
        running = parts.background()
        try:
            yield Replica(bus, parts)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await service.stop()
            await bus.close()
            await database.close()

    async def follow(self) -> None:
        """Collect what observers report, until cancelled."""
        async for event in self.bus.subscribe_events("kubelore.v1.events.cluster.*.synced", ClusterEvent):
            self.synced.append(event)

    async def _list(self, request: ListRoster) -> ClusterPage:
        items = sorted(self._known.values(), key=lambda cluster: cluster.id)
        return ClusterPage(items, len(items))

    async def _credentials(self, request: ClusterRef) -> Credentials:
        self.asked.append((request.id, time.monotonic()))
        known = self._known[request.id]
        return Credentials(
            id=known.id, generation=known.generation, kube_system_uid="", sealed=self._sealed[known.id]
        )


@contextlib.asynccontextmanager
async def housing(clusters: Sequence[Any], settings: CommonSettings) -> AsyncIterator[House]:
    """A house over clusters that have a name, a server and a kubeconfig."""
    bus = speak_as(await connect(settings, name="cluster-registry"), settings)
    await ensure_streams(bus)
    made = House(clusters, bus, settings)
    await made.registry.start()
    following = asyncio.create_task(made.follow())
    try:
        yield made
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await made.registry.stop()
        await bus.close()


@pytest_asyncio.fixture(loop_scope="session")
async def house(settings: CommonSettings) -> AsyncIterator[House]:
    async with (
        SimulatedFleet(clusters=4, pods=5, bookmark_interval_s=0.5) as fleet,
        housing(fleet, settings) as made,
    ):
        yield made


@dataclass(frozen=True)
class RealCluster:
    """A control plane as a house takes it."""

    name: str
    server: str
    kubeconfig: str


@pytest_asyncio.fixture(loop_scope="session")
async def real_hand(lab_pair: LabPair, settings: CommonSettings) -> AsyncIterator[Hand]:
    """Writes to a real API server, as the cluster `real`."""
    kubeconfig = lab_pair.first.kubeconfig()
    access = read_kubeconfig(kubeconfig, None, POLICY)
    async with housing([RealCluster("real", access.server, kubeconfig)], settings) as house:
        house.add(0)
        async with house.replica("a") as replica, KubeClient(access, POLICY) as client:
            yield Hand(house, replica, client)


class Asker:
    """Asks one replica, as the gateway does, and writes to the clusters behind its back."""

    def __init__(self, house, replica, client: KubeClient) -> None:
        self.house = house
        self.replica = replica
        self.client = client

    async def ask(self, endpoint, request, **options: Any):
        return await self.house.bus.request(endpoint, request, target=self.replica.bus.replica, **options)

    async def create(self, name: str) -> dict[str, Any]:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        return json.loads(await self.client.create(CONFIG_MAPS, "default", json.dumps(manifest).encode()))


@pytest_asyncio.fixture(loop_scope="session")
async def asker(house, policy) -> AsyncIterator[Asker]:
    house.add(0)
    client = KubeClient(read_kubeconfig(house.clusters[0].kubeconfig, None, policy), policy)
    async with house.replica("a") as replica, client:
        await wait_for(lambda: _live(replica), "the cluster to be live", 20)
        yield Asker(house, replica, client)


async def _live(replica) -> bool:
    observer = replica.fleet.observer("sim-01")
    return observer is not None and observer.state().status == "live"


class Hand:
    """Writes through a replica as the gateway does, and to the cluster behind its back."""

    def __init__(self, house, replica, client: KubeClient) -> None:
        self.house = house
        self.replica = replica
        self.client = client
        self.operation = ""
        """The operation of the last write."""

    async def write(
        self, write: writes.Write, caller: Caller = ADMINISTRATOR, operation: str = ""
    ) -> Written:
        self.house.bus.speaks_for = caller
        self.operation = operation or new_operation_id()
        try:
            with operating(self.operation):
                return await self.house.bus.request(ANSWERED[type(write)], write)
        finally:
            self.house.bus.speaks_for = ADMINISTRATOR

    async def apply(self, manifest: dict[str, Any], caller: Caller = ADMINISTRATOR, **more: Any) -> Written:
        return await self.write(
            Apply(cluster=HAND_CLUSTER, manifest=json.dumps(manifest).encode(), **more), caller
        )

    async def record(self) -> OperationRecord:
        """What is recorded of the last write."""
        found = await self.house.bus.request(writes.OPERATIONS, OperationRef(self.operation))
        (record,) = found.items
        return record

    async def live(self, found: ResourceType, name: str, namespace: str = "default") -> dict[str, Any]:
        return json.loads(await self.client.get(found, namespace, name))

    async def is_gone(self, found: ResourceType, name: str) -> bool:
        try:
            await self.live(found, name)
        except NotFound:
            return True
        return False

    async def refused(self, write: writes.Write, caller: Caller = ADMINISTRATOR) -> KubeloreError:
        with pytest.raises(KubeloreError) as refusal:
            await self.write(write, caller)
        return refusal.value


@pytest_asyncio.fixture(loop_scope="session")
async def hand(house, policy) -> AsyncIterator[Hand]:
    house.add(0)
    client = KubeClient(read_kubeconfig(house.clusters[0].kubeconfig, None, policy), policy)
    async with house.replica("a") as replica, client:
        yield Hand(house, replica, client)


@pytest_asyncio.fixture(loop_scope="session")
async def applied(hand) -> AsyncIterator[list[Applied]]:
    """The `applied` records that come over the change stream."""
    found: list[Applied] = []
    feed = Feed(hand.house.bus)
    position = await feed.position()

    async def follow() -> None:
        async for _, record in feed.follow(position):
            if isinstance(record, Applied):
                found.append(record)

    following = asyncio.create_task(follow())
    yield found
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
