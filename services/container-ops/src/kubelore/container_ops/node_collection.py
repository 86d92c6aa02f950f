"""The logs of one node's containers, read as they are written and stored in batches, under the node's lease.

Nothing is lost and nothing stored twice, whatever dies: a batch carries the
positions behind its lines, and the store takes each sequence of an owner once.
What waits to be stored is bounded; while it cannot be, nothing more is read,
and what rotates away meanwhile is a gap.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing, suppress

from kubelore.common.bus import Lease
from kubelore.common.bus.leases import LeaseLost
from kubelore.common.errors import Conflict, DeadlineExceeded, Forbidden, KubeloreError, NotFound, Unavailable
from kubelore.common.reach import CredentialsChanged, Reach, Reached
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.alerting import Alerting
from kubelore.container_ops.following import Following, LogGap, LogNote, follow_container
from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.log_rules import PolicyRule
from kubelore.container_ops.owner_pending import OwnerPending, cursor_key, furthest
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import StreamGap, StreamKey
from kubelore.container_ops.wanted import ContainerKey, Node, Wanted

log = get_logger(__name__)

BATCH_BYTES = 4 * 1024 * 1024
HELD_BYTES = 24 * 1024 * 1024
"""What may wait to be stored; more is not read."""
TICK_S = 0.25
GRACE_S = 20.0
"""For how long the rest is read of a container whose pod is gone."""
ABSENT_S = 300.0
"""After so long a container that nobody wants needs no position."""
RETRY_S = 5.0
_SLOWEST_S = 5.0


class NodeCollection:
    """Collects from one node; `want` says what, `run` does it until the lease is lost or it is cancelled."""

    def __init__(
        self, node: Node, lease: Lease, store: SegmentStore, reach: Reach, alerting: Alerting, flush_s: float
    ) -> None:
        self.node = node
        self.lease = lease
        self._store = store
        self._reach = reach
        self._alerting = alerting
        self._flush_s = flush_s
        self._wanted: dict[ContainerKey, Wanted] = {}
        self._tasks: dict[ContainerKey, asyncio.Task[None]] = {}
        self._leaving: dict[ContainerKey, float] = {}
        self._finished: set[ContainerKey] = set()
        self._absent: dict[str, float] = {}
        self._owners: dict[str, OwnerPending] = {}
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ready = False

    @property
    def idle(self) -> bool:
        """Whether nothing is read here any more, nor waits to be stored."""
        return not self._tasks and not self._held

    @property
    def containers(self) -> int:
        """How many containers are followed."""
        return len(self._tasks)

    async def prepare(self, policies: list[PolicyRule]) -> None:
        """Take up where whoever held the lease before has stopped; `policies` are all that there are or were."""
        for policy in policies:
            if self.node.cluster in policy.spec.scope.clusters:
                await self._owner(policy.uid)
        self._ready = True

    def want(self, wanted: dict[ContainerKey, Wanted], policies: frozenset[str]) -> None:
        """Follow these containers, and no longer those that no policy of `policies` (uids) collects."""
        if not self._ready:
            return
        now = time.monotonic()
        for key, one in wanted.items():
            self._wanted[key] = one
            self._leaving.pop(key, None)
            if key not in self._tasks and key not in self._finished:
                self._tasks[key] = asyncio.create_task(self._collect(key), name=f"logs of {one.container.id}")
        for key in self._wanted.keys() - wanted.keys():
            policy = self._wanted[key].policy
            kept = policy is not None and policy.uid in policies
            until = self._leaving.setdefault(key, now + (GRACE_S if kept else 0.0))
            if now >= until or key not in self._tasks:
                self._leave(key, now)

    async def run(self) -> None:
        """Store what is read, until cancelled. Raises LeaseLost when somebody else collects."""
        while True:
            await asyncio.sleep(TICK_S)
            self.lease.check()
            for task in [one for one in self._tasks.values() if one.done() and not one.cancelled()]:
                task.result()
            await self._store_due(time.monotonic())
            await self._alerting.tell()
            self._forget_absent(time.monotonic())

    async def close(self) -> None:
        """Stop reading, store what was read while the lease is held, and give it back."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        with suppress(KubeloreError, TimeoutError):
            async with asyncio.timeout(_SLOWEST_S):
                for owner in self._owners.values():
                    await self._put(owner)
        await self.lease.release()

    # reading

    async def _collect(self, key: ContainerKey) -> None:
        """Follow one container to its end, over whatever gets in the way."""
        following: Following | None = None
        while True:
            try:
                async with AsyncExitStack() as stack:
                    connection = self._reach.streaming(self.node.cluster, resumes=True)
                    reached = await stack.enter_async_context(connection)
                    following = self._following(key, reached, following)
                    await stack.enter_async_context(aclosing(following))
                    async for item in following:
                        await self._take(key, following, item)
            except CredentialsChanged:
                continue
            except (Forbidden, NotFound) as error:
                log.warning(
                    "log not collected", container=str(self._wanted[key].container.id), why=error.detail
                )
            except KubeloreError as error:
                log.info("log not collected", container=str(self._wanted[key].container.id), why=error.detail)
            except Exception as error:
                # Whatever is wrong with one log must not stop those of the whole node.
                log.error("log not collected", container=str(self._wanted[key].container.id), exc_info=error)
            else:
                self._finished.add(key)
                return
            await asyncio.sleep(RETRY_S)

    def _following(self, key: ContainerKey, reached: Reached, before: Following | None) -> Following:
        wanted = self._wanted[key]
        target, (uid, name) = wanted.container.id, key
        kept = (owner.cursors.get(cursor_key(uid, name)) for owner in self._owners.values())
        cursor = furthest(one for one in kept if one is not None)
        if cursor is None and wanted.policy is None:
            return follow_container(reached, target, cursor=before and before.cursor, tail=0, uid=uid)
        return follow_container(reached, target, cursor=cursor, previous=cursor is None, uid=uid)

    async def _take(
        self, key: ContainerKey, following: Following, item: list[LogLine] | LogGap | LogNote
    ) -> None:
        wanted = self._wanted[key]
        if isinstance(item, list):
            self._alerting.hear(wanted, item)
        if wanted.policy is None or isinstance(item, LogNote):
            return
        owner = await self._owner(wanted.policy.uid)
        stream = _stream(wanted, following.cursor)
        if isinstance(item, LogGap):
            gap = StreamGap(item.after, item.before or time.time_ns(), item.why)
            owner.miss(stream, gap, time.monotonic())
            return
        self._held += owner.add(stream, item, following.cursor, time.monotonic())
        if self._held > HELD_BYTES:
            self._room.clear()
            await self._room.wait()

    async def _owner(self, policy: str) -> OwnerPending:
        owner = self._owners.get(policy)
        if owner is None:
            name = f"{policy}/{self.node.cluster}/{self.node.name}"
            resume = await self._store.resume(name)
            fresh = OwnerPending(name, policy, self.node.cluster, resume)
            owner = self._owners.setdefault(policy, fresh)
        return owner

    def _leave(self, key: ContainerKey, now: float) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        del self._wanted[key], self._leaving[key]
        self._finished.discard(key)
        self._absent[cursor_key(*key)] = now

    def _forget_absent(self, now: float) -> None:
        """Positions of containers that nobody wanted for long; a rule that comes back soon goes on from them."""
        if not self._ready:
            return
        present = {cursor_key(*key) for key in self._wanted}
        for owner in self._owners.values():
            for name in owner.cursors:
                if name not in present:
                    self._absent.setdefault(name, now)
        old = [name for name, at in self._absent.items() if now - at > ABSENT_S or name in present]
        for name in old:
            del self._absent[name]
        for owner in self._owners.values():
            owner.forget(name for name in old if name not in present)

    # storing

    async def _store_due(self, now: float) -> None:
        for owner in list(self._owners.values()):
            if owner.size >= BATCH_BYTES or (owner.since and now - owner.since >= self._flush_s):
                await self._put(owner)

    async def _put(self, owner: OwnerPending) -> None:
        """Store what an owner has read, however often it takes. Raises LeaseLost."""
        size, batch = owner.size, owner.take()
        if batch is None:
            return
        pause = 0.2
        while True:
            self.lease.check()
            try:
                await self._store.append(batch)
            except Conflict as error:
                raise LeaseLost(f"somebody else collects from {self.node.name}") from error
            except (Unavailable, DeadlineExceeded) as error:
                log.info("logs not stored yet", node=self.node.name, reason=error.reason, detail=error.detail)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _SLOWEST_S)
            else:
                break
        owner.since = owner.since if owner.size else 0.0
        self._held -= size
        if self._held <= HELD_BYTES:
            self._room.set()


def _stream(wanted: Wanted, cursor: Cursor) -> StreamKey:
    container = wanted.container
    return StreamKey(
        cluster=container.id.cluster,
        namespace=container.id.namespace,
        pod=container.id.pod,
        uid=container.pod_uid,
        container=container.id.container,
        restart=cursor.run,
        node=container.node,
        workload=container.workload,
        labels=tuple(sorted(container.labels.items())),
    )
