"""A command in a container while what carries it is killed: whoever waits is told, and the history says what is known."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.timeout(240)

CLUSTER = "commanded"
OPERATIONS = "/api/k8s/containers/operations"


class Commands:
    """Runs commands in a pod of kubesim, and finds them in the history."""

    def __init__(self, kubelore: Any, pod: str) -> None:
        self.kubelore = kubelore
        self._path = f"/api/k8s/containers/{pod}/exec"

    async def sleep(self, word: str, seconds: int = 600) -> asyncio.Task[httpx.Response]:
        """A command that lasts, once it is on record; `word` tells it from others."""
        body = {"command": ["sleep", str(seconds), word], "timeout_s": 600}
        asking = asyncio.create_task(self.kubelore.http.post(self._path, json=body, timeout=120))

        async def runs() -> bool:
            return await self.status(word) == "running"

        await wait_for(runs, "the command to run", 20)
        return asking

    async def status(self, word: str) -> str:
        answer = await self.kubelore.http.get(OPERATIONS, params={"text": word})
        assert answer.status_code == 200, answer.text
        return "".join(one["status"] for one in answer.json()["items"])

    async def until(self, word: str, status: str, seconds: float) -> None:
        async def so() -> bool:
            return await self.status(word) == status

        trouble = (httpx.HTTPError, AssertionError)
        await wait_for(so, f"the history to say {status}", seconds, ignoring=trouble)

    def kill(self, process: str) -> None:
        os.kill(self.kubelore.pid(process), signal.SIGKILL)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def commands(tmp_path_factory: pytest.TempPathFactory, start_kubelore) -> AsyncIterator[Commands]:
    starting = start_kubelore(tmp_path_factory.mktemp("commanded") / "kubelore")
    async with SimulatedFleet(clusters=1, pods=12) as fleet, starting as kubelore:
        await kubelore.onboard(CLUSTER, fleet[0].kubeconfig)
        page = await kubelore.list(clusters=CLUSTER, type="pods", fields="status.phase=Running", limit=1)
        yield Commands(kubelore, page["items"][0]["id"].replace(":pods:", ":", 1))


async def test_of_a_command_whose_container_ops_was_killed_nobody_says_how_it_ended(
    commands: Commands,
) -> None:
    asking = await commands.sleep("orphan")
    commands.kill("container-ops")
    answer = await asyncio.wait_for(asking, 60)
    assert answer.status_code == 503, answer.text
    assert answer.json()["outcome"] == "unknown"
    assert "kubelore operations" in answer.json()["remedy"]
    await commands.until("orphan", "unknown", 100)


async def test_a_command_ends_with_the_gateway_that_waited_for_it(commands: Commands) -> None:
    asking = await commands.sleep("left")
    commands.kill("gateway")
    with pytest.raises(httpx.TransportError):
        await asking
    await commands.until("left", "cancelled", 60)


async def test_a_bus_that_is_killed_takes_no_command_along(commands: Commands) -> None:
    asking = await commands.sleep("over-the-bus", 15)
    commands.kill("nats")
    answer = await asyncio.wait_for(asking, 60)
    assert (answer.status_code, answer.json()["exit_code"]) == (200, 0), answer.text
    await commands.until("over-the-bus", "completed", 20)
