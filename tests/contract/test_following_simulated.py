"""Following over what a real kubelet does only now and then: rotations that end a follow or silence it, and no inotify."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.kube import AddressPolicy, KubeClient, read_kubeconfig
from kubelore.common.kube.resource_type import PODS
from kubelore.common.reach import Reached
from kubelore.container_ops import following
from kubelore.container_ops.following import LogGap, LogNote, follow_container
from kubelore.container_ops.line_content import level_of
from kubelore.kubesim.app import SimulatedFleet
from kubelore.kubesim.logs import OPTIONS
from kubelore.kubesim.simulated import SimulatedCluster
from kubelore.lab.waiting import wait_for

POLICY = AddressPolicy(allow_private=True)
NUMBER = re.compile(rb"line (\d+)")


class Simulated:
    """A simulated cluster, where pods log as their annotation says."""

    def __init__(self, client: KubeClient, cluster: SimulatedCluster) -> None:
        self.client = client
        self.cluster = cluster

    async def start(self, name: str, options: str) -> ContainerId:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "annotations": {OPTIONS: options}},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        }
        await self.client.create(PODS, "default", json.dumps(pod).encode())

        async def running() -> bool:
            return json.loads(await self.client.get(PODS, "default", name))["status"]["phase"] == "Running"

        await wait_for(running, f"{name} runs", 30)
        return ContainerId("sim", "default", name, "app")

    async def numbers(self, target: ContainerId, count: int, **options: Any) -> tuple[list[int], list[Any]]:
        """The numbers of the first lines, and what else was said before the last of them."""
        found: list[int] = []
        said: list[Any] = []
        log = follow_container(Reached(self.client, 1), target, **options)
        async with asyncio.timeout(60), aclosing(log) as items:
            async for item in items:
                if isinstance(item, list):
                    found += [int(match[1]) for line in item if (match := NUMBER.search(line.text))]
                    if len(found) >= count:
                        break
                else:
                    said.append(item)
        return found, said


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def simulated() -> AsyncIterator[Simulated]:
    async with (
        SimulatedFleet(clusters=0, demo=True) as fleet,
        KubeClient(read_kubeconfig(fleet[0].kubeconfig, None, POLICY), POLICY) as client,
    ):
        yield Simulated(client, fleet[0])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "QUIET_S", 0.5)
    monkeypatch.setattr(following, "POLL_S", 0.2)


async def test_a_follow_that_ends_at_a_rotation_goes_on(simulated: Simulated) -> None:
    target = await simulated.start("ends", "rate=100 rotate=150 follow=ends")
    found, said = await simulated.numbers(target, 400)
    lost = _marked(said)
    assert found == sorted(set(found))
    assert _holes(found) <= lost


async def test_a_follow_that_falls_silent_at_a_rotation_is_noticed(simulated: Simulated) -> None:
    target = await simulated.start("silent", "rate=100 rotate=400 follow=silent")
    found, said = await simulated.numbers(target, 600)
    assert found == sorted(set(found))
    assert _holes(found) <= _marked(said)


async def test_a_node_without_inotify_is_polled_and_the_reader_is_told(simulated: Simulated) -> None:
    target = await simulated.start("blind", "rate=100 follow=inotify")
    found, said = await simulated.numbers(target, 300)
    assert found == list(range(found[0], found[0] + len(found)))
    notes = [note.text for note in said if isinstance(note, LogNote) and note.kind == "polling"]
    assert len(notes) == 1
    assert "fs.inotify.max_user_instances" in notes[0]


async def test_long_lines_and_levels_come_through(simulated: Simulated) -> None:
    target = await simulated.start("json", "rate=20 style=json")
    log = follow_container(Reached(simulated.client, 1), target)
    async with asyncio.timeout(20), aclosing(log) as items:
        levels: set[str | None] = set()
        async for item in items:
            if isinstance(item, list):
                levels |= {level_of(line.text) for line in item}
                if len(levels) == 4:
                    break
    assert levels == {"debug", "info", "warn", "error"}


async def test_an_api_server_that_goes_and_comes_back_loses_and_repeats_nothing(simulated: Simulated) -> None:
    target = await simulated.start("broken", "rate=200")
    log = follow_container(Reached(simulated.client, 1), target)
    found: list[int] = []
    kinds: list[str] = []
    cluster = simulated.cluster
    async with asyncio.timeout(60), aclosing(log) as items:
        async for item in items:
            assert not isinstance(item, LogGap), item
            if isinstance(item, LogNote):
                kinds.append(item.kind)
                if item.kind == "interrupted":
                    await cluster.listen()
                continue
            before = len(found)
            found += [int(match[1]) for line in item if (match := NUMBER.search(line.text))]
            if before < 200 <= len(found):
                await cluster.close()
            if len(found) >= 800:
                break
    assert found == list(range(found[0], found[0] + len(found)))
    assert kinds[:2] == ["interrupted", "resumed"]


async def test_a_connection_that_is_cut_in_the_middle_of_a_line_is_mended(simulated: Simulated) -> None:
    target = await simulated.start("cut", "rate=50 style=long")
    log = follow_container(Reached(simulated.client, 1), target)
    texts: list[bytes] = []
    whole, cuts = True, 0
    async with asyncio.timeout(60), aclosing(log) as items:
        async for item in items:
            assert not isinstance(item, LogGap), item
            for line in item if isinstance(item, list) else ():
                if whole:
                    texts.append(b"")
                texts[-1] += line.text
                whole = line.whole
                if not whole and cuts < 3:
                    cuts += 1
                    await simulated.cluster.close()
                    await simulated.cluster.listen()
            if len(texts) > 100:
                break
    numbers = [int(match[1]) for text in texts if (match := NUMBER.match(text))]
    assert numbers == list(range(numbers[0], numbers[0] + len(texts)))
    assert {len(text) for text in texts[:-1]} <= {*range(17, 30), *range(600_000, 600_020)}
    assert cuts == 3


def _marked(said: list[Any]) -> int:
    return sum(isinstance(one, LogGap) for one in said)


def _holes(found: list[int]) -> int:
    return sum(later != number + 1 for number, later in itertools.pairwise(found))
