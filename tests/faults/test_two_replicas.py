"""Two replicas of every service, each process of them killed in turn under load: nothing is lost, all goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SERVICES = ("resource-ops", "cluster-registry", "gateway", "yaml-vcs", "container-ops")
PROCESSES = ("nats", "mongo", *(f"{service}-{number}" for service in SERVICES for number in (1, 2)))


@pytest_asyncio.fixture(loop_scope="session")
async def own_kubelore(tmp_path: Path, start_kubelore) -> AsyncIterator[Any]:
    """In place of the one with single replicas: what the other fixtures stand on."""
    twice = {service.replace("-", "_"): 2 for service in SERVICES}
    async with start_kubelore(tmp_path / "kubelore", **twice) as running:
        yield running


class Follower:
    """A client of the live watch, as a browser would be: it resumes where it was, at whichever gateway answers.

    After a `reset` it lists, and counts what is there as told.
    """

    def __init__(self, kubelore) -> None:
        self._kubelore = kubelore
        self._last = ""
        self.told: set[tuple[str, str]] = set()
        """(uid, resourceVersion) of every object that came."""
        self.deleted: set[str] = set()
        self.resets: list[dict[str, Any]] = []
        self.connections = 0
        self.listening = asyncio.Event()

    async def run(self) -> None:
        turn = 0
        while True:
            with suppress(httpx.HTTPError):
                await self._follow(self._kubelore.urls[turn % len(self._kubelore.urls)])
            turn += 1
            await asyncio.sleep(0.2)

    async def _follow(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {self._kubelore.token}"}
        if self._last:
            headers["Last-Event-ID"] = self._last
        async with (
            httpx.AsyncClient(base_url=url, headers=headers, timeout=httpx.Timeout(30, read=25)) as http,
            http.stream("GET", "/api/k8s/unified/watch", params={"type": "configmaps"}) as answer,
        ):
            if answer.status_code != 200:
                return
            self.connections += 1
            self.listening.set()
            name = event_id = ""
            async for line in answer.aiter_lines():
                key, _, value = line.partition(": ")
                if key == "id":
                    event_id = value
                elif key == "event":
                    name = value
                elif key == "data":
                    await self._take(name, httpx.Response(200, content=value).json())
                    self._last = event_id

    async def _take(self, name: str, data: dict[str, Any]) -> None:
        if name in ("added", "modified", "deleted"):
            self.told.add((data["object"]["metadata"]["uid"], data["rv"]))
            if name == "deleted":
                self.deleted.add(data["object"]["metadata"]["uid"])
        elif name == "reset":
            self.resets.append(data)

    def has_all(self, writer):
        async def arrived() -> bool:
            return set(writer.written) <= self.told and writer.deleted <= self.deleted

        return arrived


@pytest_asyncio.fixture(loop_scope="session")
async def follower(own_kubelore) -> AsyncIterator[Follower]:
    following = Follower(own_kubelore)
    task = asyncio.create_task(following.run())
    yield following
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Load:
    """Writes for as long as the block runs."""

    def __init__(self, writer) -> None:
        self._writer = writer
        self._done = False

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done = True
        await self._task

    async def _write(self) -> None:
        while not self._done:
            await self._writer.write(5, pause_s=0.03)

    async def more(self, count: int) -> None:
        """Until so many more writes were confirmed."""
        target = self._wrote() + count

        async def enough() -> bool:
            return self._wrote() >= target

        await wait_for(enough, f"{count} more writes", 60)

    def _wrote(self) -> int:
        return len(self._writer.written) + len(self._writer.deleted)


async def kill(kubelore, process: str) -> None:
    """Kill -9, and wait until the supervisor has another in its place that is ready."""
    before = kubelore.pid(process)
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        state = kubelore.process(process)
        return state.pid != before and state.state == "running"

    await wait_for(back, f"another {process}", 60)


async def nothing_lost(kubelore, writer, witness, follower, equals_kubectl) -> None:
    await wait_for(witness.has_all(writer), "every confirmed write to reach the witness", 90)
    await wait_for(follower.has_all(writer), "every confirmed write to reach the live watch", 60)
    await wait_for(equals_kubectl, "the read model to equal kubectl", 90, ignoring=(httpx.HTTPError,))
    await kubelore.until_live("victim", 90)
    witness.assert_in_order()
    assert [gap for gap in witness.gaps if gap.type == "configmaps"] == []
    assert [reset for reset in follower.resets if reset["reason"] == "missed"] == []


async def test_kill_nine_of_every_process_in_turn_loses_no_change_and_no_event(
    own_kubelore, plane, writer, witness, follower, equals_kubectl
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    await asyncio.wait_for(follower.listening.wait(), 30)
    async with Load(writer) as load:
        await load.more(50)
        for process in PROCESSES:
            await kill(own_kubelore, process)
            await load.more(30)
    await nothing_lost(own_kubelore, writer, witness, follower, equals_kubectl)
    assert follower.connections >= 2
    assert len(writer.written) > 200


async def test_watches_cut_again_and_again_lose_nothing(
    own_kubelore, way, writer, witness, follower, equals_kubectl
) -> None:
    await own_kubelore.onboard("victim", way.kubeconfig)
    await asyncio.wait_for(follower.listening.wait(), 30)
    async with Load(writer) as load:
        cut = 0
        for _ in range(5):
            await load.more(40)
            cut += way.cut()
    await nothing_lost(own_kubelore, writer, witness, follower, equals_kubectl)
    assert cut >= 5


async def test_an_api_server_that_is_restarted_under_two_replicas_is_caught_up_with(
    own_kubelore, plane, writer, witness, follower, equals_kubectl
) -> None:
    """What it no longer has lies in a recorded gap, which the live watch tells as a reset."""
    await own_kubelore.onboard("victim", plane.kubeconfig())
    await asyncio.wait_for(follower.listening.wait(), 30)
    async with Load(writer) as load:
        await load.more(60)
        await plane.kill("apiserver")
        await plane.restart("apiserver")
        await load.more(60)
    await wait_for(witness.has_all_but_gaps(writer), "every write to arrive or to lie in a gap", 90)
    await wait_for(equals_kubectl, "the read model to equal kubectl", 90)

    async def told() -> bool:
        missing = set(writer.written) - follower.told
        unsaid = writer.deleted - follower.deleted
        reset = any(one["reason"] == "missed" for one in follower.resets)
        return reset if missing or unsaid else True

    await wait_for(told, "the live watch to have told all, or to have said that something is missing", 60)
    witness.assert_in_order()
