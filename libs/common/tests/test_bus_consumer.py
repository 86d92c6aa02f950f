"""Consuming changes: every partition by one replica, in order, nothing lost, poison set aside and seen."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec
import pytest

from kubelore.common.bus import Bus, ChangeConsumer, ChangePublisher, Leases, Parked, create_durables
from kubelore.common.bus.partition import Partition
from kubelore.common.contracts.changes import PARTITIONS, Change, Record, partition_of
from kubelore.common.errors import Invalid, NotFound, Unavailable

CLUSTERS = [f"cluster-{number}" for number in range(6)]


def change(cluster: str, number: int) -> Change:
    return Change(
        cluster=cluster,
        incarnation=1,
        type="pods",
        uid=f"u{number}",
        id=f"{cluster}:pods:default:p{number}",
        kind="created",
        rv=str(number),
        at=0.0,
    )


class Written:
    """Stands for a service's store: what was written, by cluster, idempotently."""

    def __init__(self) -> None:
        self.versions: dict[str, list[int]] = defaultdict(list)
        self.calls = 0

    async def __call__(self, records: list[Record]) -> None:
        self.calls += 1
        for record in records:
            assert isinstance(record, Change)
            if int(record.rv) not in self.versions[record.cluster]:
                self.versions[record.cluster].append(int(record.rv))

    def complete(self, clusters: list[str], count: int) -> bool:
        return all(len(self.versions[cluster]) == count for cluster in clusters)


@pytest.fixture
async def publish(bus: Bus):
    """Publish numbered changes of a cluster and wait for the acknowledgement."""
    opened: dict[str, ChangePublisher] = {}
    leases = []

    async def publish_range(cluster: str, numbers: range) -> None:
        if cluster not in opened:
            # So long that a server which is slow to come back costs nobody but the consumer a lease.
            lease = await Leases(bus).acquire(f"observer.{cluster}", ttl_s=3600)
            assert lease is not None
            leases.append(lease)
            opened[cluster] = ChangePublisher(bus, cluster, lease)
            await opened[cluster].fence()
        for number in numbers:
            await opened[cluster].put(change(cluster, number))
        async with asyncio.timeout(30):
            await opened[cluster].flush()

    yield publish_range
    for publisher in opened.values():
        await publisher.close(0.1)
    for lease in leases:
        await lease.release()


@pytest.fixture
async def consume():
    """Run consumers in the background; stopped at the end, or by cancelling the task."""
    running: list[asyncio.Task[None]] = []

    def start(consumer: ChangeConsumer) -> asyncio.Task[None]:
        running.append(asyncio.create_task(consumer.run()))
        return running[-1]

    yield start
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_what_was_published_before_the_consumer_ran_is_consumed_in_order(
    bus: Bus, publish, consume, eventually
) -> None:
    await create_durables(bus, "writer")
    for cluster in CLUSTERS:
        await publish(cluster, range(200))
    written = Written()
    consume(ChangeConsumer(bus, "writer", written))
    await eventually(lambda: written.complete(CLUSTERS, 200))
    assert all(written.versions[cluster] == list(range(200)) for cluster in CLUSTERS)
    assert written.calls < 200

    async def drained() -> bool:
        return (await bus.jetstream("STREAM.INFO.CHANGES"))["state"]["messages"] == len(CLUSTERS)

    await eventually(drained)


