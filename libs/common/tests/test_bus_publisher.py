"""The publisher of changes: in order, whole, fenced, and patient."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from kubelore.common.bus import (
    Bus,
    ChangePublisher,
    Lease,
    LeaseLost,
    Leases,
    create_durables,
    ensure_streams,
)
from kubelore.common.bus.streams import StreamLimits
from kubelore.common.contracts.changes import Change, Record, partition_of
from kubelore.common.errors import TooLarge, Unavailable

CLUSTER = "prod-eu"
MIB = 2**20


def change(number: int, size: int = 100) -> Change:
    return Change(
        cluster=CLUSTER,
        incarnation=1,
        type="pods",
        uid=f"u{number % 7}",
        id=f"{CLUSTER}:pods:default:p{number % 7}",
        kind="updated",
        rv=str(number),
        at=0.0,
        object=bytes(size),
    )


async def read_all(bus: Bus, service: str = "reader") -> list[Record]:
    """Everything the durable of the cluster's partition has not acknowledged, acknowledged here."""
    from kubelore.common.bus.pull import PullReader

    records: list[Record] = []
    async with PullReader(bus, "CHANGES", f"{service}-p{partition_of(CLUSTER):02d}") as reader:
        while messages := await reader.read(1.5):
            for message in messages:
                records += msgspec.msgpack.decode(message.data, type=list[Record])
                await message.ack()
    return records


def versions(records: list[Record]) -> list[int]:
    return [int(record.rv) for record in records if isinstance(record, Change)]


@pytest.fixture
async def publishing(bus: Bus):
    """A publisher that has fenced, with its lease; closed at the end."""
    opened: list[tuple[ChangePublisher, Lease]] = []

    async def publish(on: Bus | None = None, acked: Callable[[list[Record]], None] | None = None):
        lease = await Leases(on or bus).wait(f"observer.{CLUSTER}", retry_s=0.1)
        publisher = ChangePublisher(on or bus, CLUSTER, lease, on_acked=acked)
        await publisher.fence()
        opened.append((publisher, lease))
        return publisher

    yield publish
    for publisher, lease in opened:
        await publisher.close(0.1)
        await lease.release()


Publishing = Callable[..., Awaitable[ChangePublisher]]


async def test_records_arrive_in_order_and_are_reported_after_their_ack(
    bus: Bus, publishing: Publishing
) -> None:
    await create_durables(bus, "reader")
    acked: list[Record] = []
    publisher = await publishing(acked=acked.extend)
    for number in range(1_000):
        await publisher.put(change(number))
    async with asyncio.timeout(10):
        await publisher.flush()
    assert versions(acked) == list(range(1_000))
    assert versions(await read_all(bus)) == list(range(1_000))
    assert publisher.published == 1_000


async def test_a_replaced_holder_publishes_nothing_even_when_every_change_was_consumed(
    bus: Bus, joining, publishing: Publishing
) -> None:
    await create_durables(bus, "reader")
    old = await publishing()
    await old.put(change(1))
    async with asyncio.timeout(5):
        await old.flush()
    # The old holder does not know that its lease was taken: as if it had been stopped meanwhile.
    other = await joining("other-1")
    successor = StolenLease(epoch=old.epoch + 1)
    new = ChangePublisher(other, CLUSTER, successor)  # type: ignore[arg-type]
    await new.fence()
    assert versions(await read_all(bus)) == [1]
    await old.put(change(2))
    with pytest.raises(LeaseLost):
        async with asyncio.timeout(5):
            await old.flush()
    with pytest.raises(LeaseLost):
        await old.put(change(3))
    await new.put(change(4))
    async with asyncio.timeout(5):
        await new.flush()
    assert versions(await read_all(bus)) == [4]
    await new.close()


async def test_an_earlier_holder_cannot_take_the_fence_back(bus: Bus, publishing: Publishing) -> None:
    current = await publishing()
    late = ChangePublisher(bus, CLUSTER, StolenLease(epoch=current.epoch - 1))  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        await late.fence()


async def test_the_fence_holds_after_the_server_was_killed(
    bus: Bus, bus_server, publishing: Publishing
) -> None:
    await create_durables(bus, "reader")
    old = await publishing()
    new = ChangePublisher(bus, CLUSTER, StolenLease(epoch=old.epoch + 1))  # type: ignore[arg-type]
    await new.fence()
    await bus_server.kill()
    await bus_server.start()
    await old.put(change(1))
    with pytest.raises(LeaseLost):
        async with asyncio.timeout(10):
            await old.flush()
    await new.put(change(2))
    async with asyncio.timeout(10):
        await new.flush()
    assert versions(await read_all(bus)) == [2]
    await new.close()


@pytest.mark.parametrize("limits", [StreamLimits(changes_bytes=MIB)])
async def test_a_full_stream_throttles_and_loses_nothing(
    bus: Bus, publishing: Publishing, eventually
) -> None:
    await create_durables(bus, "reader")
    publisher = await publishing()
    total = 400
    putting = asyncio.create_task(put_many(publisher, total, size=10_000))
    await eventually(lambda: publisher.state == "throttled")
    read: list[int] = []
    async with asyncio.timeout(60):
        while len(set(read)) < total:
            read += versions(await read_all(bus))
    await putting
    assert read == list(range(total))
    assert publisher.state == "live"


