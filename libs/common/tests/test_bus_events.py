"""Events: stored once, followed from now on or from where a durable left off."""

from __future__ import annotations

import asyncio

import pytest

from kubelore.common.bus import Bus
from kubelore.common.contracts.clusters import ClusterEvent, cluster_event_subject
from kubelore.common.errors import KubeloreError

PATTERN = "kubelore.v1.events.cluster.>"


def event(cluster: str) -> ClusterEvent:
    return ClusterEvent(cluster=cluster, happened="added", at=1.0)


async def publish(bus: Bus, *clusters: str) -> None:
    for cluster in clusters:
        await bus.publish_event(cluster_event_subject(event(cluster)), event(cluster))


async def started(bus: Bus, eventually) -> None:
    async def follows() -> bool:
        return bool((await bus.jetstream("CONSUMER.NAMES.EVENTS"))["consumers"])

    await eventually(follows)


async def test_a_follower_sees_what_happens_from_now_on(bus: Bus, eventually) -> None:
    await publish(bus, "before")
    following = bus.subscribe_events(PATTERN, ClusterEvent)
    first = asyncio.ensure_future(anext(following))
    await started(bus, eventually)
    await publish(bus, "a", "b")
    assert (await asyncio.wait_for(first, 5)).cluster == "a"
    assert (await asyncio.wait_for(anext(following), 5)).cluster == "b"


async def test_a_follower_misses_nothing_while_the_server_is_killed(bus: Bus, bus_server, eventually) -> None:
    following = bus.subscribe_events(PATTERN, ClusterEvent)
    first = asyncio.ensure_future(anext(following))
    await started(bus, eventually)
    await bus_server.kill()
    await bus_server.start()
    await publish(bus, "a", "b")
    assert (await asyncio.wait_for(first, 20)).cluster == "a"
    assert (await asyncio.wait_for(anext(following), 20)).cluster == "b"


async def test_a_durable_goes_on_where_it_stopped(bus: Bus, eventually) -> None:
    await publish(bus, "a", "b", "c")
    reading = bus.subscribe_events(PATTERN, ClusterEvent, durable="notifier")
    assert (await asyncio.wait_for(anext(reading), 5)).cluster == "a"
    assert (await asyncio.wait_for(anext(reading), 5)).cluster == "b"
    await reading.aclose()

    async def first_is_acknowledged() -> bool:
        return (await bus.jetstream("CONSUMER.INFO.EVENTS.notifier"))["ack_floor"]["stream_seq"] == 1

    await eventually(first_is_acknowledged)


async def test_a_malformed_event_is_passed_over(bus: Bus) -> None:
    await bus.store("kubelore.v1.events.cluster.x.added", b"\xc1")
    await publish(bus, "a")
    reading = bus.subscribe_events(PATTERN, ClusterEvent, durable="notifier")
    assert (await asyncio.wait_for(anext(reading), 5)).cluster == "a"


async def test_an_event_that_no_stream_keeps_is_an_error(bus: Bus) -> None:
    with pytest.raises(KubeloreError):
        await bus.publish_event("kubelore.v1.unknown.x", event("a"), deadline_s=0.5)
