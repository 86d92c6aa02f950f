"""A message that never arrives, out of a stream of them: it is noticed, and read again before anything newer is done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.bus import Bus, ChangeConsumer, ChangePublisher, Feed, Leases, connect, create_durables
from kubelore.common.contracts.changes import Change, Record
from kubelore.common.contracts.flows import STORED
from kubelore.common.settings import CommonSettings
from kubelore.lab.wires import Wire
from kubelore.stack.servers import NatsServer

CLUSTER = "prod"
BATCHES = 12
LAST = 2 * BATCHES + 2
"""The sequence of the last change that a follower is told of here; the first message of the stream is a fence."""


class LossyWire(Wire):
    """A way to NATS that swallows deliveries to the client, and nothing else.

    `loses` is asked for each message that JetStream delivers, by its stream and
    its sequence there, and for each that it says to have stored in CHANGES, as
    one of `STORED`.
    """

    def __init__(self, upstream: int, loses: Callable[[str, int], bool]) -> None:
        super().__init__(upstream)
        self._loses = loses
        self.lost = 0
        self.mute = False
        """Swallow every message on its way to the client. The connection goes on all the same."""

    async def answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry what NATS says, but for what is lost."""
        while line := await source.readline():
            words = line.decode().split()
            if words[0] not in ("MSG", "HMSG"):
                target.write(line)
                continue
            payload = await source.readexactly(int(words[-1]) + 2)
            if self.mute:
                continue
            place = _place(words, payload)
            if place is not None and self._loses(*place):
                self.lost += 1
                continue
            target.write(line + payload)
            await target.drain()


def _place(words: list[str], payload: bytes) -> tuple[str, int] | None:
    """Which message of which stream it is, by its acknowledgement subject or by the headers of a stored one.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.…`
    """
    if words[1].startswith(f"{STORED}."):
        found = re.search(rb"Nats-Sequence: (\d+)", payload)
        return (STORED, int(found[1])) if found else None
    ack = next((word.split(".") for word in words if word.startswith("$JS.ACK.")), None)
    return (ack[2], int(ack[5])) if ack else None


def once(stream: str, sequence: int) -> Callable[[str, int], bool]:
    """Loses the first delivery of one message of a stream."""
    done = False

    def loses(of: str, number: int) -> bool:
        nonlocal done
        if done or (of, number) != (stream, sequence):
            return False
        done = True
        return True

    return loses


@pytest_asyncio.fixture(loop_scope="session")
async def publish(bus: Bus) -> AsyncIterator[Callable]:
    """Stores numbered changes, each in a message of its own."""
    lease = await Leases(bus).acquire(f"observer.{CLUSTER}")
    assert lease is not None
    publisher = ChangePublisher(bus, CLUSTER, lease)
    await publisher.fence()

    async def numbered(numbers: range) -> None:
        for number in numbers:
            await publisher.put(
                Change(
                    cluster=CLUSTER,
                    incarnation=1,
                    type="pods",
                    uid=f"u{number}",
                    id=f"{CLUSTER}:pods:default:p{number}",
                    kind="created",
                    rv=str(number),
                    at=0.0,
                )
            )
            async with asyncio.timeout(10):
                await publisher.flush()

    yield numbered
    await publisher.close(0.1)
    await lease.release()


async def through(wire: LossyWire, server: NatsServer) -> Bus:
    settings = CommonSettings(
        nats_url=f"nats://127.0.0.1:{wire.port}",
        nats_user=server.user,
        nats_password=SecretStr(server.password),
    )
    return await connect(settings, name="reader")