async def put_many(publisher: ChangePublisher, total: int, size: int) -> None:
    for number in range(total):
        await publisher.put(change(number, size))


@pytest.mark.parametrize("limits", [StreamLimits(changes_bytes=MIB)])
async def test_without_a_consuming_service_changes_does_not_fill_up(
    bus: Bus, publishing: Publishing, eventually
) -> None:
    publisher = await publishing()
    async with asyncio.timeout(30):
        await put_many(publisher, 1_000, size=5_000)
        await publisher.flush()

    async def drained() -> bool:
        return (await bus.jetstream("STREAM.INFO.CHANGES"))["state"]["messages"] <= 1

    await eventually(drained)


async def test_what_was_acknowledged_survives_kill_9_and_publishing_goes_on_by_itself(
    bus: Bus, bus_server, publishing: Publishing, eventually
) -> None:
    await create_durables(bus, "reader")
    acked: list[Record] = []
    publisher = await publishing(acked=acked.extend)
    total = 6_000

    async def put_slowly() -> None:
        for number in range(total):
            await publisher.put(change(number, 1_000))
            if number % 20 == 0:
                await asyncio.sleep(0.005)

    putting = asyncio.create_task(put_slowly())
    for reached in (500, 2_000, 4_000):
        await eventually(lambda reached=reached: len(acked) >= reached, 30)
        await bus_server.kill()
        await bus_server.start()
    async with asyncio.timeout(30):
        await putting
        await publisher.flush()
    read = versions(await read_all(bus))
    assert versions(acked) == list(range(total))
    assert sorted(set(read)) == list(range(total))
    assert read == sorted(read)


async def test_a_record_no_message_holds_is_refused_when_it_is_put(bus: Bus, publishing: Publishing) -> None:
    publisher = await publishing()
    with pytest.raises(TooLarge):
        await publisher.put(change(1, bus.max_payload))
    await publisher.put(change(2))
    async with asyncio.timeout(5):
        await publisher.flush()


async def test_streams_can_be_made_by_everybody_at_once(joining) -> None:
    replicas = [await joining() for _ in range(4)]
    await asyncio.gather(*(ensure_streams(replica) for replica in replicas))
    await ensure_streams(replicas[0], StreamLimits(feed_age_s=60))
    info = await replicas[0].jetstream("STREAM.INFO.FEED")
    assert info["config"]["max_age"] == 60 * 10**9


async def test_publishing_before_the_bus_is_there_is_unavailable(bus: Bus, bus_server, publishing) -> None:
    lease = await Leases(bus).acquire("observer.other")
    assert lease is not None
    await bus_server.kill()
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await ChangePublisher(bus, "other", lease).fence()
    await lease.release()


OLD_HOLDER = textwrap.dedent(
    """
    import asyncio, sys
    from pydantic import SecretStr
    from kubelore.common.bus import ChangePublisher, LeaseLost, Leases, connect
    from kubelore.common.contracts.changes import Change
    from kubelore.common.settings import CommonSettings

    async def main(url, user, password, cluster):
        bus = await connect(
            CommonSettings(nats_url=url, nats_user=user, nats_password=SecretStr(password)), name="old"
        )
        lease = await Leases(bus).acquire(f"observer.{cluster}", 3)
        publisher = ChangePublisher(bus, cluster, lease)
        await publisher.fence()
        number, said = 0, False
        try:
            while True:
                number += 1
                await publisher.put(
                    Change(cluster=cluster, incarnation=1, type="pods", uid="old", id="x", kind="updated",
                           rv=str(number), at=0.0, object=bytes(2_000))
                )
                if publisher.published >= 500 and not said:
                    said = True
                    print("publishing", flush=True)
        except LeaseLost:
            print("lost", flush=True)
        await bus.close()

    asyncio.run(main(*sys.argv[1:]))
    """
)


async def test_a_holder_stopped_in_the_middle_of_publishing_publishes_nothing_when_it_wakes(
    bus: Bus, bus_server, publishing: Publishing
) -> None:
    await create_durables(bus, "reader")
    old = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OLD_HOLDER, bus_server.url, bus_server.user, bus_server.password, CLUSTER),
        stdout=asyncio.subprocess.PIPE,
    )
    assert old.stdout is not None
    async with asyncio.timeout(30):
        assert await old.stdout.readline() == b"publishing\n"
    os.kill(old.pid, signal.SIGSTOP)
    async with asyncio.timeout(10):
        new = await publishing()
    for number in range(100):
        await new.put(change(number))
    async with asyncio.timeout(5):
        await new.flush()
    os.kill(old.pid, signal.SIGCONT)
    async with asyncio.timeout(10):
        assert b"lost" in (await old.stdout.read()).splitlines()
        await old.wait()
    await new.put(change(100))
    async with asyncio.timeout(5):
        await new.flush()
    records = [record for record in await read_all(bus) if isinstance(record, Change)]
    first_new = next(index for index, record in enumerate(records) if record.uid != "old")
    assert first_new >= 500
    assert versions(records[first_new:]) == list(range(101))  # type: ignore[arg-type]


class StolenLease:
    """A lease whose holder believes in it, whatever the server says."""

    held = True

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def check(self) -> None:
        return None
