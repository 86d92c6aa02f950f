"""The feed: shared by its readers, resumable by event id, honest about what is missing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.bus import Bus, ChangePublisher, Feed, FeedReset, Leases
from kubelore.common.bus.feed_newest import Newest
from kubelore.common.bus.feed_window import WINDOW_BYTES, Batch, Passed, Position, Window
from kubelore.common.bus.streams import StreamLimits
from kubelore.common.contracts.changes import Change, Record
from kubelore.common.errors import BadRequest, Gone


def change(cluster: str, number: int, size: int = 50) -> Change:
    return Change(
        cluster=cluster,
        incarnation=1,
        type="pods",
        uid="u",
        id=f"{cluster}:pods:default:p",
        kind="updated",
        rv=str(number),
        at=0.0,
        object=bytes(size),
    )


@pytest.fixture
async def publishers(bus: Bus):
    """Publishers by cluster, made when first asked for."""
    opened: dict[str, ChangePublisher] = {}
    leases = []

    async def publish(cluster: str, numbers: range, size: int = 50) -> None:
        if cluster not in opened:
            lease = await Leases(bus).acquire(f"observer.{cluster}")
            assert lease is not None
            leases.append(lease)
            opened[cluster] = ChangePublisher(bus, cluster, lease)
            await opened[cluster].fence()
        for number in numbers:
            await opened[cluster].put(change(cluster, number, size))
        async with asyncio.timeout(30):
            await opened[cluster].flush()

    yield publish
    for publisher in opened.values():
        await publisher.close(0.1)
    for lease in leases:
        await lease.release()


async def take(feed: Feed, position: str | None, count: int, clusters: set[str] | None = None):
    """The next `count` events behind a position."""
    events: list[tuple[str, Record | FeedReset]] = []
    following = feed.follow(position, clusters)
    async with asyncio.timeout(15):
        async for event_id, record in following:
            if isinstance(record, Passed):
                continue
            events.append((event_id, record))
            if len(events) == count:
                break
    await following.aclose()
    return events


def versions(events: list[tuple[str, Record | FeedReset]]) -> list[str]:
    return [
        f"{record.cluster}/{record.rv}" if isinstance(record, Change) else "reset" for _, record in events
    ]


async def test_changes_after_a_position_come_in_order(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    await publishers("a", range(5))
    position = await feed.position()
    await publishers("a", range(5, 10))
    assert versions(await take(feed, position, 5)) == [f"a/{number}" for number in range(5, 10)]


async def test_a_position_that_may_be_old_is_behind_less_and_never_behind_more(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    await publishers("a", range(2))
    before = await feed.position()
    await publishers("a", range(2, 5))
    assert await feed.position(max_age_s=60) == before
    assert versions(await take(feed, before, 3)) == ["a/2", "a/3", "a/4"]
    after = await feed.position()
    assert after != before
    assert await feed.position(max_age_s=60) == after


async def test_a_reader_resumes_behind_any_event_it_was_given_at_any_gateway(
    joining, bus: Bus, publishers
) -> None:
    start = await Feed(bus).position()
    await publishers("a", range(30))
    await publishers("b", range(30))
    everything = await take(Feed(bus), start, 60)
    elsewhere = Feed(await joining())
    for resumed_at in (0, 7, 29, 30, 58):
        event_id = everything[resumed_at][0]
        rest = await take(elsewhere, event_id, 59 - resumed_at)
        assert versions(rest) == versions(everything[resumed_at + 1 :])
        assert [event_id for event_id, _ in rest] == [
            event_id for event_id, _ in everything[resumed_at + 1 :]
        ]


async def test_a_reader_may_ask_for_some_clusters(bus: Bus, publishers) -> None:
    start = await Feed(bus).position()
    await publishers("a", range(3))
    await publishers("b", range(3))
    assert versions(await take(Feed(bus), start, 3, {"b"})) == ["b/0", "b/1", "b/2"]


async def test_the_place_of_a_reader_moves_on_while_only_other_clusters_change(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    start = await feed.position()
    await publishers("a", range(3))
    here, found = await feed.position(), list[str]()
    async with asyncio.timeout(15), aclosing(feed.follow(start, {"b"})) as following:
        async for event_id, record in following:
            assert record == Passed()
            found.append(event_id)
            if event_id == here:
                break
    assert found == sorted(found, key=Position.parse)


async def test_many_readers_share_one_consumer(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    start = await feed.position()
    reading = [asyncio.create_task(take(feed, start, 20)) for _ in range(25)]
    await publishers("a", range(20))
    expected = [f"a/{number}" for number in range(20)]
    assert all(versions(events) == expected for events in await asyncio.gather(*reading))
    consumers = (await bus.jetstream("CONSUMER.NAMES.FEED"))["consumers"] or []
    assert len(consumers) <= 1


async def pause_feed(bus: Bus, until: str) -> None:
    """FEED gets nothing more before `until`, as it does for moments in a steady stream."""
    await bus.jetstream("CONSUMER.PAUSE.CHANGES.feed", {"pause_until": until})


async def test_the_newest_changes_do_not_wait_for_feed(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    await publishers("a", range(1))
    following = feed.follow(await feed.position())
    async with asyncio.timeout(15):
        await publishers("a", range(1, 2))
        assert versions([await anext(following)]) == ["a/1"]
        await pause_feed(bus, "2099-01-01T00:00:00Z")
        await publishers("a", range(2, 5))
        assert versions([await anext(following) for _ in range(3)]) == ["a/2", "a/3", "a/4"]
    await following.aclose()
    fed = (await bus.jetstream("STREAM.INFO.FEED"))["state"]["last_seq"]
    assert fed < (await bus.jetstream("STREAM.INFO.CHANGES"))["state"]["last_seq"]


async def test_a_reader_resumes_elsewhere_behind_a_change_that_feed_does_not_have_yet(
    joining, bus: Bus, publishers
) -> None:
    feed = Feed(bus)
    await publishers("a", range(1))
    following = feed.follow(await feed.position())
    async with asyncio.timeout(15):
        await publishers("a", range(1, 2))
        await anext(following)
        await pause_feed(bus, "2099-01-01T00:00:00Z")
        await publishers("a", range(2, 3))
        event_id, _ = await anext(following)
    await following.aclose()
    await publishers("a", range(3, 5))
    resumed = asyncio.create_task(take(Feed(await joining()), event_id, 4))
    await publishers("a", range(5, 6))
    await pause_feed(bus, "2001-01-01T00:00:00Z")
    await publishers("a", range(6, 7))
    assert versions(await resumed) == ["a/3", "a/4", "a/5", "a/6"]


async def test_what_feed_does_not_have_yet_is_read_where_it_waits_for_feed(
    joining, bus: Bus, publishers
) -> None:
    await publishers("a", range(3))
    await take(Feed(bus), f"{(await Feed(bus).position()).split('.')[0]}.1.0", 3)
    await pause_feed(bus, "2099-01-01T00:00:00Z")
    here = await Feed(bus).position()
    await publishers("a", range(3, 100))
    assert versions(await take(Feed(await joining()), here, 97)) == [
        f"a/{number}" for number in range(3, 100)
    ]
    # Nor is it taken for expired while FEED is empty.
    await bus.jetstream("STREAM.PURGE.FEED")
    assert versions(await take(Feed(await joining()), here, 97)) == [
        f"a/{number}" for number in range(3, 100)
    ]


async def test_a_reader_that_dies_leaves_nothing_that_holds_changes_back(
    joining, bus: Bus, publishers, eventually
) -> None:
    reader = await joining()
    feed = Feed(reader)
    following = feed.follow(await feed.position())
    await publishers("a", range(1))
    await anext(following)
    await reader.close()
    await publishers("a", range(1, 20))
    assert (await bus.jetstream("CONSUMER.NAMES.CHANGES"))["consumers"] == ["feed", "fences"]

    async def drained() -> bool:
        return (await bus.jetstream("STREAM.INFO.CHANGES"))["state"]["messages"] == 1

    await eventually(drained)
    await following.aclose()


async def test_a_reader_slower_than_the_window_misses_nothing(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    slow = feed.follow(await feed.position())
    fast = asyncio.create_task(take(feed, await feed.position(), 101))
    await publishers("a", range(1))
    events = [await anext(slow)]
    await publishers("a", range(1, 101), size=WINDOW_BYTES // 80)
    await fast
    async with asyncio.timeout(30):
        events += [await anext(slow) for _ in range(100)]
    await slow.aclose()
    assert versions(events) == [f"a/{number}" for number in range(101)]


async def test_a_listener_that_does_not_read_keeps_no_more_than_it_may(bus: Bus, publishers) -> None:
    async with Newest(bus, max_bytes=30_000) as newest:
        for number in range(10):
            await publishers("a", range(number, number + 1), size=10_000)
        kept = await newest.read(1)
        assert [batch.sequence for batch in kept] == [1, 2, 3, 4]
        await publishers("a", range(10, 11))
        assert [batch.sequence for batch in await newest.read(5)] == [12]
        assert await newest.read(0.01) == []


async def test_a_reader_goes_on_after_the_server_was_killed_and_misses_nothing(
    bus: Bus, bus_server, publishers
) -> None:
    feed = Feed(bus)
    reading = asyncio.create_task(take(feed, await feed.position(), 40))
    await publishers("a", range(20))
    await bus_server.kill()
    await bus_server.start()
    await publishers("a", range(20, 40))
    assert versions(await reading) == [f"a/{number}" for number in range(40)]


@pytest.mark.parametrize("limits", [StreamLimits(feed_bytes=64 * 1024)])
async def test_a_position_outside_the_window_is_gone(bus: Bus, publishers) -> None:
    feed = Feed(bus)
    start = await feed.position()
    for number in range(30):
        await publishers("a", range(number, number + 1), size=10_000)
    with pytest.raises(Gone):
        await take(feed, start, 1)


async def test_a_hole_is_said_where_it_is(bus: Bus, publishers, eventually) -> None:
    feed = Feed(bus)
    start = await feed.position()
    for number in range(6):
        await publishers("a", range(number, number + 1))

    async def arrived() -> bool:
        return (await bus.jetstream("STREAM.INFO.FEED"))["state"]["last_seq"] == 7

    await eventually(arrived)
    # The first message is the fence, hence the change with rv 3 is the fifth.
    await bus.jetstream("STREAM.MSG.DELETE.FEED", {"seq": 5})
    assert versions(await take(feed, start, 6)) == ["a/0", "a/1", "a/2", "reset", "a/4", "a/5"]


async def test_a_feed_made_anew_keeps_event_ids_and_refuses_only_what_it_lost(
    bus: Bus, publishers, eventually
) -> None:
    feed = Feed(bus)
    start = await feed.position()
    await publishers("a", range(3))
    await take(feed, start, 3)

    async def fed() -> bool:
        return (await bus.jetstream("STREAM.INFO.CHANGES"))["state"]["messages"] == 1

    await eventually(fed)
    await bus.jetstream("STREAM.DELETE.FEED")
    await bus.ensure_streams()
    here = await feed.position()
    await publishers("a", range(3, 6))
    assert versions(await take(feed, here, 3)) == ["a/3", "a/4", "a/5"]
    with pytest.raises(Gone):
        await take(feed, start, 1)


async def test_an_id_of_another_stream_is_gone_and_one_that_is_none_is_refused(bus: Bus) -> None:
    feed = Feed(bus)
    epoch, sequence, _ = (await feed.position()).split(".")
    for foreign in (f"{int(epoch) - 1}.{sequence}.0", f"{epoch}.{int(sequence) + 5}.0"):
        with pytest.raises(Gone):
            await take(feed, foreign, 1)
    for malformed in ("", "1.2", "a.b.c", "1.2.-3", "1.2.3.4", "1" * 90 + ".1.1", "\u0661.1.1"):
        with pytest.raises(BadRequest):
            Position.parse(malformed)


async def test_what_happened_before_a_position_was_taken_does_not_come(bus: Bus, publishers) -> None:
    await publishers("a", range(10))
    feed = Feed(bus)
    reading = asyncio.create_task(take(feed, await feed.position(), 1))
    await publishers("a", range(10, 11))
    assert versions(await reading) == ["a/10"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 300)), max_size=60))
def test_a_window_is_consecutive_and_bounded_whatever_arrives(arrivals: list[tuple[int, int]]) -> None:
    window = Window(5, max_bytes=500)
    for sequence, size in arrivals:
        window.append(Batch(sequence, sequence + 1, "a", bytes(size)))
    held = [sequence for sequence in range(window.following) if window.get(sequence) is not None]
    total = 0
    for sequence in held:
        batch = window.get(sequence)
        assert batch is not None
        assert batch.following == window.following or window.get(batch.following) is not None
        total += len(batch.data)
    assert total <= 500 or len(held) <= 1


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 1000))
def test_a_position_reads_back_as_it_was_written(epoch: int, sequence: int, index: int) -> None:
    position = Position(epoch, sequence, index)
    assert Position.parse(str(position)) == position
