"""Logs of one container on a real kubelet: what kubectl reads is what must come, once and in order."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.logs import LogFilter
from kubelore.common.errors import AlreadyExists, KubeloreError
from kubelore.common.kube import AddressPolicy, KubeClient, read_kubeconfig
from kubelore.common.kube.resource_type import NAMESPACES, PODS
from kubelore.common.reach import Reached
from kubelore.container_ops.following import Following, LogGap, follow_container
from kubelore.container_ops.lines import Cursor, LineSplitter, LogLine
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_pages import Page, Reading, backward_page, forward_page
from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX
from kubelore.lab.kubectl import kubectl_program
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

POLICY = AddressPolicy(allow_private=True)
NAMESPACE = "lines-contract"
COUNT = 'i=0; while [ $i -lt {lines} ]; do echo "line $i of run"; i=$((i+1)); done'


@dataclass
class Writer:
    """A namespace in which pods write logs, with kubectl beside it."""

    client: KubeClient
    kubeconfig: Path

    @property
    def reached(self) -> Reached:
        return Reached(self.client, 1)

    async def start(self, name: str, script: str, *, restart: str = "Never") -> ContainerId:
        container = {
            "name": "app",
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", script],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": 0},
        }

        async def created() -> bool:
            """The namespace's default service account comes a moment after the namespace."""
            with suppress(KubeloreError):
                await self.client.create(PODS, NAMESPACE, json.dumps(pod).encode())
                return True
            return False

        await wait_for(created, "the pod can be created", 20)
        return ContainerId("lab", NAMESPACE, name, "app")

    async def state(self, name: str) -> dict[str, Any]:
        status = json.loads(await self.client.get(PODS, NAMESPACE, name))["status"]
        return (status.get("containerStatuses") or [{}])[0]

    async def until(self, name: str, state: str) -> None:
        async def is_so() -> bool:
            return state in (await self.state(name)).get("state", {})

        await wait_for(is_so, f"{name} to be {state}", 120)

    def follow(self, target: ContainerId, **options: Any) -> Following:
        return follow_container(self.reached, target, **options)

    async def kubectl(self, name: str, *options: str) -> list[LogLine]:
        command = [kubectl_program(), "--kubeconfig", self.kubeconfig, "logs", "-n", NAMESPACE, name]
        found = await asyncio.to_thread(
            subprocess.run, [*map(str, command), "--timestamps", *options], capture_output=True, check=True
        )
        return LineSplitter().feed(found.stdout)


async def all_of(following: Following) -> list[LogLine]:
    """Lines until the following ends; a gap fails."""
    lines: list[LogLine] = []
    async with asyncio.timeout(120), aclosing(following) as items:
        async for item in items:
            assert not isinstance(item, LogGap), item
            if isinstance(item, list):
                lines += item
    return lines


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def writer(lab_node: LabNode) -> AsyncIterator[Writer]:
    kubeconfig = lab_node.plane.kubeconfig()
    async with KubeClient(read_kubeconfig(kubeconfig, None, POLICY), POLICY) as client:
        with suppress(AlreadyExists):
            await client.create(NAMESPACES, None, json.dumps({"metadata": {"name": NAMESPACE}}).encode())
        yield Writer(client, lab_node.plane.kubeconfig_file())
        await client.delete(NAMESPACES, None, NAMESPACE)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def counted(writer: Writer) -> ContainerId:
    """A container that has written 5,000 lines and ended."""
    target = await writer.start("counted", COUNT.format(lines=5000))
    await writer.until("counted", "terminated")
    return target


async def test_following_brings_what_kubectl_reads(writer: Writer) -> None:
    target = await writer.start("burst", COUNT.format(lines=20_000))
    lines = await all_of(writer.follow(target))
    assert lines == await writer.kubectl("burst")
    assert len(lines) == 20_000


async def test_following_goes_on_from_a_position_without_loss_or_repetition(writer: Writer) -> None:
    target = await writer.start("resumed", COUNT.format(lines=20_000) + "; sleep 2; echo end")
    lines: list[LogLine] = []
    cursor = Cursor()
    for _ in range(5):
        async with aclosing(writer.follow(target, cursor=cursor)) as following:
            async for item in following:
                if isinstance(item, list):
                    lines += item
                    cursor = following.cursor
                    break
    lines += await all_of(writer.follow(target, cursor=cursor))
    assert lines == await writer.kubectl("resumed")


