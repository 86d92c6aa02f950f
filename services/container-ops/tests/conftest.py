"""Clusters that container-ops reaches, on a real bus, with a stand-in for cluster-registry that gives credentials."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest_asyncio

from kubelore.common.authz import no_such_cluster
from kubelore.common.bus import Bus, Service, connect, ensure_streams
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import (
    ClusterEvent,
    ClusterRef,
    Credentials,
    Happened,
    cluster_event_subject,
)
from kubelore.common.crypto import Keyring
from kubelore.common.kube import AddressPolicy, KubeClient, read_kubeconfig
from kubelore.common.reach import Reach
from kubelore.common.settings import CommonSettings
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.fixtures import LabNode
from kubelore.stack.fixtures import speak_as

POLICY = AddressPolicy(allow_private=True)


@dataclass
class Reachable:
    """Clusters by their name, each with a client of the test's own beside the reach that is tested."""

    reach: Reach
    bus: Bus
    clusters: dict[str, Any]
    clients: dict[str, KubeClient]
    generations: dict[str, int]
    """What the registry says; a cluster that is not here is not onboarded."""

    async def rotate(self, name: str) -> None:
        """Give a cluster another kubeconfig, and tell so as the registry does."""
        self.generations[name] += 1
        await self._tell(name, "updated", self.generations[name])

    async def remove(self, name: str) -> None:
        """Remove a cluster, and tell so as the registry does."""
        await self._tell(name, "removed", self.generations.pop(name))

    async def _tell(self, name: str, happened: Happened, generation: int) -> None:
        event = ClusterEvent(cluster=name, happened=happened, at=time.time(), generation=generation)
        await self.bus.publish_event(cluster_event_subject(event), event)

    @property
    def name(self) -> str:
        """The only, or first, cluster."""
        return next(iter(self.clusters))

    @property
    def client(self) -> KubeClient:
        """The client of the first cluster."""
        return self.clients[self.name]


@contextlib.asynccontextmanager
async def reaching(members: Sequence[Any], settings: CommonSettings) -> AsyncIterator[Reachable]:
    """A reach over clusters that have a name and a kubeconfig (text, or a method that gives it)."""
    keyring = Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
    accesses = {one.name: read_kubeconfig(_kubeconfig(one), None, POLICY) for one in members}
    generations = dict.fromkeys(accesses, 1)

    async def credentials(request: ClusterRef) -> Credentials:
        if (generation := generations.get(request.id)) is None:
            raise no_such_cluster(request.id)
        sealed = keyring.seal(msgspec.msgpack.encode(accesses[request.id]), context=f"cluster:{request.id}")
        return Credentials(id=request.id, generation=generation, kube_system_uid="", sealed=sealed)

    async with contextlib.AsyncExitStack() as stack:
        bus = speak_as(await connect(settings, name="container-ops"), settings)
        stack.push_async_callback(bus.close)
        await ensure_streams(bus)
        registry = Service(bus, clusters.SERVICE, "0.1.0")
        registry.serve(clusters.CREDENTIALS, credentials)
        await registry.start()
        stack.push_async_callback(registry.stop)
        clients = {name: KubeClient(access, POLICY) for name, access in accesses.items()}
        for client in clients.values():
            stack.push_async_callback(client.close)
        reach = Reach.open(bus, keyring, POLICY)
        running = asyncio.create_task(reach.run())
        try:
            yield Reachable(reach, bus, {one.name: one for one in members}, clients, generations)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _kubeconfig(one: Any) -> str:
    return one.kubeconfig() if callable(one.kubeconfig) else one.kubeconfig


@pytest_asyncio.fixture(loop_scope="session")
async def simulated(settings: CommonSettings) -> AsyncIterator[Reachable]:
    """A simulated cluster with twelve pods in three namespaces."""
    async with (
        SimulatedFleet(clusters=2, pods=12, bookmark_interval_s=0.5) as fleet,
        reaching([fleet[0], fleet[1]], settings) as reachable,
    ):
        yield reachable


@pytest_asyncio.fixture(loop_scope="session")
async def real(lab_node: LabNode, settings: CommonSettings) -> AsyncIterator[Reachable]:
    """The lab's cluster that has a node."""
    async with reaching([lab_node.plane], settings) as reachable:
        yield reachable