async def test_replicas_share_the_partitions_and_take_over_from_one_that_leaves(
    joining, bus: Bus, publish, consume, eventually
) -> None:
    await create_durables(bus, "writer")
    written = Written()
    one = ChangeConsumer(await joining("one-1"), "writer", written)
    two = ChangeConsumer(await joining("two-1"), "writer", written)
    first = consume(one)
    await eventually(lambda: len(one.partitions) == PARTITIONS)
    consume(two)
    await eventually(lambda: len(one.partitions) == len(two.partitions) == PARTITIONS // 2)
    assert not set(one.partitions) & set(two.partitions)
    await publish(CLUSTERS[0], range(50))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await publish(CLUSTERS[0], range(50, 100))
    await eventually(lambda: len(two.partitions) == PARTITIONS)
    await eventually(lambda: written.complete(CLUSTERS[:1], 100))
    assert written.versions[CLUSTERS[0]] == list(range(100))


async def test_what_a_dead_replica_had_not_acknowledged_comes_first_at_its_successor(
    joining, bus: Bus, publish, consume, eventually
) -> None:
    await create_durables(bus, "writer")
    began = asyncio.Event()

    async def hang(_: list[Record]) -> None:
        began.set()
        await asyncio.Event().wait()

    await publish(CLUSTERS[0], range(10))
    stuck = consume(ChangeConsumer(await joining("one-1"), "writer", hang))
    await asyncio.wait_for(began.wait(), 10)
    await publish(CLUSTERS[0], range(10, 20))
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    written = Written()
    consume(ChangeConsumer(await joining("two-1"), "writer", written))
    await eventually(lambda: written.complete(CLUSTERS[:1], 20))
    assert written.versions[CLUSTERS[0]] == list(range(20))


async def test_a_store_that_is_away_is_waited_for_and_nothing_is_parked(
    bus: Bus, publish, consume, eventually
) -> None:
    await create_durables(bus, "writer")
    written = Written()
    away = True

    async def write(records: list[Record]) -> None:
        if away:
            raise Unavailable("no primary")
        await written(records)

    consumer = ChangeConsumer(bus, "writer", write, attempts=1)
    consume(consumer)
    await publish(CLUSTERS[0], range(30))
    await eventually(lambda: consumer.waiting)
    away = False
    await eventually(lambda: written.complete(CLUSTERS[:1], 30))
    assert await consumer.list_parked() == []


async def test_a_poisoned_change_is_parked_seen_and_replayed_and_holds_nothing_up(
    bus: Bus, publish, consume, eventually
) -> None:
    await create_durables(bus, "writer")
    written = Written()
    gaps: list[Parked] = []
    mended = False

    async def write(records: list[Record]) -> None:
        if not mended and any(isinstance(record, Change) and record.rv == "7" for record in records):
            raise ValueError("secret=hunter2")
        await written(records)

    async def placeholder(parked: Parked) -> None:
        gaps.append(parked)

    consumer = ChangeConsumer(bus, "writer", write, placeholder=placeholder, attempts=2)
    consume(consumer)
    await publish(CLUSTERS[0], range(20))
    await eventually(lambda: written.complete(CLUSTERS[:1], 19))
    assert written.versions[CLUSTERS[0]] == [number for number in range(20) if number != 7]
    (parked,) = await consumer.list_parked()
    assert isinstance(parked.record, Change)
    assert parked.record.rv == "7"
    assert parked.reason == "ValueError"
    assert [gap.id for gap in gaps] == [parked.id]
    with pytest.raises(ValueError, match="hunter2"):
        await consumer.replay_parked(parked.id)
    mended = True
    await consumer.replay_parked(parked.id)
    assert 7 in written.versions[CLUSTERS[0]]
    assert await consumer.list_parked() == []
    with pytest.raises(NotFound):
        await consumer.replay_parked(parked.id)


async def test_a_message_that_does_not_decode_is_parked_whole(bus: Bus, publish, consume, eventually) -> None:
    await create_durables(bus, "writer")
    written = Written()
    consumer = ChangeConsumer(bus, "writer", written)
    consume(consumer)
    subject = f"kubelore.v1.events.resource.{CLUSTERS[0]}.p{partition_of(CLUSTERS[0]):02d}"
    await bus.store(subject, b"\xc1 no msgpack")
    await publish(CLUSTERS[0], range(3))
    await eventually(lambda: written.complete(CLUSTERS[:1], 3))
    (parked,) = await consumer.list_parked()
    assert parked.record is None
    assert parked.raw == b"\xc1 no msgpack"
    with pytest.raises(Invalid):
        await consumer.replay_parked(parked.id)


@pytest.mark.parametrize("ticks", range(6))
async def test_a_partition_ends_when_it_is_cancelled_as_its_acknowledgement_is_confirmed(
    bus: Bus, ticks: int
) -> None:
    await create_durables(bus, "writer")
    number = partition_of(CLUSTERS[0])
    lease = await Leases(bus).acquire("partition.writer")
    assert lease is not None
    handled = asyncio.Event()
    heard = 0

    async def write(_: list[Record]) -> None:
        nonlocal heard
        heard = bus.client.stats["in_msgs"]
        handled.set()

    partition = Partition(bus, "writer", number, lease, write, None, 1)
    reading = asyncio.create_task(partition.run())
    subject = f"kubelore.v1.events.resource.{CLUSTERS[0]}.p{number:02d}"
    await bus.store(subject, msgspec.msgpack.encode([change(CLUSTERS[0], 1)]))
    async with asyncio.timeout(30):
        await handled.wait()
        while bus.client.stats["in_msgs"] == heard:  # noqa: ASYNC110 - the tick is what counts
            await asyncio.sleep(0)
    for _ in range(ticks):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading], timeout=5)
    assert reading.done()
    await lease.release()


async def test_consuming_goes_on_after_the_server_was_killed(
    bus: Bus, bus_server, publish, consume, eventually
) -> None:
    await create_durables(bus, "writer")
    written = Written()
    consume(ChangeConsumer(bus, "writer", written))
    await publish(CLUSTERS[0], range(50))
    await eventually(lambda: written.complete(CLUSTERS[:1], 50))
    await bus_server.kill()
    await bus_server.start()
    await publish(CLUSTERS[0], range(50, 100))
    # Were the leases of the partitions lost meanwhile, the server frees them 12 s after they were last renewed.
    await eventually(lambda: written.complete(CLUSTERS[:1], 100), 60)
    assert written.versions[CLUSTERS[0]] == list(range(100))
