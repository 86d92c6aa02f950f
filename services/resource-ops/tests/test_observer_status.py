"""What an observer says of itself, and that one broken thing neither stops the others nor storms the API server."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from typing import Any

import pytest

from kubelore.common.kube import ResourceType
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops import type_watch

SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
REFUSED = Faults(error_rate=1.0, error_code=403, paths="/configmaps")


async def test_a_type_that_may_not_be_read_is_an_error_to_who_names_it_and_to_nobody_else(bench) -> None:
    await bench.cluster.inject(REFUSED)
    async with bench.observing() as observer:
        await wait_for(lambda: _type_is(observer, "skipped"), "the type to be skipped")
        named = observer.state(["configmaps"])
        assert (named.status, named.error) == ("error", "configmaps: injected fault")
        assert observer.state(["pods"]).status == "live"
        assert observer.state().status == "live"


async def test_rows_that_may_no_longer_be_read_are_stale(bench) -> None:
    async with bench.observing() as observer:
        await bench.cluster.inject(REFUSED)
        bench.cluster.drop_watches()
        await wait_for(lambda: _says(observer, "configmaps: injected fault"), "the refusal")
        assert observer.model.count("configmaps") > 0
        assert observer.state().status == "stale"


async def test_a_type_that_was_never_listed_is_an_error_and_not_stale(bench) -> None:
    await bench.cluster.inject(Faults(error_rate=1.0, error_code=500, paths="/configmaps"))
    async with bench.observing(until_live=False) as observer:
        await wait_for(lambda: _type_is(observer, "error"), "the type to be in error")
        assert observer.state(["configmaps"]).status == "error"
        await wait_for(lambda: _pods_are(observer, "live"), "another type to be live")
        await bench.cluster.inject(Faults())
        await wait_for(lambda: bench.is_live(observer), "the observer to be live")


async def test_a_watch_that_is_refused_slowly_is_never_called_live(bench) -> None:
    async with bench.observing() as observer:
        await bench.cluster.inject(Faults(latency=0.3, error_rate=1.0, error_code=500, paths="/configmaps"))
        bench.cluster.drop_watches()
        await wait_for(lambda: _type_is(observer, "stale"), "the type to be stale")
        seen: list[str] = []

        async def tried_for_a_while() -> bool:
            seen.append(observer.state(["configmaps"]).status)
            return len(seen) > 150

        await wait_for(tried_for_a_while, "some attempts", every=0.01)
        assert set(seen) == {"stale"}


async def test_one_object_that_cannot_be_read_does_not_hide_the_others(bench) -> None:
    strange = {"metadata": {"name": "strange", "namespace": "default", "annotations": {"number": 1}}}
    bench.cluster.state.seed_object("configmaps", strange)
    await bench.create("listed")
    async with bench.observing() as observer:
        await bench.until_told(("observed", "listed"))
        bench.cluster.state.seed_object("configmaps", {**strange, "data": {"k": "v"}})
        await bench.create("watched")
        await bench.until_told(("created", "watched"))
        assert observer.state(["configmaps"]).status == "live"
        report = {state.type: state for state in observer.report(with_types=True).types}
        assert "could not be read" in report["configmaps"].detail


async def test_one_object_nested_deeper_than_can_be_decoded_does_not_hide_the_others(bench) -> None:
    deep = {"metadata": {"name": "deep", "namespace": "default"}, "spec": _nested(1500)}
    _seed_without_limit(bench.cluster, deep)
    await bench.create("listed")
    async with bench.observing() as observer:
        await bench.until_told(("observed", "listed"))
        _seed_without_limit(bench.cluster, {**deep, "data": {"k": "v"}})
        await bench.create("watched")
        await bench.until_told(("created", "watched"))
        assert observer.state(["configmaps"]).status == "live"
        report = {state.type: state for state in observer.report(with_types=True).types}
        assert "could not be read" in report["configmaps"].detail


def _nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = {"a": found}
    return found


def _seed_without_limit(cluster: Any, body: dict[str, Any]) -> None:
    """Seed what an API server takes, and kubesim can only write with a higher limit."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        cluster.state.seed_object("configmaps", body)
    finally:
        sys.setrecursionlimit(usual)


async def test_a_type_that_fails_as_nobody_expected_stops_no_other(bench) -> None:
    attempts: list[float] = []

    async def broken_disk(key: str, content: bytes) -> None:
        attempts.append(asyncio.get_running_loop().time())
        raise RuntimeError("the disk is on fire")

    bench.put_blob = broken_disk
    async with bench.observing() as observer:
        await bench.create("large", noise=os.urandom(600_000).hex())
        await wait_for(lambda: _type_is(observer, "stale"), "the type to be in trouble")
        manifest = b'{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}'
        await bench.client.create(SECRETS, "default", manifest)
        await bench.until_told(("created", "s"), type_name="secrets")
        assert not bench.running.done()
        seen: set[tuple[str, str]] = set()

        async def tried_again() -> bool:
            state = observer.state(["configmaps"])
            seen.add((state.status, (state.error or "").rpartition(" ")[0]))
            return len(attempts) >= 5

        await wait_for(tried_again, "five attempts", every=0.01)
        assert seen == {("stale", "configmaps: unexpected error")}
        assert attempts[4] - attempts[3] > 0.5


