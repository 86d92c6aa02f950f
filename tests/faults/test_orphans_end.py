"""container-ops killed under a command and a terminal of a real node: what they ran is ended, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from kubelore.lab.fixtures import LabNode
from kubelore.lab.waiting import wait_for
from kubelore.stack.kept import Kept
from kubelore.stack.layout import DataDirectory
from kubelore.stack.servers import MongoServer

from .boxes import BOX, NAMESPACE, box

pytestmark = [pytest.mark.lab, pytest.mark.node, pytest.mark.timeout(420)]

CONTAINERS = "/api/k8s/containers"
ORPHANED_S = 240.0
"""Silent for a minute, unknown for another, and what a slow machine needs besides."""


async def test_what_a_killed_replica_left_running_is_ended(own_kubelore: Any, lab_node: LabNode) -> None:
    async with box(own_kubelore, lab_node) as kubectl:
        in_box = ("-n", NAMESPACE, "exec", "box", "--")
        body = {"command": ["sh", "-c", "sleep 66601; true"], "timeout_s": 600}
        asking = asyncio.create_task(
            own_kubelore.http.post(f"{CONTAINERS}/{BOX}/exec", json=body, timeout=120)
        )
        await wait_for(on_record(own_kubelore, 1), "the command's process to be on record", 100)
        opened = await own_kubelore.http.post(
            f"{CONTAINERS}/{BOX}/exec/terminal", json={"command": ["sleep", "66602"]}
        )
        assert opened.status_code == 201, opened.text
        await wait_for(on_record(own_kubelore, 2), "the terminal's process to be on record", 50)
        theirs = asyncio.create_task(kubectl.run(*in_box, "sleep", "66603", seconds=400))

        async def begun() -> bool:
            return "sleep 66603" in await kubectl(*in_box, "ps", "-o", "args")

        await wait_for(begun, "the other command to run", 20)

        async def ended() -> bool:
            runs = await kubectl(*in_box, "ps", "-o", "args")
            assert "sleep 66603" in runs
            return "sleep 66601" not in runs and "sleep 66602" not in runs

        async def told() -> bool:
            found = await own_kubelore.http.get(f"{CONTAINERS}/operations", params={"text": "sleep 6660"})
            return [one["status"] for one in found.json()["items"]] == ["cancelled", "cancelled"]

        os.kill(own_kubelore.pid("container-ops"), signal.SIGKILL)
        assert (await asyncio.wait_for(asking, 60)).status_code == 503
        await wait_for(ended, "both to be ended", ORPHANED_S, ignoring=(httpx.HTTPError,))
        await wait_for(told, "the history to say so", 30)
        theirs.cancel()
        await asyncio.gather(theirs, return_exceptions=True)


def on_record(kubelore: Any, count: int) -> Callable[[], Awaitable[bool]]:
    """A condition: so many operations are on record with the process that they run."""
    kept = Kept.load(DataDirectory(kubelore.data))
    server = MongoServer(kubelore.data / "mongo", port=kept.ports["mongo"], password=kept.passwords["mongo"])

    async def so() -> bool:
        with closing(MongoClient(server.url)) as client:
            rows = client["kubelore"]["container_operations"]
            return rows.count_documents({"process": {"$ne": None}}) == count

    return so
