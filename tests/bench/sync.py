"""How long it takes until every pod of every cluster is in the read model, and what that holds in memory."""

from __future__ import annotations

import os
import signal
import time

from tests.bench.figures import Reach, Row, megabytes, seconds
from tests.bench.fleet import Access
from tests.bench.http_client import Connection
from tests.bench.kubectl import Fleet
from tests.bench.stack import Stack
from tests.bench.world import World, list_pods

SYNC = Reach("60 s", (60.0,))
MEMORY = Reach("300 MB", (300e6,))
RESTART_WITHIN_S = 60.0
WHOLE_LISTS = ("get", "pods", "-A", "-o", "json")


def sync(world: World) -> list[Row]:
    """From the first `clusters/add`, then again after a restart of resource-ops."""
    size = world.size
    stack = world.stack
    first_memory = _memory(stack)
    restart_s = _restart(world)
    second_memory = _memory(stack)
    what = f"{size.all_pods:,} pods in {size.clusters} clusters"
    rows = [
        _timed(
            f"first sync of {what}, from the first `clusters/add` to all live and counted",
            world.first_sync_s,
            world,
        ),
        _timed("the same after a restart of resource-ops (SIGTERM), its start included", restart_s, world),
    ]
    raw = _raw_bytes(world)
    for words, memory in (("after the first sync", first_memory), ("after the restart", second_memory)):
        met = MEMORY.met_by(memory) if size.targets else None
        row = Row(f"PSS of resource-ops {words}", megabytes(memory), MEMORY.text, met)
        rows.append(row.with_rival("the same objects as JSON", megabytes(raw), raw / memory))
    return rows


def _timed(work: str, taken_s: float, world: World) -> Row:
    met = SYNC.met_by(taken_s) if world.size.targets else None
    row = Row(work, seconds(taken_s), SYNC.text, met)
    if not world.size.whole_lists:
        return row
    that_s = whole_lists(world.kubectl)
    return row.with_rival(f"`kubectl {' '.join(WHOLE_LISTS)}` in each", seconds(that_s), that_s / taken_s)


def whole_lists(kubectl: Fleet) -> float:
    """Seconds in which kubectl gets every pod of every cluster, once."""
    return kubectl.everywhere(*WHOLE_LISTS, runs=1, whole_lists=True)


def _memory(stack: Stack) -> int:
    return stack.memory()["resource-ops"]


def _restart(world: World) -> float:
    stack = world.stack
    before = stack.pid("resource-ops")
    os.kill(before, signal.SIGTERM)
    begun = time.perf_counter()
    deadline = time.monotonic() + RESTART_WITHIN_S
    while stack.pid("resource-ops") == before or list_pods(stack).get("partial", True):
        assert time.monotonic() < deadline, "resource-ops did not come back"
        time.sleep(0.1)
    world.wait_until_synced(stack)
    return time.perf_counter() - begun


def _raw_bytes(world: World) -> int:
    """Bytes of all pods as the API servers send them, from one page of the first cluster."""
    access = Access.of(world.clusters.kubeconfigs[0].read_text())
    connection = Connection(access.server, access.headers, access.context)
    page = len(connection.get("/api/v1/pods", {"limit": 100}))
    connection.close()
    return page * world.size.all_pods // 100
