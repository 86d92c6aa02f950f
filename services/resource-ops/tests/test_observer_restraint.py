"""What an observer does not do to an API server, and what neither silence nor a jumping clock does to an observer."""

from __future__ import annotations

import asyncio
import itertools
import time

from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for


async def test_at_most_four_types_are_listed_for_the_first_time_at_once(bench) -> None:
    under_way = most = 0
    await bench.cluster.inject(Faults(latency=0.1))
    async with bench.observing(until_live=False) as observer:
        listing = observer._client.list

        async def counted(resource_type, **options):
            nonlocal under_way, most
            under_way += options.get("limit") == 500
            most = max(most, under_way)
            try:
                return await listing(resource_type, **options)
            finally:
                under_way -= options.get("limit") == 500

        observer._client.list = counted
        await wait_for(lambda: bench.is_live(observer), "the observer to be live", 30)
        assert most == 4


async def test_types_that_are_stored_as_one_are_observed_once(bench) -> None:
    async with bench.observing() as observer:
        found = await observer._client.discovery()
        assert "events" in observer.model.types
        assert "events.events.k8s.io" not in observer.model.types
        assert {one.name for one in found.types if one.observable} == set(observer.model.types)


async def test_a_server_that_says_when_to_come_again_is_left_alone_until_then(bench) -> None:
    attempts: list[float] = []
    async with bench.observing() as observer:
        listing = observer._client.list

        async def counted(resource_type, **options):
            if resource_type.name == "configmaps":
                attempts.append(asyncio.get_running_loop().time())
            return await listing(resource_type, **options)

        observer._client.list = counted
        await bench.cluster.inject(Faults(error_rate=1.0, error_code=429, retry_after=3, paths="/configmaps"))
        bench.cluster.drop_watches()

        async def three() -> bool:
            return len(attempts) >= 3

        await wait_for(three, "three attempts", 20)
        assert min(later - earlier for earlier, later in itertools.pairwise(attempts)) >= 3.0


async def test_a_watch_that_has_fallen_silent_is_opened_again_and_misses_nothing(bench) -> None:
    async with bench.observing() as observer:
        watch = observer._client.watch

        def impatient(resource_type, **options):
            return watch(resource_type, **options, idle_s=1.0)

        observer._client.watch = impatient
        # A byte a second: what happens is on its way, and never arrives.
        await bench.cluster.inject(Faults(body_rate=1, paths="/configmaps"))
        bench.cluster.drop_watches()
        stuck = {"metadata": {"name": "stuck", "namespace": "default"}}
        bench.cluster.state.seed_object("configmaps", stuck)
        await wait_for(lambda: _is(observer, "stale"), "the silence to be noticed")
        await bench.cluster.inject(Faults())
        await bench.until_told(("created", "stuck"))
        assert bench.published.gaps() == []
        await wait_for(lambda: bench.is_live(observer), "the observer to be live")


async def test_a_clock_that_jumps_loses_neither_the_lease_nor_a_change(bench, monkeypatch) -> None:
    real = time.time
    async with bench.observing() as observer:
        for jump in (86_400.0, -86_400.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            name = f"after-{'minus' if jump < 0 else 'plus'}"
            probed = observer.state().as_of
            await bench.create(name)
            await bench.until_told(("created", name))

            async def probed_again(before: float | None = probed) -> bool:
                return observer.state().as_of != before

            await wait_for(probed_again, "a probe by the new clock", 15)
            assert observer.state().status == "live"
            assert not bench.running.done()


async def _is(observer, status: str) -> bool:
    return observer.state(["configmaps"]).status == status
