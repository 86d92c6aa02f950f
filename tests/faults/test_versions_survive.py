"""Plugs pulled under load: every change that a watch of the API server tells has one version, whatever was killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from kubelore.common.bus import Leases, connect
from kubelore.common.contracts.changes import partition_of
from kubelore.lab.waiting import wait_for

from .versions import (
    NamedWriter,
    RawWatch,
    assert_content,
    assert_sound,
    history,
    places,
    recorded,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

CHANGES = int(os.environ.get("KUBELORE_FAULT_CHANGES", "10000"))
WRITERS = 6
IN_TURN = ("yaml-vcs", "nats", "mongo", "resource-ops")
CAUGHT_UP_S = 240
EVERY_NTH_CONTENT = 25


@pytest_asyncio.fixture(loop_scope="session")
async def raw_watch(plane) -> AsyncIterator[RawWatch]:
    watching = RawWatch(plane)
    task = asyncio.create_task(watching.run())
    await wait_for(_condition(lambda: watching.rv > 0), "the test's own watch to begin")
    yield watching
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def writers(plane) -> AsyncIterator[list[NamedWriter]]:
    made = [NamedWriter(plane, number) for number in range(WRITERS)]
    yield made
    await asyncio.gather(*(one.close() for one in made))


@asynccontextmanager
async def writing(writers: list[NamedWriter], changes: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(one.write(changes // len(writers))) for one in writers]
        stack.push_async_callback(asyncio.gather, *tasks, return_exceptions=True)
        stack.callback(lambda: [task.cancel() for task in tasks])
        yield tasks


async def test_ten_thousand_changes_have_one_version_each_while_every_part_is_killed_in_turn(
    own_kubelore, plane, writers, raw_watch
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    kills = [*IN_TURN, *IN_TURN]
    async with writing(writers, CHANGES) as tasks:
        for number, process in enumerate(kills, 1):
            due = CHANGES * number // (len(kills) + 1)
            await wait_for(_condition(lambda due=due: raw_watch.count >= due), f"{due} changes", 120)
            os.kill(own_kubelore.pid(process), signal.SIGKILL)
        await asyncio.gather(*tasks)
    await _caught_up(own_kubelore, writers, raw_watch)
    assert raw_watch.count > CHANGES * 0.9
    await _assert_equal(own_kubelore, raw_watch)


async def test_of_two_recorders_the_one_that_is_killed_leaves_nothing_undone_and_nothing_doubled(
    tmp_path: Path, start_kubelore, plane, writers, raw_watch
) -> None:
    async with start_kubelore(tmp_path / "kubelore", yaml_vcs=2) as kubelore:
        await kubelore.onboard("victim", plane.kubeconfig())
        async with writing(writers, 1500) as tasks:
            for number in (1, 2):
                due = 500 * number
                await wait_for(_condition(lambda due=due: raw_watch.count >= due), f"{due} changes", 60)
                process, replica = await _recorder(kubelore)
                os.kill(process.pid, signal.SIGKILL)
                await wait_for(lambda old=replica: _taken_over(kubelore, old), "a recorder to take over", 30)
            await asyncio.gather(*tasks)
        await _caught_up(kubelore, writers, raw_watch)
        await _assert_equal(kubelore, raw_watch)


async def test_what_the_api_server_forgot_is_told_as_met_or_vanished_at_its_place_in_the_history(
    own_kubelore, plane, writers, raw_watch
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    await _write(writers, 300)
    await _caught_up(own_kubelore, writers, raw_watch)
    before = {name: list(told) for name, told in raw_watch.told.items()}
    lived = raw_watch.live()

    paused = own_kubelore.pid("resource-ops")
    os.kill(paused, signal.SIGSTOP)
    try:
        # Its watches must be cut before anything is written, or the socket's buffer keeps the events for it.
        await plane.kill("apiserver")
        await plane.restart("apiserver")
        await _write(writers, 300)
        await wait_for(_told(writers, raw_watch), "the test's own watch to hear of it", 30)
        await plane.expire_history()
    finally:
        os.kill(paused, signal.SIGCONT)
    after = {name: list(told) for name, told in raw_watch.told.items()}
    live = raw_watch.live()

    async def met() -> bool:
        found = {name: places(await history(own_kubelore, name)) for name in after}
        return all(found[name] and found[name][-1][2] == told.rv for name, told in live.items()) and all(
            found[name][-1][0] in ("vanished", "deleted") for name in lived if name not in live
        )

    await wait_for(met, "the gap to be recorded", CAUGHT_UP_S)
    for name, told in after.items():
        versions = await history(own_kubelore, name)
        known = [one.place for one in before.get(name, [])]
        assert places(versions)[: len(known)] == known, name
        gap = places(versions)[len(known) :]
        if name in live:
            unchanged = name in lived and lived[name].rv == live[name].rv
            assert gap == ([] if unchanged else [("observed", told[-1].uid, told[-1].rv)]), name
        elif name in lived:
            assert [one[:2] for one in gap] == [("vanished", lived[name].uid)], name
        else:
            assert gap == [], name
        if versions:
            await assert_sound(own_kubelore, name, versions)
    assert any(name in lived and name not in live for name in after), "nothing was deleted in the gap"
    assert any(lived[name].rv != live[name].rv for name in lived if name in live)

    lengths = {name: len(told) for name, told in after.items()}
    await _write(writers, 120)
    await _caught_up(own_kubelore, writers, raw_watch, lengths)
    for name, told in raw_watch.told.items():
        later = [one.place for one in told[lengths.get(name, 0) :]]
        assert not later or places(await history(own_kubelore, name))[-len(later) :] == later, name


async def _write(writers: list[NamedWriter], changes: int) -> None:
    await asyncio.gather(*(one.write(changes // len(writers)) for one in writers))


def _condition(true: Callable[[], bool]) -> Callable[[], Any]:
    async def asked() -> bool:
        return true()

    return asked


def _told(writers: list[NamedWriter], watch: RawWatch) -> Callable[[], Any]:
    return _condition(lambda: watch.rv >= max(one.last_rv for one in writers))


async def _caught_up(
    kubelore: Any, writers: list[NamedWriter], watch: RawWatch, since: Mapping[str, int] | None = None
) -> None:
    await wait_for(_told(writers, watch), "the test's own watch to hear of everything", 60)
    done = partial(recorded, kubelore, watch, since or {})
    await wait_for(done, "the last change of each object to be recorded", CAUGHT_UP_S)


async def _assert_equal(kubelore: Any, watch: RawWatch) -> None:
    """Every history tells what the watch told, each change once, in order; and holds it."""
    for name, told in watch.told.items():
        versions = await history(kubelore, name)
        assert places(versions) == [one.place for one in told], name
        await assert_sound(kubelore, name, versions)
        for number in {*range(1, len(told) + 1, EVERY_NTH_CONTENT), len(told)}:
            await assert_content(kubelore, name, number, told[number - 1])


async def _holder(kubelore: Any) -> str:
    bus = await connect(kubelore.bus_settings(), name="witness")
    try:
        held = await Leases(bus).holders("partition.yaml-vcs.")
        return held.get(f"partition.yaml-vcs.p{partition_of('victim'):02d}", "")
    finally:
        await bus.close()


async def _recorder(kubelore: Any) -> tuple[Any, str]:
    """The process that records the cluster, and its name on the bus."""
    holder = await wait_for(lambda: _holder(kubelore), "somebody to record the cluster", 30)
    for number in (1, 2):
        process = kubelore.process(f"yaml-vcs-{number}")
        if psutil.Process(process.pid).environ().get("KUBELORE_REPLICA") == holder:
            return process, holder
    raise AssertionError(f"no process is {holder}")


async def _taken_over(kubelore: Any, before: str) -> bool:
    return await _holder(kubelore) not in ("", before)