async def test_the_rest_of_a_former_run_comes_before_the_next_one(writer: Writer) -> None:
    script = COUNT.format(lines=300) + "; sleep 1; echo last words"
    target = await writer.start("restarting", script, restart="Always")
    texts: list[bytes] = []
    async with asyncio.timeout(120), aclosing(writer.follow(target)) as following:
        async for item in following:
            assert not isinstance(item, LogGap), item
            if isinstance(item, list):
                texts += [line.text for line in item]
                if texts.count(b"last words") == 2:
                    break
    run = [b"line %d of run" % number for number in range(300)] + [b"last words"]
    assert texts == run + run


async def test_a_run_that_ended_while_nobody_followed_is_read_to_its_end(writer: Writer) -> None:
    script = COUNT.format(lines=300) + "; sleep 4; echo last words"
    target = await writer.start("left", script, restart="Always")
    async with asyncio.timeout(60), aclosing(writer.follow(target)) as following:
        async for item in following:
            if isinstance(item, list) and item[-1].text == b"line 299 of run":
                break
    cursor = following.cursor

    async def restarted() -> bool:
        state = await writer.state("left")
        return state["restartCount"] == 1 and "running" in state["state"]

    await wait_for(restarted, "the next run", 60)
    texts: list[bytes] = []
    async with asyncio.timeout(60), aclosing(writer.follow(target, cursor=cursor)) as following:
        async for item in following:
            assert not isinstance(item, LogGap), item
            if isinstance(item, list):
                texts += [line.text for line in item]
                if b"line 299 of run" in texts:
                    break
    assert texts == [b"last words"] + [b"line %d of run" % number for number in range(300)]


async def test_a_line_of_ten_megabytes_without_an_end_comes_whole_in_pieces(writer: Writer) -> None:
    target = await writer.start("endless", "head -c 10485760 /dev/zero | tr '\\0' y")
    lines = await all_of(writer.follow(target))
    assert sum(len(line.text) for line in lines) == 10_485_760
    assert max(len(line.text) for line in lines) <= 256 * 1024


async def test_following_a_pod_that_is_deleted_ends(writer: Writer) -> None:
    target = await writer.start("deleted", "echo here; sleep 600")
    await writer.until("deleted", "running")
    kinds: list[str] = []
    async with asyncio.timeout(60), aclosing(writer.follow(target)) as following:
        async for item in following:
            if isinstance(item, list):
                await writer.client.delete(PODS, NAMESPACE, "deleted")
            elif not isinstance(item, LogGap):
                kinds.append(item.kind)
    assert kinds[-1] == "ended"


async def test_forward_pages_are_what_kubectl_reads(writer: Writer, counted: ContainerId) -> None:
    reading = Reading(writer.reached, counted, LineFilter(LogFilter()), 700)
    pages = [page async for page in _pages(reading, forward_page)]
    assert [line for page in pages for line in page.lines] == await writer.kubectl("counted")
    assert {len(page.lines) for page in pages[:-1]} == {700}


async def test_backward_pages_are_the_same_the_latest_first(writer: Writer, counted: ContainerId) -> None:
    reading = Reading(writer.reached, counted, LineFilter(LogFilter()), 700)
    pages = [page async for page in _pages(reading, backward_page)]
    assert [line for page in pages for line in page.lines] == (await writer.kubectl("counted"))[::-1]


@pytest.mark.parametrize("read", [forward_page, backward_page])
async def test_pages_of_a_search_hold_every_hit(writer: Writer, counted: ContainerId, read: Any) -> None:
    reading = Reading(writer.reached, counted, LineFilter(LogFilter(regex="line [0-9]*77 ")), 3)
    found = [line async for page in _pages(reading, read) for line in page.lines]
    expected = [line for line in await writer.kubectl("counted") if line.text.split()[1].endswith(b"77")]
    assert sorted(found, key=lambda line: line.at) == expected
    assert len(expected) == 50


async def test_the_last_lines_are_kubectls(writer: Writer, counted: ContainerId) -> None:
    reading = Reading(writer.reached, counted, LineFilter(LogFilter()), 100, tail=50)
    expected = await writer.kubectl("counted", "--tail=50")
    assert (await forward_page(reading, "")).lines == expected
    assert (await backward_page(reading, "")).lines == expected[::-1]


async def _pages(reading: Reading, read: Any) -> AsyncIterator[Page]:
    position = ""
    while True:
        page = await read(reading, position)
        yield page
        position = page.next
        if not position:
            return
