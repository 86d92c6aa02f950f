"""A gateway that is killed while people change things: whatever was answered is in the audit log, and the log is whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import httpx
import pytest

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.timeout(240)

INSPECT = "/api/k8s/clusters/inspect"
KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n"
WRITERS = 8
KILLS = 3


class Writers:
    """People who change things through the first gateway, and remember which operations were answered."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.answered: list[str] = []

    async def write(self) -> None:
        while True:
            try:
                answer = await self._http.post(INSPECT, json={"kubeconfig": KUBECONFIG})
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 200:
                self.answered.append(answer.headers["operation-id"])
            else:
                assert answer.status_code in (502, 503, 504), answer.text
                await asyncio.sleep(0.05)

    def at_least(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def so() -> bool:
            return len(self.answered) >= count

        return so


async def test_every_answered_change_has_its_entry_after_the_gateway_was_killed(own_kubelore) -> None:
    writers = Writers(own_kubelore.http)
    writing = [asyncio.create_task(writers.write()) for _ in range(WRITERS)]
    try:
        for kill in range(KILLS):
            await wait_for(writers.at_least(len(writers.answered) + 200), f"changes before kill {kill}", 60)
            os.kill(own_kubelore.pid("gateway"), signal.SIGKILL)
        await wait_for(writers.at_least(len(writers.answered) + 200), "changes after the last kill", 60)
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

    entries = await everything(own_kubelore.http)
    ended = {entry["operation_id"] for entry in entries if entry["outcome"] == "ok"}
    assert set(writers.answered) <= ended
    unknown = [entry for entry in entries if entry["outcome"] == "unknown"]
    assert len(unknown) <= WRITERS * KILLS + WRITERS
    assert {entry["action"] for entry in entries} == {"clusters.inspect"}

    verify = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kubelore.cli",
        f"--data={own_kubelore.data}",
        "audit",
        "verify",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(verify.communicate(), 60)
    assert verify.returncode == 0, said.decode()
    assert len(said.splitlines()) > KILLS


async def everything(http: httpx.AsyncClient) -> list[dict]:
    found, token = [], None
    while True:
        query = {"action": "clusters.inspect", "limit": 1000, **({"continue": token} if token else {})}
        answer = await http.get("/api/audit", params=query)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        token = answer.json()["continue"]
        if token is None:
            return found
