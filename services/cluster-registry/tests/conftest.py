"""A registry on a real bus and a real MongoDB, with simulated clusters to onboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from kubelore.cluster_registry.prober import Prober
from kubelore.cluster_registry.registry import Registry
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.service import endpoints, probe_under_lease, record_syncs
from kubelore.common.bus import Bus, Leases, connect, ensure_streams
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import (
    AddCluster,
    ClusterConnection,
    ClusterEvent,
    ClusterRef,
    Empty,
    Inspection,
    InspectKubeconfig,
    Sealed,
)
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.kube import AddressPolicy
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

    async def sealed(self, kubeconfig: str, purpose: str, context: str | None = None) -> Sealed:
        key = await self.bus.request(clusters.RECIPIENT, Empty())
        box = Recipient(key.key).seal(kubeconfig.encode(), context=f"kubeconfig:{purpose}")
        return Sealed(kubeconfig=box, context=context)

    async def add(self, name: str, kubeconfig: str | None = None, **more: Any) -> ClusterConnection:
        text = self.fleet[0].kubeconfig if kubeconfig is None else kubeconfig
        request = AddCluster(name=name, sealed=await self.sealed(text, name), **more)
        return await self.bus.request(clusters.ADD, request)

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


@pytest_asyncio.fixture(loop_scope="session")
async def repository(settings: CommonSettings) -> AsyncIterator[ClusterRepository]:
    async with await open_database(settings) as database:
        opened = ClusterRepository(database)
        await opened.prepare()
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def registry(
    settings: CommonSettings, repository: ClusterRepository, fleet: SimulatedFleet
) -> AsyncIterator[Caller]:
    """A running registry without its health loop, and somebody who calls it."""
    bus = speak_as(await connect(settings, name=clusters.SERVICE), settings)
    await ensure_streams(bus)
    keyring = Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
    service = endpoints(bus, Registry(repository, keyring, AddressPolicy.from_settings(settings), bus))
    await service.start()
    caller = Caller(bus, fleet)
    background = [
        asyncio.create_task(record_syncs(bus, repository)),
        asyncio.create_task(_listen(bus, caller.events)),
    ]
    yield caller
    await _end(*background)
    await service.stop()
    await bus.close()


@pytest_asyncio.fixture(loop_scope="session")
async def probed(
    settings: CommonSettings, repository: ClusterRepository, registry: Caller
) -> AsyncIterator[Caller]:
    """The same registry with its health loop."""
    keyring = Keyring.load(settings.keyring_dir / "clusters.json")
    policy = AddressPolicy.from_settings(settings)
    prober = Prober(Registry(repository, keyring, policy, registry.bus), repository, policy, registry.bus)
    probing = asyncio.create_task(probe_under_lease(Leases(registry.bus), prober))
    yield registry
    await _end(probing)


async def _listen(bus: Bus, heard: list[ClusterEvent]) -> None:
    async for event in bus.subscribe_events("kubelore.v1.events.cluster.>", ClusterEvent):
        heard.append(event)  # noqa: PERF401 - it never ends


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