@pytest.mark.parametrize(
    "position", [2, 6, BATCHES, BATCHES + 1], ids=["early", "between", "second to last", "the last one"]
)
async def test_a_change_that_got_lost_between_server_and_consumer_is_consumed_in_its_place(
    bus: Bus, bus_server: NatsServer, publish, eventually, position: int
) -> None:
    """The durable acknowledges all up to a message, so that going on with the next would drop it for good."""
    await create_durables(bus, "writer")
    await publish(range(BATCHES))
    seen: list[int] = []

    async def write(records: list[Record]) -> None:
        for record in records:
            assert isinstance(record, Change)
            seen.append(int(record.rv))

    # The fence is the first message of the stream.
    async with LossyWire(bus_server.port, once("CHANGES", position)) as wire:
        reader = await through(wire, bus_server)
        running = asyncio.create_task(ChangeConsumer(reader, "writer", write).run())
        try:
            await eventually(lambda: BATCHES - 1 in seen, 20)
            await publish(range(BATCHES, BATCHES + 3))
            await eventually(lambda: BATCHES + 2 in seen, 20)
            assert wire.lost == 1
            assert list(dict.fromkeys(seen)) == list(range(BATCHES + 3))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await reader.close()


@pytest.mark.parametrize(
    ("lost", "behind"),
    [(once("FEED", BATCHES + 5), True), (once(STORED, BATCHES + 5), False), (once(STORED, LAST), False)],
    ids=["catching up", "live", "the last one"],
)
async def test_a_change_that_got_lost_on_its_way_to_a_live_stream_is_told_in_its_place(
    bus: Bus, bus_server: NatsServer, publish, eventually, lost: Callable[[str, int], bool], behind: bool
) -> None:
    await publish(range(BATCHES))
    async with LossyWire(bus_server.port, lost) as wire:
        reader = await through(wire, bus_server)
        feed, seen = Feed(reader), list[str]()
        position = await feed.position()

        async def follow() -> None:
            async with aclosing(feed.follow(position)) as following:
                async for _, record in following:
                    seen.append(getattr(record, "rv", "reset"))

        first = BATCHES + (BATCHES if behind else 1)
        await publish(range(BATCHES, first))
        following = asyncio.create_task(follow())
        try:
            await eventually(lambda: len(seen) == first - BATCHES, 20)
            await publish(range(first, 2 * BATCHES + 1))
            await eventually(lambda: len(seen) == BATCHES + 1, 20)
            assert wire.lost == 1
            assert seen == [str(number) for number in range(BATCHES, 2 * BATCHES + 1)]
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await reader.close()


async def test_a_lease_that_got_lost_on_its_way_to_a_watcher_is_seen_all_the_same(
    bus: Bus, bus_server: NatsServer, eventually
) -> None:
    async with LossyWire(bus_server.port, once("KV_LEASES", 2)) as wire:
        reader = await through(wire, bus_server)
        holders: dict[str, str] = {}

        async def follow() -> None:
            async with aclosing(Leases(reader).watch_holders("observer.")) as changes:
                async for now in changes:
                    holders.clear()
                    holders.update(now)

        following = asyncio.create_task(follow())
        try:
            leases = []
            for number in range(4):
                lease = await Leases(bus).acquire(f"observer.c{number}", ttl_s=3600)
                assert lease is not None
                leases.append(lease)
            await eventually(lambda: len(holders) == 4, 20)
            assert wire.lost == 1
            for lease in leases:
                await lease.release()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await reader.close()


async def test_a_watcher_that_heard_nothing_for_longer_than_a_mark_lasts_sees_that_a_lease_has_ended(
    bus: Bus, bus_server: NatsServer, eventually
) -> None:
    """It goes on asking meanwhile, which must not count as having heard."""
    lease = await Leases(bus).acquire("observer.prod", ttl_s=3600)
    assert lease is not None
    async with LossyWire(bus_server.port, lambda _stream, _sequence: False) as wire:
        reader = await through(wire, bus_server)
        try:
            async with aclosing(Leases(reader).watch_holders("observer.")) as changes:
                assert "observer.prod" in await anext(changes)
                following = asyncio.ensure_future(anext(changes))
                wire.mute = True
                await lease.release()

                async def forgotten() -> bool:
                    return (await bus.jetstream("STREAM.INFO.KV_LEASES"))["state"]["messages"] == 0

                await eventually(forgotten, 30)
                wire.mute = False
                async with asyncio.timeout(20):
                    assert await following == {}
        finally:
            await reader.close()
