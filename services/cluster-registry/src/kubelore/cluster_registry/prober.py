"""The health loop: probes every cluster, records what changed, and says so on the bus.

One replica of the registry runs it (lease `registry.health`); a probe is one
small request, so that one loop serves 500 clusters.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from kubelore.cluster_registry.health import TIMEOUT_S, ProbeState, Verdict
from kubelore.cluster_registry.registry import Registry
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.common.bus import Bus
from kubelore.common.contracts.clusters import ClusterEvent, ListClusters, Status, cluster_event_subject
from kubelore.common.errors import KubeloreError, NotFound, Unauthenticated
from kubelore.common.kube import AddressPolicy, KubeClient
from kubelore.common.telemetry import get_logger, outgoing

log = get_logger(__name__)

ROSTER_S = 5.0


class Prober:
    """Keeps one probing task per cluster for as long as it runs."""

    def __init__(
        self, registry: Registry, repository: ClusterRepository, policy: AddressPolicy, bus: Bus
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._policy = policy
        self._bus = bus
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follow the roster of clusters until cancelled; its probes end with it."""
        try:
            while True:
                try:
                    await self._follow_roster()
                except KubeloreError as error:
                    log.warning("roster not read", reason=error.reason, detail=error.detail)
                await asyncio.sleep(ROSTER_S)
        finally:
            tasks = list(self._tasks.values())
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_roster(self) -> None:
        wanted: set[tuple[str, int]] = set()
        after: str | None = None
        while True:
            page = await self._repository.page(ListClusters(limit=500, after=after))
            wanted.update((cluster.id, cluster.generation) for cluster in page.items)
            if page.next is None:
                break
            after = page.next
        for key in set(self._tasks) - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted:
            if key not in self._tasks or self._tasks[key].done():
                self._tasks[key] = asyncio.create_task(self._probe_forever(key[0]))

    async def _probe_forever(self, name: str) -> None:
        try:
            await self._probe_until_gone(name)
        except KubeloreError as error:
            log.warning("probing stopped", cluster=name, reason=error.reason, detail=error.detail)
        except Exception as error:
            # The task's boundary: the roster starts it again.
            log.error("probing failed", cluster=name, exc_info=error)

    async def _probe_until_gone(self, name: str) -> None:
        with suppress(NotFound):
            cluster, sealed = await self._repository.credentials(name)
            state, recorded, untold = ProbeState(), "", None
            async with KubeClient(
                self._registry.access(cluster, sealed), self._policy, headers=outgoing
            ) as client:
                while True:
                    error = await _probe(client)
                    verdict, delay = state.observe(error is None)
                    untold = verdict or untold
                    status = _status(state, error)
                    if status is None or (status, untold) == (recorded, None):
                        pass
                    elif await self._record(name, status, untold, error):
                        recorded, untold = status, None
                    await asyncio.sleep(delay)

    async def _record(
        self, name: str, status: Status, verdict: Verdict | None, error: KubeloreError | None
    ) -> bool:
        """Write the status, and tell of a verdict; whether it was written, else it is tried again."""
        detail = error.detail if error else ""
        try:
            await self._repository.update(
                name,
                status=status,
                health_status="healthy" if status == "connected" else "unhealthy",
                status_detail=detail,
            )
            if verdict is not None:
                event = ClusterEvent(cluster=name, happened=verdict, at=time.time(), detail=detail)
                await self._bus.publish_event(cluster_event_subject(event), event)
        except KubeloreError as problem:
            log.warning("status not recorded", cluster=name, status=status, detail=problem.detail)
            return False
        return True


def _status(state: ProbeState, error: KubeloreError | None) -> Status | None:
    """What to write of a cluster; None while a first failure waits for its confirmation."""
    if error is None:
        return "connected"
    if state.connected is not False:
        return None
    return "error" if isinstance(error, Unauthenticated) else "disconnected"


async def _probe(client: KubeClient) -> KubeloreError | None:
    try:
        await client.ready(timeout_s=TIMEOUT_S)
    except KubeloreError as error:
        return error
    return None