async def test_a_store_that_was_away_delays_a_large_change_and_loses_none(bench) -> None:
    stored, working = bench.blobs.put, asyncio.Event()

    async def away(key: str, content: bytes) -> None:
        if not working.is_set():
            raise RuntimeError("not yet")
        await stored(key, content)

    bench.put_blob = away
    async with bench.observing() as observer:
        await bench.create("large", noise=os.urandom(600_000).hex())
        await wait_for(lambda: _type_is(observer, "stale"), "the type to be in trouble")
        working.set()
        await bench.until_told(("created", "large"))
        assert bench.published.told().count(("created", "large")) == 1


async def test_history_that_is_always_gone_is_not_listed_again_and_again_at_once(bench) -> None:
    async with bench.observing():
        await bench.cluster.inject(Faults(expired=True, paths="/configmaps"))
        bench.cluster.drop_watches()
        await wait_for(lambda: _gaps(bench, 3), "three gaps")
        first, second, third = [gap.at for gap in bench.published.gaps()[:3]]
        assert second - first > 0.5
        assert third - second > 0.5


async def test_watches_that_end_at_once_are_opened_ever_more_seldom(bench, monkeypatch) -> None:
    opened: list[float] = []
    async with bench.observing() as observer:
        client = observer._client
        watch = client.watch

        async def ends_at_once(resource_type, **options):
            if resource_type.name != "configmaps":
                async for event in watch(resource_type, **options):
                    yield event
            else:
                opened.append(asyncio.get_running_loop().time())

        monkeypatch.setattr(client, "watch", ends_at_once)
        bench.cluster.drop_watches()
        await wait_for(lambda: _enough(opened, 6), "six attempts")
        assert opened[5] - opened[4] > 1.2
        assert observer.state(["pods"]).status == "live"


async def test_definitions_that_keep_changing_are_not_discovered_each_time(bench) -> None:
    asked = 0
    async with bench.observing() as observer:
        discovery = observer._client.discovery

        async def counted():
            nonlocal asked
            asked += 1
            return await discovery()

        observer._client.discovery = counted
        changes = 0

        async def keep_changing() -> bool:
            nonlocal changes
            changes += 1
            observer._definitions_changed.set()
            return changes >= 60

        await wait_for(keep_changing, "six seconds of changes", every=0.1)
        assert 1 <= asked <= 5


async def test_a_cluster_that_was_never_reached_says_why(bench) -> None:
    await bench.cluster.inject(Faults(refuse=True))
    async with bench.observing(until_live=False) as observer:
        await wait_for(lambda: _says(observer, "cannot connect"), "the reason")
        state = observer.state()
        assert (state.status, state.as_of) == ("error", None)
        await bench.cluster.inject(Faults())
        await wait_for(lambda: bench.is_live(observer), "the observer to be live", 40)


async def test_revoked_credentials_are_stale_and_named(bench) -> None:
    async with bench.observing() as observer:
        await bench.cluster.inject(Faults(error_rate=1.0, error_code=401))
        bench.cluster.drop_watches()
        await wait_for(lambda: _says(observer, "injected fault"), "the refusal")
        assert observer.state().status in ("stale", "error")
        assert observer.model.total() > 0
        await bench.cluster.inject(Faults())
        await wait_for(lambda: bench.is_live(observer), "the observer to be live", 40)


async def test_a_long_list_leaves_others_their_turn(bench) -> None:
    text = "x" * 4_000
    for number in range(5_000):
        name = f"c-{number:05}"
        manifest = {"metadata": {"name": name, "namespace": "default"}, "data": {"text": text + name}}
        bench.cluster.state.seed_object("configmaps", manifest)
    turns: list[int] = []
    async with bench.observing(until_live=False) as observer:

        async def listed() -> bool:
            turns.append(observer.model.count("configmaps"))
            return turns[-1] >= 5_000

        await wait_for(listed, "the list", every=0.0)
        steps = [after - before for before, after in itertools.pairwise(turns)]
        assert max(steps) <= 100


async def _type_is(observer, status: str) -> bool:
    states = observer.report(with_types=True).types
    return any(state.type == "configmaps" and state.status == status for state in states)


async def _pods_are(observer, status: str) -> bool:
    return observer.state(["pods"]).status == status


async def _says(observer, text: str) -> bool:
    return text in (observer.state().error or "")


async def _gaps(bench, count: int) -> bool:
    return len(bench.published.gaps()) >= count


async def _enough(found: list[float], count: int) -> bool:
    return len(found) >= count


@pytest.fixture(autouse=True)
def _no_long_skips(monkeypatch) -> None:
    """A refused type is tried again every second here, since a minute is long in a test."""
    monkeypatch.setattr(type_watch, "SKIPPED_RETRY_S", 1.0)
