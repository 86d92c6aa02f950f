"""One partition of CHANGES, read in stream order by the one replica that holds its lease."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from nats.aio.msg import Msg

from kubelore.common.bus.connection import Bus
from kubelore.common.bus.leases import Lease
from kubelore.common.bus.parked import Parked, park
from kubelore.common.bus.pull import NumberedReader
from kubelore.common.bus.streams import CHANGES, partition_consumer
from kubelore.common.contracts.changes import Record
from kubelore.common.errors import DeadlineExceeded, KubeloreError, TooManyRequests, Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

Handler = Callable[[list[Record]], Awaitable[None]]
Placeholder = Callable[[Parked], Awaitable[None]]

_DECODER = msgspec.msgpack.Decoder(list[Record])
_TRANSIENT = (Unavailable, DeadlineExceeded, TooManyRequests, TimeoutError)
"""Nothing is wrong with the record: the handler is asked again for as long as it takes."""
_GROUP_BYTES = 1024 * 1024
_GROUP_MESSAGES = 16
_PAUSE_FIRST_S = 0.1
_PAUSE_LAST_S = 5.0
_HANDLER_DEADLINE_S = 30.0
_ACK_DEADLINE_S = 5.0
_POLL_S = 2.0
_TURN_S = 0.02
_LONGEST_TURN_S = 0.3
"""From one call of the handler to the next, whatever their partitions, and how long those of many partitions wait."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One record on its way to the handler, and where in the stream it stood."""

    record: Record
    sequence: int
    index: int


class PoisonedRecord(Exception):
    """The handler failed on it every time; the cause says how."""


class Partition:
    """Reads one partition until its lease is lost or it is cancelled."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        number: int,
        lease: Lease,
        handler: Handler,
        placeholder: Placeholder | None,
        attempts: int,
    ) -> None:
        self.number = number
        self.lease = lease
        self.waiting = False
        """Whether the handler is being asked again because what it needs is away."""
        self._bus = bus
        self._service = service
        self._durable = partition_consumer(service, number)
        self._handler = handler
        self._placeholder = placeholder
        self._attempts = attempts
        self._pace = bus.pace(f"handled {service}", _TURN_S, _LONGEST_TURN_S)
        self._done = 0

    async def run(self) -> None:
        """Read, hand over, acknowledge; again for ever. Raises LeaseLost."""
        while True:
            self.lease.check()
            try:
                await self._read_on()
            except (Unavailable, DeadlineExceeded) as error:
                self.lease.check()
                log.info("reading a partition again", durable=self._durable, error=error.detail)
                await asyncio.sleep(_PAUSE_FIRST_S * 5)

    async def _read_on(self) -> None:
        # What an earlier holder was given and did not acknowledge would come late, behind newer
        # messages; a reset delivers everything behind the last acknowledgement again, in order.
        await self._bus.jetstream(f"CONSUMER.RESET.{CHANGES}.{self._durable}")
        async with NumberedReader(self._bus, CHANGES, self._durable) as reader:
            while True:
                messages = await reader.read(_POLL_S)
                if messages and len(messages) < _GROUP_MESSAGES:
                    await self._pace.turn()
                    messages += reader.arrived()
                self.lease.check()
                for group in _groups(messages):
                    await self._take(group)

    async def _take(self, group: list[Msg]) -> None:
        fresh = [message for message in group if message.metadata.sequence.stream > self._done]
        taken: list[Taken] = []
        for message in fresh:
            taken += await self._decoded(message)
        if taken:
            await self._hand_over(taken)
        self.lease.check()
        # The durable acknowledges all up to a message; the answer says that the server has it on disk.
        await self._bus.ask(group[-1].reply, Msg.Ack.Ack, deadline_s=_ACK_DEADLINE_S)
        self._done = max(self._done, group[-1].metadata.sequence.stream)

    async def _decoded(self, message: Msg) -> list[Taken]:
        sequence = message.metadata.sequence.stream
        try:
            records = _DECODER.decode(message.data)
        except msgspec.MsgspecError as error:
            await self._park(message.data, sequence, 0, error)
            return []
        return [Taken(record, sequence, index) for index, record in enumerate(records)]

    async def _hand_over(self, taken: list[Taken]) -> None:
        """All at once; when that fails for good, one by one, so that only the poisoned ones are parked."""
        try:
            await self._ask(taken)
        except PoisonedRecord as poisoned:
            if len(taken) == 1:
                data = msgspec.msgpack.encode(taken[0].record)
                await self._park(data, taken[0].sequence, taken[0].index, poisoned.__cause__)
                return
            for one in taken:
                await self._hand_over([one])

    async def _ask(self, taken: list[Taken]) -> None:
        records = [one.record for one in taken]
        failures = 0
        pause = _PAUSE_FIRST_S
        while True:
            self.lease.check()
            try:
                async with asyncio.timeout(_HANDLER_DEADLINE_S):
                    await self._handler(records)
            except _TRANSIENT as error:
                self._wait_for(error)
            except Exception as error:
                failures += 1
                if failures >= self._attempts:
                    raise PoisonedRecord from error
            else:
                self.waiting = False
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_LAST_S)

    def _wait_for(self, error: Exception) -> None:
        if not self.waiting:
            log.warning("partition waits", durable=self._durable, error=type(error).__name__)
        self.waiting = True

    async def _park(self, data: bytes, sequence: int, index: int, error: BaseException | None) -> None:
        error_id = secrets.token_hex(6)
        log.error(
            "change parked", durable=self._durable, sequence=sequence, error_id=error_id, exc_info=error
        )
        shown = (
            f"{error.reason}: {error.detail}" if isinstance(error, KubeloreError) else type(error).__name__
        )
        parked = Parked(
            service=self._service,
            partition=self.number,
            sequence=sequence,
            index=index,
            reason=shown[:500],
            error_id=error_id,
            at=time.time(),
            raw=data,
        )
        parked.id = await park(self._bus, parked)
        if self._placeholder is not None:
            await self._record_placeholder(parked, self._placeholder)

    async def _record_placeholder(self, parked: Parked, placeholder: Placeholder) -> None:
        """A gap must be seen: without its placeholder the partition does not go on."""
        pause = _PAUSE_FIRST_S
        while True:
            self.lease.check()
            try:
                async with asyncio.timeout(_HANDLER_DEADLINE_S):
                    await placeholder(parked)
            except Exception as error:
                self.waiting = True
                log.error("placeholder not recorded", durable=self._durable, parked=parked.id, exc_info=error)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_LAST_S)


def _groups(messages: list[Msg]) -> list[list[Msg]]:
    """Messages in order, in groups of at most 16 and about 1 MB: one call of the handler each."""
    groups: list[list[Msg]] = []
    size = 0
    for message in messages:
        if not groups or len(groups[-1]) >= _GROUP_MESSAGES or size + len(message.data) > _GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(message)
        size += len(message.data)
    return groups
