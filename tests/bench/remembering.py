"""How long a change by an API client takes until its version can be read, with a real API server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
from tests.bench.changes import ARRIVE_WITHIN_S, Measured, Target, Times, Writer
from tests.bench.figures import Latency, Reach, Row
from tests.bench.stack import Stack
from tests.bench.watching import lab_cluster, with_lab
from tests.bench.world import World

from kubelore.lab.errors import LabError
from kubelore.lab.waiting import wait_for

REACH = Reach("p99 1 s", (float("inf"), 1.0))
NEWEST = 20
ASK_EVERY_S = 0.02
_WORK = "change of ConfigMaps of a real API server until its version is in the history"


def record_lab(world: World) -> list[Row]:
    """ConfigMaps of a real API server are changed in turn, while the history of one is asked for."""
    return with_lab(lambda: _on_the_lab(world), _WORK, REACH)


async def _on_the_lab(world: World) -> list[Row]:
    size = world.size
    with Stack(world.folder / "remembering") as stack:
        await asyncio.to_thread(stack.up)
        times = Times()
        async with (
            lab_cluster(world.folder / "remembered", stack) as (_, targets),
            _history(stack, targets[0], times),
        ):
            writer = Writer(targets, times)
            try:
                await writer.steadily(size.changes_per_second, 1.0)
                runs = [await _run(world, writer, times, len(targets)) for _ in range(size.runs)]
            finally:
                await writer.close()
    latency, lost = Latency.of([run.latencies for run in runs]), sum(run.lost for run in runs)
    told = f"{latency}, {lost} of {latency.samples + lost} never came" if lost else str(latency)
    met = not lost and REACH.met_by(latency.p50, latency.p99) if size.targets else None
    return [Row(f"{_WORK}, {size.changes_per_second}/s", told, REACH.text, met)]


async def _run(world: World, writer: Writer, times: Times, targets: int) -> Measured:
    """All objects are changed in turn; the changes of the first are looked for."""
    made = await writer.steadily(world.size.changes_per_second, world.size.watch_s / world.size.runs)
    numbers = [number for number in made if number % targets == 0]

    async def all_in() -> bool:
        return all(number in times.seen for number in numbers)

    with suppress(LabError):
        await wait_for(all_in, "the versions of all changes", ARRIVE_WITHIN_S)
    latencies = times.latencies(numbers)
    return Measured(latencies, len(numbers) - len(latencies))


@asynccontextmanager
async def _history(stack: Stack, target: Target, times: Times) -> AsyncIterator[None]:
    """Ask for the newest versions of one object again and again, and note when each change is among them.

    Of one only: asking for the histories of all would be most of what the machine does.
    """
    *_, namespace, _, name = target.path.split("/")
    path = f"/api/k8s/yaml/versions/lab:configmaps:{namespace}:{name}"
    headers = {"Authorization": f"Bearer {stack.token}"}
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(stack.url, headers=headers, timeout=timeout) as http:
        reading = asyncio.create_task(_read(http, path, times))
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _read(http: aiohttp.ClientSession, path: str, times: Times) -> None:
    while True:
        async with http.get(path, params={"limit": NEWEST}) as answer:
            page = json.loads(await answer.read()) if answer.status == 200 else {"items": []}
        now = time.perf_counter()
        for version in page["items"]:
            if (number := times.versions.get(version["resource_version"])) is not None:
                times.seen.setdefault(number, now)
        await asyncio.sleep(ASK_EVERY_S)
