"""Replicas that divide clusters between them: who takes what, and what is left of it when one goes."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from itertools import groupby

from kubelore.common.bus import Feed, FeedReset
from kubelore.common.bus.bucket import Bucket
from kubelore.common.contracts.changes import Change, Gap
from kubelore.common.contracts.resources import observer_lease
from kubelore.common.kube import KubeClient, read_kubeconfig
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.fleet import Pace

QUICK = Pace(orphan_s=3.0, surplus_s=0.5)


async def test_replicas_that_start_together_divide_the_clusters(house) -> None:
    house.add(0, 1, 2, 3)
    async with house.replica("a", QUICK) as a, house.replica("b", QUICK) as b:
        await wait_for(lambda: _divided(a, b, counts=(2, 2)), "two clusters each", 20)
        await wait_for(lambda: _live(a, b, clusters=4), "all four to be live", 20)
        names = [observer.cluster for replica in (a, b) for observer in replica.fleet.observers()]
        assert sorted(names) == ["sim-01", "sim-02", "sim-03", "sim-04"]


async def test_a_replica_that_comes_later_is_given_its_share(house) -> None:
    house.add(0, 1, 2)
    async with house.replica("a", QUICK) as a:
        await wait_for(lambda: _divided(a, counts=(3,)), "all clusters")
        async with house.replica("b", QUICK) as b:
            await wait_for(lambda: _divided(a, b, counts=(2, 1)), "the later one to have a cluster", 20)
            await wait_for(lambda: _live(a, b, clusters=3), "all three to be live", 20)

            async def forgotten() -> bool:
                return set(a.fleet.model.clusters) == {one.cluster for one in a.fleet.observers()}

            await wait_for(forgotten, "what was handed over to be forgotten")


async def test_what_a_stopped_replica_observed_is_taken_over_at_once(house) -> None:
    house.add(0, 1)
    async with house.replica("b", Pace()) as b, AsyncExitStack() as running:
        a = await running.enter_async_context(house.replica("a", Pace()))
        await wait_for(lambda: _live(a, b, clusters=2), "both to be live", 20)
        await running.aclose()
        await wait_for(lambda: _live(b, clusters=2), "the other to have both", 10)


async def test_what_a_dead_replica_observed_is_taken_over_in_15_s_and_live_in_20(house) -> None:
    house.add(0, 1)
    async with house.replica("b", Pace(surplus_s=0.5)) as b, house.replica("a", Pace(surplus_s=0.5)) as a:
        await wait_for(lambda: _divided(a, b, counts=(1, 1)), "one each", 20)
        await wait_for(lambda: _live(a, b, clusters=2), "both to be live", 20)
        died = time.monotonic()
        await a.bus.client.close()
        await wait_for(lambda: _divided(b, counts=(2,)), "the other to have both", 20)
        assert time.monotonic() - died < 15
        await wait_for(lambda: _live(b, clusters=2), "both to be live again", 20)
        assert time.monotonic() - died < 20


async def test_a_replica_whose_connection_has_gone_is_replaced_long_before_its_leases_end(house) -> None:
    house.add(0, 1)
    async with house.replica("b", QUICK) as b, house.replica("a", QUICK) as a:
        await wait_for(lambda: _divided(a, b, counts=(1, 1)), "one each", 20)
        await wait_for(lambda: _live(a, b, clusters=2), "both to be live", 20)
        died = time.monotonic()
        await a.bus.client.close()
        await wait_for(lambda: _live(b, clusters=2), "the other to have both", 20)
        assert time.monotonic() - died < 8


async def test_a_cluster_that_is_handed_over_is_live_at_whoever_is_asked_all_the_while(house) -> None:
    house.add(0, 1, 2)
    asked: dict[str, set[str]] = {}
    async with house.replica("a", QUICK) as a:
        await wait_for(lambda: _live(a, clusters=3), "all to be live", 20)
        async with house.replica("b", QUICK) as b:
            fleets = {replica.bus.replica: replica.fleet for replica in (a, b)}

            async def moved() -> bool:
                for key, replica in (await house.leases.holders("observer.")).items():
                    name = key.removeprefix("observer.")
                    asked.setdefault(name, set()).add(replica)
                    assert fleets[replica].observer(name).state().status == "live"
                return len(b.fleet.model.clusters) == 1 and len(a.fleet.model.clusters) == 2

            await wait_for(moved, "a cluster to have moved for good", 30, every=0.02)
            assert sorted(len(replicas) for replicas in asked.values()) == [1, 1, 2]


async def test_a_handed_over_cluster_loses_no_change(house, policy, config_maps) -> None:
    house.add(0, 1, 2)
    told: list[str] = []
    following = asyncio.create_task(_created(Feed(house.bus), await Feed(house.bus).position(), told))
    async with AsyncExitStack() as running:
        clients = [
            await running.enter_async_context(
                KubeClient(read_kubeconfig(house.clusters[number].kubeconfig, None, policy), policy)
            )
            for number in range(3)
        ]
        a = await running.enter_async_context(house.replica("a", QUICK))
        await wait_for(lambda: _live(a, clusters=3), "all to be live", 20)
        b = await running.enter_async_context(house.replica("b", QUICK))
        written: list[str] = []

        async def moved() -> bool:
            name = f"c-{len(written)}"
            manifest = json.dumps(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            ).encode()
            await asyncio.gather(*(client.create(config_maps, "default", manifest) for client in clients))
            written.append(name)
            return len(b.fleet.model.clusters) == 1 and len(a.fleet.model.clusters) == 2

        await wait_for(moved, "a cluster to have moved for good", 30, every=0.02)

        async def arrived() -> bool:
            return all(told.count(name) >= 3 for name in written)

        await wait_for(arrived, "every change", 20)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_removed_cluster_is_given_up_and_nothing_of_it_held(house) -> None:
    house.add(0, 1)
    async with house.replica("a") as a:
        await wait_for(lambda: _live(a, clusters=2), "both to be live", 20)
        await house.remove(1)
        await wait_for(lambda: _divided(a, counts=(1,)), "the removed one to be given up")
        assert set(a.fleet.model.clusters) == {"sim-01"}
        assert all(row.id.startswith("sim-01:") for row in a.fleet.model.clusters["sim-01"])
        assert observer_lease("sim-02") not in await house.leases.holders("observer.")
        house.add(1)
        await wait_for(lambda: _live(a, clusters=2), "it to be live again", 20)


async def test_new_credentials_are_connected_with(house) -> None:
    house.add(0)
    async with house.replica("a") as a:
        await wait_for(lambda: _live(a, clusters=1), "it to be live", 20)
        former = a.fleet.observer("sim-01")
        house.add(0, generation=2)

        async def replaced() -> bool:
            return a.fleet.observer("sim-01") not in (None, former)

        await wait_for(replaced, "another observer")
        await wait_for(lambda: _live(a, clusters=1), "it to be live again", 20)


async def test_credentials_that_do_not_open_stop_no_other_cluster(house) -> None:
    house.add(0, 1, 2)
    house.give("sim-01", house.keyring.seal(b"stolen", context="cluster:other"))
    house.give("sim-02", house.keyring.seal(b"\xc1", context="cluster:sim-02"))
    async with house.replica("a") as a:
        await wait_for(lambda: _asked(house, "sim-01", 2), "a second attempt")
        await wait_for(lambda: _asked(house, "sim-02", 2), "a second attempt")
        await wait_for(lambda: _live(a, clusters=1), "the good one to be live", 20)
        assert set(a.fleet.model.clusters) == {"sim-03"}
        assert a.fleet.observer("sim-01") is None
        house.add(0, 1, generation=2)
        await wait_for(lambda: _live(a, clusters=3), "all to be live with good credentials", 20)


async def test_an_observer_that_fails_as_nobody_expected_is_tried_ever_more_seldom(house) -> None:
    house.add(0, 1)
    await Bucket(house.bus, "CHECKPOINTS").put("sim-01", b"\xc1 no checkpoint", expected=0)
    async with house.replica("a") as a:
        await wait_for(lambda: _asked(house, "sim-01", 4), "four attempts")
        third, fourth = [at for name, at in house.asked if name == "sim-01"][2:4]
        assert fourth - third > 1.5
        assert a.fleet.observer("sim-02") is not None


async def test_an_observer_whose_lease_is_lost_answers_no_more_though_the_registry_is_away(house) -> None:
    house.add(0)
    async with house.replica("a") as a:
        await wait_for(lambda: _live(a, clusters=1), "it to be live", 20)
        await house.registry.stop()
        leases = Bucket(house.bus, "LEASES")
        entry = await leases.get(observer_lease("sim-01"))
        await leases.delete(observer_lease("sim-01"), expected=entry.revision)

        async def forgotten() -> bool:
            return not a.fleet.model.clusters and a.fleet.observer("sim-01") is None

        await wait_for(forgotten, "the model to be closed")


async def test_a_replica_whose_presence_was_lost_is_counted_again(house) -> None:
    async with house.replica("a") as a:
        key = f"replica.resource-ops.{a.bus.replica}"
        leases = Bucket(house.bus, "LEASES")
        await wait_for(lambda: _held(house, key), "its presence")
        await leases.delete(key, expected=(await leases.get(key)).revision)
        await wait_for(lambda: _held(house, key), "its presence again", 20)


async def test_the_registry_is_told_how_many_objects_are_held(house) -> None:
    house.add(0)
    async with house.replica("a") as a:
        await wait_for(lambda: _told(house, "sim-01", ["live"]), "the event", 20)
        event = house.synced[-1]
        assert event.resource_count == a.fleet.model.clusters["sim-01"].total()


async def test_a_cluster_that_was_never_reached_is_told_as_that_and_when_it_is_live(house) -> None:
    house.add(0)
    await house.clusters[0].inject(Faults(refuse=True))
    async with house.replica("a") as a:
        await wait_for(lambda: _synced(house), "the event")
        event = house.synced[-1]
        assert (event.detail, event.as_of, event.resource_count) == ("error", None, None)
        assert "cannot connect" in event.error
        await house.clusters[0].inject(Faults())
        await wait_for(lambda: _live(a, clusters=1), "it to be live", 40)
        await wait_for(lambda: _told(house, "sim-01", ["error", "live"]), "that to be told")


async def test_a_replica_that_takes_over_says_that_it_begins_and_when_it_is_live(house) -> None:
    house.add(0, 1)
    async with house.replica("b", QUICK) as b, house.replica("a", QUICK) as a:
        await wait_for(lambda: _divided(a, b, counts=(1, 1)), "one each", 20)
        await wait_for(lambda: _live(a, b, clusters=2), "both to be live", 20)
        (taken,) = [observer.cluster for observer in a.fleet.observers()]
        await wait_for(lambda: _told(house, taken, ["live"]), "that to be told")
        for cluster in house.clusters:
            await cluster.inject(Faults(latency=0.5))
        await a.bus.client.close()
        await wait_for(
            lambda: _told(house, taken, ["live", "syncing", "live"]), "the takeover to be told", 40
        )


async def test_a_cluster_that_is_handed_over_is_told_live_all_the_while(house) -> None:
    house.add(0, 1)
    async with house.replica("a", QUICK) as a:
        await wait_for(lambda: _live(a, clusters=2), "both to be live", 20)
        for name in ("sim-01", "sim-02"):
            await wait_for(lambda name=name: _told(house, name, ["live"]), "that to be told")
        before = len(house.synced)
        for cluster in house.clusters:
            await cluster.inject(Faults(latency=0.5))
        async with house.replica("b", QUICK) as b:

            async def moved() -> bool:
                told = {event.cluster for event in house.synced[before:]}
                return len(a.fleet.observers()) == 1 and {one.cluster for one in b.fleet.observers()} <= told

            await wait_for(moved, "a cluster to have moved for good", 40)
            assert {event.detail for event in house.synced[before:]} == {"live"}


async def test_a_stopped_fleet_leaves_no_lease_and_no_task(house) -> None:
    house.add(0)
    async with house.replica("a") as a:
        await wait_for(lambda: _live(a, clusters=1), "it to be live", 20)
    assert await house.leases.holders("observer.") == {}
    assert await house.leases.holders("replica.") == {}
    left = {task.get_name() for task in asyncio.all_tasks()}
    assert not any(name.startswith(("publish", "lease")) for name in left)


async def _created(feed: Feed, position: str, told: list[str]) -> None:
    async for _, record in feed.follow(position):
        assert not isinstance(record, FeedReset | Gap)
        if isinstance(record, Change) and record.type == "configmaps" and record.kind == "created":
            told.append(record.id.split(":", 3)[3])


async def _divided(*replicas, counts: tuple[int, ...]) -> bool:
    return sorted(len(replica.fleet.observers()) for replica in replicas) == sorted(counts)


async def _live(*replicas, clusters: int) -> bool:
    states = [observer.state().status for replica in replicas for observer in replica.fleet.observers()]
    return states == ["live"] * clusters


async def _asked(house, name: str, times: int) -> bool:
    return [asked for asked, _ in house.asked].count(name) >= times


async def _held(house, key: str) -> bool:
    return key in await house.leases.holders("replica.")


async def _told(house, cluster: str, statuses: list[str]) -> bool:
    """Whether these are what was told of a cluster at last, one after the other."""
    told = [event.detail for event in house.synced if event.cluster == cluster]
    return [status for status, _ in groupby(told)][-len(statuses) :] == statuses


async def _synced(house) -> bool:
    return bool(house.synced)
