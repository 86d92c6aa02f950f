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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kubelore.common.contracts.changes import Applied
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import DEADLINE_S
from kubelore.common.errors import KubeloreError, NotFound, UpstreamError
from kubelore.common.reach import Reach
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.fleet import Fleet
from kubelore.resource_ops.observer import ClusterObserver
from kubelore.resource_ops.repository import MAX_CLUSTERS, Due, Operation, OperationRepository
from kubelore.resource_ops.write_outcomes import Evidence, evidence

log = get_logger(__name__)

POLL_S = 1.0
BATCH = 200
PUBLISH_S = 5.0
RESOLVE_S = 15.0
AWAY_S = 10.0
"""How long a cluster is left alone whose records could not be published, or that did not answer."""
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
        self._unpublished: dict[str, float] = {}
        self._unanswered: dict[str, float] = {}

    def hurry(self) -> None:
        """There may be something to publish: a write was carried out here."""
        self._wake.set()

    async def run(self) -> None:
        """Publish what is due once a second, and when told to hurry, and resolve what is lost; until cancelled."""
        await self._until_done(self._repository.prepare)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_forever())
            # By itself: a cluster that does not answer holds up nobody's records.
            group.create_task(self._resolve_forever())

    async def _until_done(self, prepare: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await prepare()
            except KubeloreError as error:
                log.warning("operations not prepared", reason=error.reason, detail=error.detail)
                await asyncio.sleep(POLL_S)

    async def _publish_forever(self) -> None:
        while True:
            self._wake.clear()
            full = False
            try:
                full = await self._publish_due()
            except KubeloreError as error:
                log.warning("operations not read", reason=error.reason, detail=error.detail)
            if not full:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()

    async def _resolve_forever(self) -> None:
        while True:
            try:
                await self._resolve_due()
            except KubeloreError as error:
                log.warning("operations not read", reason=error.reason, detail=error.detail)
            await asyncio.sleep(POLL_S)

    async def _publish_due(self) -> bool:
        """Publish what is due now; whether there was more than fits a round."""
        observers = {one.cluster: one for one in self._fleet.observers()[:MAX_CLUSTERS]}
        ready = await self._due(observers, "publish", self._unpublished)
        done = await asyncio.gather(*(self._publish(observers[name], found) for name, found in ready.items()))
        self._unpublished |= _away(name for name, ok in zip(ready, done, strict=True) if not ok)
        return sum(map(len, ready.values())) == BATCH and all(done)

    async def _resolve_due(self) -> None:
        """Find out what became of writes that nobody saw the end of, cluster by cluster at once."""
        names = [one.cluster for one in self._fleet.observers()[:MAX_CLUSTERS]]
        lost = await self._due(names, "resolve", self._unanswered)
        answered = await asyncio.gather(*(self._resolve_all(found) for found in lost.values()))
        self._unanswered |= _away(name for name, ok in zip(lost, answered, strict=True) if not ok)

    async def _due(
        self, clusters: Iterable[str], what: Due, away: dict[str, float]
    ) -> dict[str, list[Operation]]:
        """The oldest of what is due by cluster, without those that failed a moment ago: theirs would crowd out the rest."""
        now = asyncio.get_running_loop().time()
        for name in [name for name, until in away.items() if until <= now]:
            del away[name]
        names = [name for name in clusters if name not in away]
        found: dict[str, list[Operation]] = defaultdict(list)
        if names:
            for operation in await self._repository.due(names, what, BATCH):
                found[operation.cluster].append(operation)
        return found

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

    async def _resolve_all(self, operations: Sequence[Operation]) -> bool:
        """Resolve some of one cluster's writes in order; False when the cluster did not answer."""
        for operation in operations:
            if self._ripe(operation) and not await self._resolve(operation):
                return False
        return True

    async def _resolve(self, operation: Operation) -> bool:
        """Look for one write in its cluster; whether the cluster answered."""
        try:
            async with asyncio.timeout(RESOLVE_S):
                live = await self._metadata(operation)
        except (KubeloreError, TimeoutError) as error:
            log.info("write not resolved yet", operation=operation.key, error=type(error).__name__)
            return False
        found = judged(operation, live)
        if found.state == "probable" and await self._repository.others_after(operation):
            # What the field manager wrote last was the other's, so that it says nothing of this one.
            found = Evidence("unknown")
        certain = found.state == "probable" and (found.rv or operation.action == "delete")
        resolved = await self._repository.resolve(
            operation,
            found.state,
            due="publish" if certain else "",
            uid=operation.uid or found.uid,
            rv=found.rv,
        )
        if resolved:
            log.warning("lost write resolved", operation=operation.key, state=found.state)
            self.hurry()
        return True

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
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.MsgspecError:
            # Not chained: the decoder's message may quote what it could not decode.
            raise UpstreamError("the API server answered with no object that can be read") from None


def judged(operation: Operation, live: dict[str, Any] | None) -> Evidence:
    """What the object's metadata say of a write; nothing where they are none that an API server writes."""
    try:
        return evidence(operation.action, operation.uid, operation.at, live)
    except (ValueError, TypeError, AttributeError) as error:
        log.warning("metadata cannot be read", operation=operation.key, error=type(error).__name__)
        return Evidence("unknown")


def _away(names: Iterable[str]) -> dict[str, float]:
    until = asyncio.get_running_loop().time() + AWAY_S
    return dict.fromkeys(names, until)


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
