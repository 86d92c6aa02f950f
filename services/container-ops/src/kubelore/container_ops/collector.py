"""Collecting logs: which nodes this replica collects from, so that all replicas share them and none does twice.

Each node whose logs are wanted has a lease. A replica that is there holds a
lease that says so, and takes no more nodes than its share; when another comes,
it gives back what is over, and when one dies, its nodes are free within the
time of a lease.
"""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import suppress

from kubelore.common.bus import Leases
from kubelore.common.errors import KubeloreError
from kubelore.common.reach import Reach
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.alerting import Alerting
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.node_collection import NodeCollection
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.wanted import Node, Plan, WantedContainers

log = get_logger(__name__)

PRESENCE = "logs.replica="
LOOK_S = 1.0
_LEAST_S = 0.2


class Collector:
    """One replica's part of collecting; at most `max_containers` containers, stored every `flush_s` seconds."""

    def __init__(
        self,
        leases: Leases,
        replica: str,
        reach: Reach,
        wanted: WantedContainers,
        repository: LogRuleRepository,
        store: SegmentStore,
        alerting: Alerting,
        *,
        flush_s: float,
        max_containers: int,
    ) -> None:
        self._leases = leases
        self._replica = replica
        self._reach = reach
        self._wanted = wanted
        self._repository = repository
        self._store = store
        self._alerting = alerting
        self._flush_s = flush_s
        self._max = max_containers
        self._held: dict[Node, tuple[NodeCollection, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Collect until cancelled; then what was read is stored, and the nodes are given back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._wanted.run())
                group.create_task(self._be_present())
                group.create_task(self._share_forever())
        finally:
            await asyncio.gather(*map(self._end, list(self._held)), return_exceptions=True)

    async def _be_present(self) -> None:
        while True:
            lease = await self._leases.wait(PRESENCE + self._replica)
            try:
                await lease.lost.wait()
            finally:
                await lease.release()

    async def _share_forever(self) -> None:
        while True:
            try:
                await self._share(self._wanted.plan(), await self._leases.holders("logs."))
            except KubeloreError as error:
                log.info("nodes not shared", reason=error.reason, detail=error.detail)
            await asyncio.sleep(_LEAST_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wanted.changed.wait()
            self._wanted.changed.clear()

    async def _share(self, plan: Plan, holders: dict[str, str]) -> None:
        """Go after what is wanted now; take what is free and give back what is over this replica's share."""
        for node, (collection, task) in list(self._held.items()):
            collection.want(plan.get(node, {}), self._wanted.policies)
            if task.done() or (node not in plan and collection.idle):
                await self._end(node)
        share = fair_share(len(plan), sum(key.startswith(PRESENCE) for key in holders))
        if len(self._held) > share:
            await self._end(random.choice(list(self._held)))  # noqa: S311 - any of them
            return
        free = [node for node in plan if node.lease not in holders and node not in self._held]
        random.shuffle(free)
        for node in free:
            if len(self._held) >= share or self._followed() + len(plan[node]) > self._max:
                break
            await self._begin(node, plan)

    def _followed(self) -> int:
        return sum(collection.containers for collection, _ in self._held.values())

    async def _begin(self, node: Node, plan: Plan) -> None:
        lease = await self._leases.acquire(node.lease)
        if lease is None:
            return
        collection = NodeCollection(node, lease, self._store, self._reach, self._alerting, self._flush_s)
        try:
            await collection.prepare([*await self._repository.policies.all(), *await self._repository.gone()])
        except BaseException:
            await lease.release()
            raise
        collection.want(plan[node], self._wanted.policies)
        self._held[node] = collection, asyncio.create_task(collection.run(), name=f"collect {node.name}")
        log.info("collecting logs", cluster=node.cluster, node=node.name, containers=len(plan[node]))

    async def _end(self, node: Node) -> None:
        collection, task = self._held.pop(node)
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(ended, Exception):
            log.warning("collecting ended", cluster=node.cluster, node=node.name, why=str(ended))
        await collection.close()


def fair_share(nodes: int, replicas: int) -> int:
    """How many nodes one of so many replicas collects from, at most."""
    return math.ceil(nodes / max(1, replicas))
