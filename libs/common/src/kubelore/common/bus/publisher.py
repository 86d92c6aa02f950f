"""Publishing the changes of one cluster: in order, batched, and fenced.

One batch is in flight at a time, so that order needs no more than the stream's
own. Taking over a cluster stores a *fence* (the last message on
`kubelore.v1.fence.<cluster>`), and each batch is accepted only while the newest
fence is its publisher's own: the server refuses whoever was replaced,
however late it wakes. A batch whose answer got lost is sent again under the
same id, which the server drops when it has it.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from kubelore.common.bus import wire
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.leases import Lease, LeaseLost
from kubelore.common.bus.pace import Pace
from kubelore.common.bus.streams import CHANGES
from kubelore.common.contracts.changes import Record, change_subject
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.errors import DeadlineExceeded, KubeloreError, TooLarge, Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

BATCH_RECORDS = 100
BATCH_BYTES = 256 * 1024
APART_S = 0.01
"""From one batch of a cluster to its next, at least."""
TURN_S = 0.004
RECORD_S = 0.001
APART_MOST_S = 0.01
LONGEST_TURN_S = 0.2
"""From one batch of a process to its next, whatever its cluster: more for each record of the batch but the first,
up to a most. And how long the batches of many clusters wait."""
QUEUE_RECORDS = 2_000
QUEUE_BYTES = 8 * 1024 * 1024

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_ACK_DEADLINE_S = 5.0
_RETRY_FIRST_S = 0.05
_RETRY_LAST_S = 1.0
_HEADROOM = 8 * 1024
"""Bytes of a message kept free for subject, headers and the batch's own frame."""

State = Literal["live", "throttled", "disconnected", "lost"]


@dataclass(frozen=True, slots=True)
class _Queued:
    record: Record
    data: bytes


class _Fence(msgspec.Struct):
    epoch: int
    replica: str


