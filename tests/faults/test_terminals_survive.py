"""Plugs pulled in the middle of a terminal: it goes on where it can, and a clear word comes where it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.timeout(240)

CLUSTER = "breaking"
STDIN, STDOUT, STATUS = 0, 1, 3


class Shell:
    """A terminal in a pod of kubesim, and the connections to it."""

    def __init__(self, kubelore: Any, fleet: AsyncExitStack, http: aiohttp.ClientSession, pod: str) -> None:
        self.kubelore = kubelore
        self.fleet = fleet
        self._http = http
        self._path = f"/api/k8s/containers/{pod}/exec"
        self._session = ""

    async def open(self) -> Any:
        async with self._http.post(f"{self._path}/terminal", json={"command": ["sh"]}) as answer:
            assert answer.status == 201, await answer.text()
            self._session = (await answer.json())["session_id"]
        return await self.attach()

    async def attach(self) -> Any:
        query = {"session": self._session}
        return await self._http.ws_connect(f"{self._path}/ws", params=query, protocols=("v5.channel.k8s.io",))

    async def attach_again(self) -> Any:
        return await wait_for(
            self.attach, "the terminal to be attached to again", 60, ignoring=(aiohttp.ClientError,)
        )

    def kill(self, process: str) -> None:
        os.kill(self.kubelore.pid(process), signal.SIGKILL)


@pytest_asyncio.fixture(loop_scope="session")
async def shell(own_kubelore) -> AsyncIterator[Shell]:
    headers = {"Authorization": f"Bearer {own_kubelore.token}"}
    async with (
        AsyncExitStack() as stack,
        aiohttp.ClientSession(own_kubelore.url, headers=headers) as http,
    ):
        fleet = await stack.enter_async_context(SimulatedFleet(clusters=1, pods=12))
        await own_kubelore.onboard(CLUSTER, fleet[0].kubeconfig)
        page = await own_kubelore.list(clusters=CLUSTER, type="pods", limit=100)
        pod = next(
            item["id"].replace(":pods:", ":", 1)
            for item in page["items"]
            if item["object"]["status"]["phase"] == "Running"
        )
        yield Shell(own_kubelore, stack, http, pod)


async def _shown(socket: Any, text: bytes) -> bytes:
    shown = b""
    async with asyncio.timeout(20):
        while text not in shown:
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, (message, shown)
            shown += message.data[1:] if message.data[0] == STDOUT else b""
    return shown


async def _typed(socket: Any, text: str) -> None:
    await socket.send_bytes(bytes([STDIN]) + text.encode())


async def _last_word(socket: Any) -> str:
    """What the Status at the end says; empty when the connection was cut without one."""
    said = ""
    async with asyncio.timeout(40):
        async for message in socket:
            if message.data[0] == STATUS:
                said = json.loads(message.data[1:])["message"]
    return said


async def test_a_gateway_that_is_killed_takes_no_terminal_along(shell: Shell) -> None:
    socket = await shell.open()
    await _typed(socket, "echo before\n")
    await _shown(socket, b"\r\nbefore")
    shell.kill("gateway")
    assert await _last_word(socket) == ""
    again = await shell.attach_again()
    assert b"before" in await _shown(again, b"before")
    await _typed(again, "echo after\n")
    await _shown(again, b"\r\nafter")


async def test_a_replica_that_is_killed_is_told_to_whoever_is_attached(shell: Shell) -> None:
    socket = await shell.open()
    await _shown(socket, b"# ")
    shell.kill("container-ops")
    assert "went silent" in await _last_word(socket)
    await shell.kubelore.until_live(CLUSTER)


async def test_a_bus_that_is_killed_takes_no_terminal_along(shell: Shell) -> None:
    socket = await shell.open()
    await _typed(socket, "echo before\n")
    await _shown(socket, b"\r\nbefore")
    shell.kill("nats")
    again = await shell.attach_again()
    assert b"before" in await _shown(again, b"before")
    await _typed(again, "echo after\n")
    await _shown(again, b"\r\nafter")


async def test_an_api_server_that_goes_away_is_told_to_whoever_is_attached(shell: Shell) -> None:
    socket = await shell.open()
    await _shown(socket, b"# ")
    await shell.fleet.aclose()
    assert "broke before the command ended" in await _last_word(socket)
