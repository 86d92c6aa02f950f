"""From recorded writes to `applied` records: what the holder of a cluster does for whoever wrote to it.

Only a cluster's observer may publish its changes (the fence). So whatever
replica carried out a write leaves its record in MongoDB, and the observer
publishes from there, in the order of the writes, until the bus has it. A replica
that dies loses nothing; at worst a record is published twice, under the same
operation. Writes whose end nobody saw are looked for in the cluster first.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kubelore.common.contracts.changes import Applied
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import DEADLINE_S
from kubelore.common.errors import KubeloreError, NotFound
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.fleet import Fleet
from kubelore.resource_ops.observer import ClusterObserver
from kubelore.resource_ops.reach import Reach
from kubelore.resource_ops.repository import MAX_CLUSTERS, Operation, OperationRepository
from kubelore.resource_ops.write_outcomes import Evidence, evidence

log = get_logger(__name__)

POLL_S = 1.0
BATCH = 200
PUBLISH_S = 5.0
SETTLED = timedelta(seconds=5)
"""After its replica died, or said that it does not know, a write has reached the API server or never will."""
OVERDUE = timedelta(seconds=DEADLINE_S + 5)
"""By then a replica that lives has written down what became of a write."""


class Outbox:
    """Publishes what was written to the clusters that this replica holds, and resolves what nobody saw the end of."""

    def __init__(
        self,
        fleet: Fleet,
        repository: OperationRepository,
        reach: Reach,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fleet = fleet
        self._repository = repository
        self._reach = reach
        self._clock = clock
        self._wake = asyncio.Event()

    def hurry(self) -> None:
        """There may be something to publish: a write was carried out here."""
        self._wake.set()

    async def run(self) -> None:
        """Look once a second, and when told to hurry; until cancelled."""
        prepared = False
        while True:
            self._wake.clear()
            full = False
            try:
                if not prepared:
                    await self._repository.prepare()
                    prepared = True
                full = await self._round()
            except KubeloreError as error:
                log.warning("operations not read", reason=error.reason, detail=error.detail)
            if not full:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()

    async def _round(self) -> bool:
        """Do what is due now; whether there was more than fits a round."""
        observers = {one.cluster: one for one in self._fleet.observers()[:MAX_CLUSTERS]}
        if not observers:
            return False
        unresolved = await self._repository.due(list(observers), "resolve", BATCH)
        for operation in unresolved:
            if self._ripe(operation):
                await self._resolve(operation)
        ready = await self._repository.due(list(observers), "publish", BATCH)
        by_cluster: dict[str, list[Operation]] = defaultdict(list)
        for operation in ready:
            by_cluster[operation.cluster].append(operation)
        done = await asyncio.gather(
            *(self._publish(observers[name], found) for name, found in by_cluster.items())
        )
        return len(ready) == BATCH and all(done)

    async def _publish(self, observer: ClusterObserver, operations: Sequence[Operation]) -> bool:
        """Publish some of one cluster's writes, in order; whether the bus has them."""
        try:
            async with asyncio.timeout(PUBLISH_S):
                await observer.tell([_applied(operation) for operation in operations])
            await self._repository.published([operation.key for operation in operations])
        except (KubeloreError, TimeoutError) as error:
            log.info("writes not published yet", cluster=observer.cluster, error=type(error).__name__)
            return False
        return True

    def _ripe(self, operation: Operation) -> bool:
        """Whether nobody is going to write down any more what became of it."""
        now = self._clock()
        if operation.state != "intended" or not self._fleet.has_replica(operation.replica):
            return now - (operation.finished_at or operation.at) > SETTLED
        return now - operation.at > OVERDUE

    async def _resolve(self, operation: Operation) -> None:
        try:
            found = evidence(operation.action, operation.uid, operation.at, await self._metadata(operation))
        except KubeloreError as error:
            log.info("write not resolved yet", operation=operation.key, detail=error.detail)
            return
        if found.state == "probable" and await self._repository.others_after(operation):
            # What the field manager wrote last was the other's, so that it says nothing of this one.
            found = Evidence("unknown")
        await self._repository.conclude(
            operation.key,
            found.state,
            due="publish" if found.state == "probable" else "",
            uid=operation.uid or found.uid,
            rv=found.rv,
            error=operation.error,
        )
        log.warning("lost write resolved", operation=operation.key, state=found.state)

    async def _metadata(self, operation: Operation) -> dict[str, Any] | None:
        """The object's metadata now, and nothing else of it: it may be a Secret. None when it is gone."""
        identity = ResourceId.parse(operation.id)
        async with self._reach.using(operation.cluster) as reached:
            found = (await reached.types()).get(operation.type)
            if found is None:
                return None
            try:
                raw = await reached.client.get(
                    found, identity.namespace or None, identity.name, metadata=True
                )
            except NotFound:
                return None
        return msgspec.json.decode(raw, type=dict[str, Any])


def _applied(operation: Operation) -> Applied:
    return Applied(
        cluster=operation.cluster,
        uid=operation.uid,
        rv=operation.rv,
        actor=operation.actor,
        reason=operation.reason,
        change_log=operation.change_log,
        operation_id=operation.key,
        at=operation.at.timestamp(),
        action=operation.action,
        probable=operation.state == "probable",
    )
