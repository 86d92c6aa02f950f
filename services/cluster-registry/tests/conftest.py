"""A registry on a real bus and a real MongoDB, with simulated clusters to onboard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from kubelore.cluster_registry.__main__ import House, build
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.service import record_syncs, run_under_lease
from kubelore.common.bus import Bus, Leases, connect, ensure_streams
from kubelore.common.contracts import clusters
from kubelore.common.contracts.alerts import CloudEvent
from kubelore.common.contracts.clusters import (
    AddCluster,
    ClusterConnection,
    ClusterEvent,
    ClusterRef,
    ConnectionTest,
    Empty,
    Inspection,
    InspectKubeconfig,
    RotateKubeconfig,
    Sealed,
    UpdateCluster,
)
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for
from kubelore.stack.fixtures import speak_as


class Caller:
    """The registry as its callers reach it: over the bus, with kubeconfigs sealed to its key."""

    def __init__(self, bus: Bus, fleet: SimulatedFleet) -> None:
        self.bus = bus
        self.fleet = fleet
        self.events: list[ClusterEvent] = []
        self.alerts: list[CloudEvent] = []

    async def sealed(self, kubeconfig: str, purpose: str, context: str | None = None) -> Sealed:
        key = await self.bus.request(clusters.RECIPIENT, Empty())
        box = Recipient(key.key).seal(kubeconfig.encode(), context=f"kubeconfig:{purpose}")
        return Sealed(kubeconfig=box, context=context)

    async def add(self, name: str, kubeconfig: str | None = None, **more: Any) -> ClusterConnection:
        text = self.fleet[0].kubeconfig if kubeconfig is None else kubeconfig
        request = AddCluster(name=name, sealed=await self.sealed(text, name), **more)
        return await self.bus.request(clusters.ADD, request)

    async def update(self, name: str, **changes: Any) -> ClusterConnection:
        return await self.bus.request(clusters.UPDATE, UpdateCluster(id=name, **changes))

    async def rotate(self, name: str, kubeconfig: str, **more: Any) -> ClusterConnection:
        sealed = await self.sealed(kubeconfig, name)
        return await self.bus.request(clusters.ROTATE, RotateKubeconfig(id=name, sealed=sealed, **more))

    async def test(self, name: str) -> ConnectionTest:
        return await self.bus.request(clusters.TEST, ClusterRef(name))

    async def get(self, name: str) -> ClusterConnection:
        return await self.bus.request(clusters.GET, ClusterRef(name))

    async def remove(self, name: str) -> None:
        await self.bus.request(clusters.REMOVE, ClusterRef(name))

    async def inspect(self, kubeconfig: str) -> Inspection:
        request = InspectKubeconfig(sealed=await self.sealed(kubeconfig, "inspect"))
        return await self.bus.request(clusters.INSPECT, request)

    def told(self, name: str) -> list[str]:
        """What was said on the bus of a cluster, in order."""
        return [event.happened for event in self.events if event.cluster == name]

    async def until(self, name: str, seconds: float = 20.0, **fields: Any) -> ClusterConnection:
        """Wait until a cluster's record holds these fields."""

        async def holds() -> bool:
            found = await self.get(name)
            return all(getattr(found, field) == value for field, value in fields.items())

        await wait_for(holds, f"{name} to have {fields}", seconds)
        return await self.get(name)

    async def until_told(self, name: str, *expected: str, seconds: float = 20.0) -> None:
        async def told() -> bool:
            return self.told(name) == list(expected)

        await wait_for(told, f"{name} to be told {expected}", seconds)


@pytest_asyncio.fixture(loop_scope="session")
async def fleet() -> AsyncIterator[SimulatedFleet]:
    async with SimulatedFleet(clusters=2, pods=5) as running:
        yield running


@dataclass
class Clock:
    """Seconds since the epoch, as the test says."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(loop_scope="session")
async def bus(settings: CommonSettings) -> AsyncIterator[Bus]:
    connected = speak_as(await connect(settings, name=clusters.SERVICE), settings)
    await ensure_streams(connected)
    yield connected
    await connected.close()


@pytest_asyncio.fixture(loop_scope="session")
async def registry_house(settings: CommonSettings, bus: Bus, clock: Clock) -> AsyncIterator[House]:
    """The registry's parts, over a database of their own."""
    Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
    async with await open_database(settings) as database:
        yield await build(settings, bus, database, clock)


@pytest_asyncio.fixture(loop_scope="session")
async def repository(registry_house: House) -> ClusterRepository:
    return registry_house.clusters


@pytest_asyncio.fixture(loop_scope="session")
async def registry(bus: Bus, registry_house: House, fleet: SimulatedFleet) -> AsyncIterator[Caller]:
    """A running registry without its health loop, and somebody who calls it."""
    await registry_house.service.start()
    caller = Caller(bus, fleet)
    background = [
        asyncio.create_task(record_syncs(bus, registry_house.clusters)),
        asyncio.create_task(_listen(bus, caller.events)),
        asyncio.create_task(_listen_for_alerts(bus, caller.alerts)),
    ]
    yield caller
    await _end(*background)
    await registry_house.service.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def probed(registry_house: House, registry: Caller) -> AsyncIterator[Caller]:
    """The same registry with its health loop."""
    probing = asyncio.create_task(run_under_lease(Leases(registry.bus), registry_house.prober.run))
    yield registry
    await _end(probing)


async def _listen_for_alerts(bus: Bus, heard: list[CloudEvent]) -> None:
    async for alert in bus.subscribe_events("kubelore.v1.events.alert.>", CloudEvent):
        heard.append(alert)  # noqa: PERF401 - it never ends


async def _listen(bus: Bus, heard: list[ClusterEvent]) -> None:
    async for event in bus.subscribe_events("kubelore.v1.events.cluster.>", ClusterEvent):
        heard.append(event)  # noqa: PERF401 - it never ends


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