class ChangePublisher:
    """Publishes one cluster's records for as long as its lease is held.

    `fence()` first; then `put`. `on_acked` is called with the records of each
    batch once JetStream has them on disk, in order: only then may a checkpoint
    move past them.
    """

    def __init__(
        self, bus: Bus, cluster: str, lease: Lease, *, on_acked: Callable[[list[Record]], None] | None = None
    ) -> None:
        self.cluster = check_cluster_name(cluster)
        self.state: State = "live"
        """`throttled` while CHANGES is full, `disconnected` while the bus is away; both retried for ever."""
        self.published = 0
        """Records acknowledged so far."""
        self._bus = bus
        self._lease = lease
        self._on_acked = on_acked
        self._subject = change_subject(cluster)
        self._fence_subject = f"kubelore.v1.fence.{cluster}"
        self._fence = 0
        self._number = 0
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._unacked = 0
        self._own_pace = Pace(APART_S, APART_S)
        self._pace = bus.pace("changes", TURN_S, LONGEST_TURN_S)
        self._arrived = asyncio.Event()
        self._moved = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the lease it publishes under."""
        return self._lease.epoch

    async def fence(self) -> None:
        """Take the cluster over: from now on no earlier holder's batch is accepted.

        Load the checkpoints after this, not before. Raises LeaseLost when a later
        holder has fenced already.
        """
        while True:
            self._lease.check()
            newest, sequence = await self._newest_fence()
            if newest > self._lease.epoch:
                raise self._lose("a later holder publishes this cluster")
            body = msgspec.json.encode(_Fence(self._lease.epoch, self._bus.replica))
            headers = {_EXPECTED: str(sequence), "Nats-Rollup": "sub"}
            try:
                self._fence = await self._bus.store(self._fence_subject, body, headers)
                break
            except wire.JetStreamRefused as error:
                if error.code in wire.STREAM_FULL:
                    self.state = "throttled"
                elif error.code not in wire.WRONG_LAST_SEQUENCE:
                    raise
                await asyncio.sleep(_RETRY_FIRST_S)
        self.state = "live"
        self._sending = asyncio.create_task(self._send_all(), name=f"publish {self.cluster}")

    async def put(self, record: Record) -> None:
        """Queue a record; waits while the queue is full. Raises LeaseLost, or TooLarge for a huge one."""
        data = msgspec.msgpack.encode(record)
        if len(data) > self._bus.max_payload - _HEADROOM:
            raise TooLarge(
                f"a record of {len(data)} bytes fits no message", remedy="Store the object as a blob."
            )
        while len(self._queue) >= QUEUE_RECORDS or self._queued_bytes >= QUEUE_BYTES:
            self._check_live()
            await self._moved.wait()
        self._check_live()
        self._queue.append(_Queued(record, data))
        self._queued_bytes += len(data)
        self._arrived.set()

    async def flush(self) -> None:
        """Wait until everything put so far is acknowledged; raises LeaseLost. Set your own deadline."""
        while self._queue or self._unacked:
            self._check_live()
            await self._moved.wait()

    async def close(self, deadline_s: float = 5.0) -> None:
        """Publish what is queued within `deadline_s`, then stop. The lease stays the caller's to release."""
        with suppress(TimeoutError, KubeloreError):
            async with asyncio.timeout(deadline_s):
                await self.flush()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        self._stop_waiters()

    def _check_live(self) -> None:
        if self.state == "lost" or self._sending is None or self._sending.done():
            raise LeaseLost(f"{self.cluster}: publishing has stopped")

    def _lose(self, why: str) -> LeaseLost:
        self.state = "lost"
        return LeaseLost(f"{self.cluster}: {why}")

    async def _newest_fence(self) -> tuple[int, int]:
        try:
            reply = await self._bus.jetstream(
                f"STREAM.MSG.GET.{CHANGES}", {"last_by_subj": self._fence_subject}
            )
        except wire.JetStreamRefused as error:
            if error.code != wire.MESSAGE_NOT_FOUND:
                raise
            return 0, 0
        message = reply["message"]
        fence = msgspec.json.decode(base64.b64decode(message["data"]), type=_Fence)
        return fence.epoch, message["seq"]

    async def _send_all(self) -> None:
        try:
            while True:
                batch = await self._next_batch()
                self._number += 1
                await self._store(batch)
                self.published += len(batch)
                if self._on_acked is not None:
                    self._on_acked([queued.record for queued in batch])
                self._unacked = 0
                self._tell()
        except LeaseLost as error:
            log.warning("publishing stopped", cluster=self.cluster, detail=error.detail)
        finally:
            self._stop_waiters()

    def _stop_waiters(self) -> None:
        self.state = "lost"
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits for room, or for the end."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def _next_batch(self) -> list[_Queued]:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        if len(self._queue) < BATCH_RECORDS and self._queued_bytes < BATCH_BYTES:
            await self._own_pace.turn()
            await self._pace.turn()
            self._pace.stretch(min((len(self._queue) - 1) * RECORD_S, APART_MOST_S - TURN_S))
        batch: list[_Queued] = []
        size = 0
        while self._queue and len(batch) < BATCH_RECORDS:
            if batch and size + len(self._queue[0].data) > BATCH_BYTES:
                break
            queued = self._queue.popleft()
            size += len(queued.data)
            batch.append(queued)
        self._queued_bytes -= size
        self._unacked = len(batch)
        self._tell()
        return batch

    async def _store(self, batch: list[_Queued]) -> None:
        """Store one batch, again and again until it is acknowledged or the lease is lost."""
        payload = _array_head(len(batch)) + b"".join(queued.data for queued in batch)
        headers = {
            "Nats-Msg-Id": f"{self.cluster}.{self._fence}.{self._number}",
            _EXPECTED: str(self._fence),
            f"{_EXPECTED}-Subject": self._fence_subject,
        }
        pause = _RETRY_FIRST_S
        while True:
            if not self._lease.held:
                raise self._lose("the lease is lost")
            try:
                await self._bus.store(self._subject, payload, headers, deadline_s=_ACK_DEADLINE_S)
            except wire.JetStreamRefused as error:
                if error.code in wire.WRONG_LAST_SEQUENCE:
                    raise self._lose("a later holder publishes this cluster") from error
                self._note("throttled", error)
            except (Unavailable, DeadlineExceeded) as error:
                self._note("disconnected", error)
            else:
                self.state = "live"
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST_S)

    def _note(self, state: State, error: KubeloreError) -> None:
        if self.state != state:
            log.warning("publishing waits", cluster=self.cluster, state=state, detail=error.detail)
        self.state = state


def _array_head(count: int) -> bytes:
    """The msgpack head of an array (at most 65,535), so that records are encoded once, when they are put."""
    return b"\xdc" + count.to_bytes(2, "big")
