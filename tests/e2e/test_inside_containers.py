"""A newcomer at a terminal, inside the containers of two clusters: one of them a real node.

The tests stand in the order of the day: logs of a deployment are followed in both
clusters, a line of a pod that died is found, a terminal is opened, a file edited,
its mode mended, a tree uploaded, and all that is seen again afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.images import BUSYBOX
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

REAL, SIMULATED = "inside-real", "inside-sim"
SPACE = "inside"
LAST_WORDS = "the last words of a pod"
SCRIPT = f"echo {LAST_WORDS} $HOSTNAME; while true; do echo level=info tick; sleep 1; done"


def deployment(image: str) -> str:
    container = {
        "name": "web",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SCRIPT],
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    metadata = {"name": "web", "namespace": SPACE}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})


@dataclass
class Day:
    """The real cluster as kubectl sees it, and a terminal with `kubelore`."""

    kubectl: Any
    terminal: Any

    async def done(self, *arguments: str, **environment: str) -> str:
        """What a command printed; it must succeed."""
        said = await self.terminal(*arguments, environment=environment)
        assert said.code == 0, f"{arguments}: {said.err}\n{said.out}"
        return said.out

    async def pod(self) -> str:
        """The pod of the deployment that runs in the real cluster."""
        found: list[str] = []

        async def runs() -> bool:
            said = json.loads(await self.kubectl("get", "pods", "-n", SPACE, "-l", "app=web", "-o", "json"))
            found[:] = [
                one["metadata"]["name"]
                for one in said["items"]
                if one["status"]["phase"] == "Running" and not one["metadata"].get("deletionTimestamp")
            ]
            return len(found) == 1

        await wait_for(runs, "the pod to run", 60)
        return found[0]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def day(kubelore, command_line, lab_node) -> AsyncIterator[Day]:
    real = lab_node.plane.kubectl()
    await real("create", "namespace", SPACE)
    await real("apply", "-f", "-", stdin=deployment(BUSYBOX))
    async with SimulatedFleet(clusters=0, demo=True) as fleet:
        await kubelore.onboard(REAL, lab_node.plane.kubeconfig())
        await kubelore.onboard(SIMULATED, fleet[0].kubeconfig)
        terminal = command_line(kubelore.url, kubelore.token)
        made = await terminal("apply", "--cluster", SIMULATED, "-f", "-", stdin=_simulated())
        assert made.code == 0, made.err
        yield Day(real, terminal)
        for name in (REAL, SIMULATED):
            await kubelore.remove(name)
    await real("delete", "namespace", SPACE, "--wait=false", "--ignore-not-found")


def _simulated() -> str:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    return f"{json.dumps(space)}\n---\n{deployment('web:1')}\n"


async def test_the_logs_of_a_deployment_are_followed_in_both_clusters(day: Day) -> None:
    await day.pod()
    following = await day.terminal.start("logs", "-f", "deploy/web", "-n", SPACE, "-o", "json")
    assert following.stdout is not None
    seen: set[str] = set()
    try:
        async with asyncio.timeout(60):
            while seen != {REAL, SIMULATED}:
                line = json.loads(await following.stdout.readline())
                seen.add(line.get("cluster", ""))
                seen.discard("")
    finally:
        following.terminate()
        await following.wait()


async def test_a_line_of_a_pod_that_is_gone_is_found(day: Day) -> None:
    await day.done("logs-policy", "set", "inside", "--cluster", REAL, "-n", SPACE)
    died = await day.pod()

    async def collected() -> bool:
        return json.loads(await day.done("logs-policy", "get", "inside", "-o", "json"))["held"]["lines"] > 0

    await wait_for(collected, "lines to be kept", 60)
    await day.kubectl("delete", "pod", died, "-n", SPACE, "--wait")
    words = ("logs", died, "--stored", "--grep", "last words", "--cluster", REAL, "-n", SPACE)
    assert f"{LAST_WORDS} {died}" in await day.done(*words)
    await day.done("logs-policy", "delete", "inside", "--logs")


async def test_a_terminal_is_opened_and_can_be_replayed(day: Day) -> None:
    pod = await day.pod()
    code, shown = await _typed(day, ["echo he''llo from $HOSTNAME", "stty size", "exit 7"], pod)
    assert code == 7, shown
    assert f"hello from {pod}" in shown
    listed = json.loads(await day.done("operations", "--pod", pod, "--type", "exec", "-o", "json"))
    terminal = next(one for one in listed["items"] if one["session_id"])
    replayed = await day.done("replay", terminal["id"], "--speed", "100")
    assert f"hello from {pod}" in replayed


async def test_a_file_is_edited_and_its_mode_mended(day: Day, tmp_path: Path) -> None:
    pod = await day.pod()
    place = (pod, "/data/settings.ini")
    where = ("--cluster", REAL, "-n", SPACE)
    await day.done("exec", pod, *where, "--", "sh", "-c", "echo depth=1 > /data/settings.ini")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/depth=1/depth=2/ "$1"\n')
    editor.chmod(0o755)
    await day.done("edit-file", *place, *where, EDITOR=str(editor))
    await day.done("files", "chmod", "0640", *place, *where)
    said = await day.kubectl("exec", pod, "-n", SPACE, "--", "sh", "-c", "cat $0; stat -c %a $0", place[1])
    assert said.split() == ["depth=2", "640"]
    assert "settings.ini" in await day.done("ls", pod, "/data", *where)


async def test_a_tree_is_uploaded_and_all_that_was_done_is_on_record(day: Day, tmp_path: Path) -> None:
    pod = await day.pod()
    tree = tmp_path / "site"
    (tree / "pages").mkdir(parents=True)
    (tree / "pages" / "it's here.html").write_text("<p>here</p>")
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    await day.done("cp", str(tree), f"{SPACE}/{pod}:/data", "--cluster", REAL)
    ran = await day.kubectl("exec", pod, "-n", SPACE, "--", "/data/site/run")
    assert ran.strip() == "ran"
    page = await day.kubectl("exec", pod, "-n", SPACE, "--", "cat", "/data/site/pages/it's here.html")
    assert page == "<p>here</p>"
    told = await day.done("operations", "--cluster", REAL, "-n", SPACE)
    assert {"exec", "file", "log"} <= set(told.split())


async def _typed(day: Day, lines: list[str], pod: str) -> tuple[int, str]:
    """A terminal on a real pty: each line is typed once the prompt is there; its exit code and what it showed."""
    ours, theirs = pty.openpty()
    process = await day.terminal.start(*("exec", "-it", pod, "--cluster", REAL, "-n", SPACE), tty=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = bytearray()

    async def prompts(count: int) -> bool:
        with suppress(BlockingIOError, OSError):
            while piece := os.read(ours, 65536):
                shown.extend(piece)
        return shown.count(b"# ") >= count or process.returncode is not None

    try:
        for number, line in enumerate(lines, 1):
            await wait_for(lambda number=number: prompts(number), f"prompt {number}: {bytes(shown)!r}", 30)
            os.write(ours, line.encode() + b"\r")
        async with asyncio.timeout(20):
            await process.wait()
        await prompts(0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    return process.returncode or 0, shown.decode(errors="replace")
