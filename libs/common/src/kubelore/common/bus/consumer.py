"""Consuming CHANGES as a service: the partitions shared among its replicas, each read by one, in order.

Every replica holds a lease that says it is there, and takes its share of the
partitions (16 by the number of replicas, rounded up). A replica that joins gets
some as soon as the others see it; one that dies loses its own within 15 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import ceil

from kubelore.common.bus.connection import Bus
from kubelore.common.bus.leases import Lease, LeaseLost, Leases
from kubelore.common.bus.parked import Parked, forget_parked, get_parked, list_parked
from kubelore.common.bus.partition import Handler, Partition, Placeholder
from kubelore.common.bus.streams import create_durables
from kubelore.common.contracts.changes import PARTITIONS
from kubelore.common.errors import Invalid, KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

_BALANCE_S = 2.0
_ATTEMPTS = 5


class ChangeConsumer:
    """One replica's part in consuming all changes for `service`.

    `handler` writes a list of records, in stream order within a partition, and
    returns when they are written; only then are they acknowledged. It sees some
    records twice and must be idempotent by (cluster, incarnation, uid, rv).
    Errors that only say that something is away (Unavailable, DeadlineExceeded,
    TooManyRequests) are waited out. A record it fails on five times for another
    reason is parked, `placeholder` is called to record the gap, and the rest goes on.
    """

    def __init__(
        self,
        bus: Bus,
        service: str,
        handler: Handler,
        *,
        placeholder: Placeholder | None = None,
        attempts: int = _ATTEMPTS,
    ) -> None:
        self._bus = bus
        self._service = service
        self._handler = handler
        self._placeholder = placeholder
        self._attempts = attempts
        self._leases = Leases(bus)
        self._partitions: dict[int, tuple[Partition, asyncio.Task[None]]] = {}

    @property
    def partitions(self) -> list[int]:
        """The partitions this replica reads now."""
        return sorted(self._partitions)

    @property
    def waiting(self) -> bool:
        """Whether a partition waits for something the handler needs."""
        return any(partition.waiting for partition, _ in self._partitions.values())

    async def run(self) -> None:
        """Consume until cancelled; gives its partitions back at the end."""
        presence: Lease | None = None
        durables = False
        try:
            while True:
                try:
                    if not durables:
                        await create_durables(self._bus, self._service)
                        durables = True
                    if presence is None or not presence.held:
                        presence = await self._leases.acquire(self._presence_key(self._bus.replica))
                    await self._balance()
                except KubeloreError as error:
                    log.info("partitions not balanced", service=self._service, error=error.reason)
                await asyncio.sleep(_BALANCE_S)
        finally:
            await asyncio.gather(*(self._give_up(number) for number in self.partitions))
            if presence is not None:
                await presence.release()

    async def list_parked(self, *, after: int = 0, limit: int = 100) -> list[Parked]:
        """What this service has parked, oldest first."""
        return await list_parked(self._bus, self._service, after=after, limit=limit)

    async def replay_parked(
        self, parked_id: int, take: Callable[[Parked], Awaitable[None]] | None = None
    ) -> None:
        """Hand a parked record to the handler again (or to `take`), and forget it when that succeeds.

        Raises NotFound, Invalid for one that never decoded, and whatever the handler raises.
        """
        parked = await get_parked(self._bus, parked_id)
        record = parked.record
        if record is None or parked.service != self._service:
            raise Invalid(f"{parked_id} cannot be replayed by {self._service}")
        await (self._handler([record]) if take is None else take(parked))
        await forget_parked(self._bus, parked_id)

    def _presence_key(self, replica: str) -> str:
        return f"consumers.{self._service}.{replica}"

    def _lease_key(self, partition: int) -> str:
        return f"partition.{self._service}.p{partition:02d}"

    async def _balance(self) -> None:
        for number, (_, task) in list(self._partitions.items()):
            if task.done():
                await self._give_up(number)
        members = await self._leases.holders(f"consumers.{self._service}.")
        share = ceil(PARTITIONS / max(1, len(members)))
        for number in self.partitions[share:]:
            await self._give_up(number)
        if len(self._partitions) == share:
            return
        holders = await self._leases.holders(f"partition.{self._service}.")
        for number in range(PARTITIONS):
            if len(self._partitions) >= share:
                return
            if number not in self._partitions and self._lease_key(number) not in holders:
                await self._take(number)

    async def _take(self, number: int) -> None:
        lease = await self._leases.acquire(self._lease_key(number))
        if lease is None:
            return
        partition = Partition(
            self._bus, self._service, number, lease, self._handler, self._placeholder, self._attempts
        )
        task = asyncio.create_task(self._read(partition), name=f"{self._service} p{number:02d}")
        self._partitions[number] = partition, task

    async def _read(self, partition: Partition) -> None:
        try:
            await partition.run()
        except LeaseLost:
            log.warning("partition lost", service=self._service, partition=partition.number)
        except Exception as error:
            log.error("partition failed", service=self._service, partition=partition.number, exc_info=error)

    async def _give_up(self, number: int) -> None:
        partition, task = self._partitions.pop(number)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(task, return_exceptions=True)
        await partition.lease.release()
