"""Leases: what must be done by one replica is done by the one that holds the key.

A lease is a key with a time to live in the bucket LEASES. The holder renews it
by compare-and-set; when it dies, the server removes the key and whoever waits
may take it. The holder counts from the moment it *sent* its last good renewal,
by its own monotonic clock, and takes the lease for lost a second before the
server could have given it away: so there are never two that think they hold
it, even after one was stopped for an hour. What still goes out then (a batch
already on its way) is refused by the fence, see `publisher`.

The revision of the acquiring write is the lease's epoch. It rises with every
holder, and serves as a fencing token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Container
from contextlib import aclosing, suppress
from dataclasses import dataclass
from time import monotonic

import msgspec

from kubelore.common.bus.bucket import Bucket
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.watch import watch_bucket
from kubelore.common.errors import Conflict, KubeloreError, Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

DEFAULT_TTL_S = 12
_MARGIN_S = 1.0
"""How much earlier than the server the holder gives up: more than a round trip and the server's rounding."""


class LeaseLost(Unavailable):
    """This replica no longer holds what it was working on; stop, and leave it to the new holder."""

    reason = "LeaseLost"


_GIVEN = -1


class Holding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a lease: who holds it, and since which epoch (0 while it is acquired, -1 while it is handed over).

    `answering` is the replica that gave it and answers for it until the holder can.
    """

    replica: str
    epoch: int = 0
    answering: str = ""

    @property
    def asked(self) -> str:
        """The replica to ask about what is leased."""
        return self.answering or self.replica

    def given_to(self, replica: str) -> bool:
        """Whether it was handed over to a replica that has not taken it yet."""
        return self.epoch == _GIVEN and self.replica == replica


@dataclass(frozen=True, slots=True)
class _Renewed:
    revision: int
    until: float


class Lease:
    """A lease held by this process. It renews itself until `release`, or until it is lost."""

    def __init__(self, bucket: Bucket, key: str, holding: Holding, ttl_s: int, renewed: _Renewed) -> None:
        self.key = key
        self.epoch = renewed.revision
        """The fencing token: rises with every holder of the key."""
        self.lost = asyncio.Event()
        self._bucket = bucket
        self._replica = holding.replica
        self.answering = holding.answering
        """The replica that gave this lease and still answers for it; empty once this one does."""
        self._due = asyncio.Event()
        self._ttl_s = ttl_s
        self._renewed = renewed
        self._released = False
        self._renewing = asyncio.create_task(self._keep(), name=f"lease {key}")

    @property
    def held(self) -> bool:
        """Whether it is held at this very moment, by this process's own clock."""
        return not self._released and self.held_at(monotonic())

    def held_at(self, moment: float) -> bool:
        """Whether the server still keeps it for this process at a moment of the monotonic clock."""
        return not self.lost.is_set() and moment < self._renewed.until

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held at this moment."""
        if not self.held:
            raise LeaseLost(f"lease {self.key} is lost")

    async def release(self) -> None:
        """Give it back, so that another may take it at once; never raises for a bus that is away."""
        if not await self._stop_renewing():
            return
        if not self.lost.is_set():
            with suppress(KubeloreError):
                await self._bucket.delete(self.key, expected=self._renewed.revision)
        self.lost.set()

    async def hand_over(self, replica: str) -> None:
        """Give it to another replica, which takes it when it sees that; until then, and until it says so, this one answers.

        Whether it was given or not, this process holds it no longer. One that is
        not taken ends as that of a dead holder does.
        """
        if not await self._stop_renewing():
            return
        if self.held_at(monotonic()):
            value = msgspec.json.encode(Holding(replica, _GIVEN, self._replica))
            with suppress(KubeloreError):
                await self._bucket.put(
                    self.key, value, expected=self._renewed.revision, ttl_s=self._ttl_s, deadline_s=2.0
                )
        self.lost.set()

    def answer(self) -> None:
        """From now on the holder itself is to be asked; those who follow the lease see it within a moment."""
        if self.answering:
            self.answering = ""
            self._due.set()

    async def _stop_renewing(self) -> bool:
        """Renew no more; False when that has happened before."""
        if self._released:
            return False
        self._released = True
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        return True

    async def _keep(self) -> None:
        pause = self._ttl_s / 4
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(pause, self._renewed.until - monotonic()))):
                    await self._due.wait()
            self._due.clear()
            if monotonic() >= self._renewed.until:
                break
            sent = monotonic()
            value = msgspec.json.encode(Holding(self._replica, self.epoch, self.answering))
            try:
                revision = await self._bucket.put(
                    self.key,
                    value,
                    expected=self._renewed.revision,
                    ttl_s=self._ttl_s,
                    deadline_s=max(0.05, min(2.0, self._renewed.until - sent)),
                )
            except Conflict:
                if not await self._was_ours(sent):
                    break
            except KubeloreError as error:
                pause = 0.5
                log.info("lease not renewed", lease=self.key, error=error.reason)
            else:
                self._renewed = _Renewed(revision, sent + self._ttl_s - _MARGIN_S)
                pause = self._ttl_s / 4
        log.warning("lease lost", lease=self.key, epoch=self.epoch)
        self.lost.set()

    async def _was_ours(self, sent: float) -> bool:
        """After a conflict: whether the newest write is an earlier renewal of ours whose answer got lost."""
        try:
            entry = await self._bucket.get(self.key)
        except KubeloreError:
            return True
        held = _holding(entry.value)
        if held is None or (held.replica, held.epoch) != (self._replica, self.epoch):
            return False
        # Its time is unknown, so it does not prolong; the next renewal does.
        self._renewed = _Renewed(entry.revision, self._renewed.until)
        return sent < self._renewed.until


class Leases:
    """Takes leases for this process, and tells who holds what."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, "LEASES")

    async def acquire(
        self, key: str, ttl_s: int = DEFAULT_TTL_S, *, absent: Container[str] = ()
    ) -> Lease | None:
        """Take a lease, or None when another holds it.

        `ttl_s` (whole seconds, at least 3) after its holder died a lease is free.
        One that was handed over to this replica is taken, and so is one held by a
        replica that is named as `absent`: only for what is fenced, since a holder
        that is cut off from the bus believes in it until it meets the fence.
        Raises Unavailable when the bus is away.
        """
        if ttl_s < 3:
            raise ValueError("a lease lasts at least 3 s")
        entry = await self._bucket.get(key)
        held = _holding(entry.value)
        if held is None and entry.value is not None:
            log.warning("lease is taken over what cannot be read", lease=key)
        given = held is not None and held.given_to(self._bus.replica)
        if held is not None and not given and held.replica not in absent:
            return None
        sent = monotonic()
        taken = Holding(self._bus.replica, answering=held.answering if held is not None and given else "")
        value = msgspec.json.encode(taken)
        try:
            revision = await self._bucket.put(key, value, expected=entry.revision, ttl_s=ttl_s)
        except Conflict:
            return None
        renewed = _Renewed(revision, sent + ttl_s - _MARGIN_S)
        return Lease(self._bucket, key, taken, ttl_s, renewed)

    async def wait(self, key: str, ttl_s: int = DEFAULT_TTL_S, *, retry_s: float = 1.0) -> Lease:
        """Take a lease as soon as it is free; cancel to stop waiting."""
        while True:
            with suppress(KubeloreError):
                lease = await self.acquire(key, ttl_s)
                if lease is not None:
                    return lease
            await asyncio.sleep(retry_s)

    async def holders(self, prefix: str) -> dict[str, str]:
        """The replica to ask about each key under `prefix` (`observer.`) now."""
        async with aclosing(self.watch_holders(prefix)) as changes:
            return await anext(changes)

    async def watch_holders(self, prefix: str) -> AsyncGenerator[dict[str, str]]:
        """The replicas to ask under `prefix`, whole, at once and after every change; for ever."""
        async with aclosing(self.watch_holdings(prefix)) as changes:
            async for holdings in changes:
                yield {key: holding.asked for key, holding in holdings.items()}

    async def watch_holdings(self, prefix: str) -> AsyncGenerator[dict[str, Holding]]:
        """Who holds what under `prefix`, whole, at once and after every change; for ever."""
        pattern = prefix.rstrip(".")
        pattern = f"{pattern}.>" if pattern else ">"
        async with aclosing(watch_bucket(self._bus, self._bucket, pattern)) as changes:
            async for values in changes:
                found = {key: _holding(value) for key, value in values.items()}
                yield {key: holding for key, holding in found.items() if holding is not None}


def _holding(value: bytes | None) -> Holding | None:
    """What a key says; None too for what is no lease: it must not end everybody who follows leases."""
    try:
        return None if value is None else msgspec.json.decode(value, type=Holding)
    except (msgspec.MsgspecError, RecursionError):
        return None
