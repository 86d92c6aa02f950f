"""How long `kubelore up` takes, and what everything it starts holds in memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from tests.bench.figures import Reach, Row, megabytes, seconds
from tests.bench.stack import Stack
from tests.bench.world import World

from kubelore.stack.servers import MongoServer, NatsServer

START = Reach("15 s", (15.0,))
MEMORY = Reach("1.1 GB", (1.1e9,))
_ALONE = "nats-server and mongod alone"


def startup(world: World) -> list[Row]:
    """Starts on an empty data directory, then again on the same; the servers alone beside it."""
    servers_s = asyncio.run(_servers_alone(world.folder / "servers"))
    rows: list[Row] = []
    for demo, words in ((False, "without demo"), (True, "with demo")):
        with Stack(world.folder / f"startup-{demo}", demo=demo) as stack:
            first_s = stack.up()
            memory = stack.memory()
            again_s = [_again(stack) for _ in range(world.size.starts)]
        median_s = statistics.median(again_s)
        work = f"`kubelore up --detach`, {words}"
        for which, taken_s in (("empty data directory", first_s), ("again", median_s)):
            met = START.met_by(taken_s) if world.size.targets else None
            row = Row(f"{work}, {which}", seconds(taken_s), START.text, met)
            rows.append(row.with_rival(_ALONE, seconds(servers_s), servers_s / taken_s))
        rows.append(_memory_row(words, memory, world))
    return rows


def _memory_row(words: str, memory: dict[str, int], world: World) -> Row:
    whole = sum(memory.values())
    servers = memory["nats"] + memory["mongo"]
    parts = ", ".join(f"{name} {value / 1e6:.0f}" for name, value in memory.items())
    met = MEMORY.met_by(whole) if world.size.targets else None
    row = Row(f"PSS of all processes when ready, {words} ({parts})", megabytes(whole), MEMORY.text, met)
    return row.with_rival(_ALONE, megabytes(servers), servers / whole)


def _again(stack: Stack) -> float:
    stack.down()
    return stack.up()


async def _servers_alone(folder: Path) -> float:
    begun = time.perf_counter()
    async with NatsServer(folder / "nats"), MongoServer(folder / "mongo"):
        return time.perf_counter() - begun
