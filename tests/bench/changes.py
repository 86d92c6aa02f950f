"""A writer that changes objects at a steady rate, and readers that note when each change reached them.

A change is a number in an annotation, so that it is known again wherever it
arrives. All clocks are this process's.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from tests.bench.fleet import Access

from kubelore.lab.errors import LabError
from kubelore.lab.waiting import wait_for

ANNOTATION = "bench.kubelore.example/change"
READY_WITHIN_S = 30.0
ARRIVE_WITHIN_S = 15.0
_CHANGE = re.compile(rb'"bench\.kubelore\.example/change": ?"(\d+)"')
_VERSION = re.compile(rb'"resourceVersion": ?"(\d+)"')
_AT_ONCE = 32
_LONGEST_LINE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """An object of one cluster that may be changed."""

    access: Access
    path: str


@dataclass
class Times:
    """When each change was sent, when the API server had answered, and when a reader saw it."""

    sent: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """Which change each resourceVersion came from."""

    def note(self, chunk: bytes) -> None:
        """Remember the first time that a change is seen in a line."""
        now = time.perf_counter()
        if found := _CHANGE.search(chunk):
            self.seen.setdefault(int(found[1]), now)

    def latencies(self, changes: Sequence[int]) -> list[float]:
        """Seconds from sending to seeing, of those that were seen."""
        return [self.seen[change] - self.sent[change] for change in changes if change in self.seen]


class Writer:
    """Patches the targets in turn, without waiting for one answer before it sends the next."""

    def __init__(self, targets: Sequence[Target], times: Times) -> None:
        self._targets = targets
        self._times = times
        self._number = 0
        self._free = asyncio.Semaphore(_AT_ONCE)
        connector = aiohttp.TCPConnector(limit=_AT_ONCE)
        self._http = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))

    async def close(self) -> None:
        """Hang up."""
        await self._http.close()

    async def steadily(self, per_second: float, seconds: float) -> list[int]:
        """The numbers of the changes made, each at its time."""
        begun, numbers = time.perf_counter(), []
        async with asyncio.TaskGroup() as writes:
            for number in range(int(per_second * seconds)):
                await asyncio.sleep(begun + number / per_second - time.perf_counter())
                numbers.append(await self._next(writes))
        return numbers

    async def _next(self, writes: asyncio.TaskGroup) -> int:
        await self._free.acquire()
        self._number += 1
        writes.create_task(self._write(self._number))
        return self._number

    async def _write(self, number: int) -> None:
        target = self._targets[number % len(self._targets)]
        body = {"metadata": {"annotations": {ANNOTATION: str(number)}}}
        headers = {**target.access.headers, "Content-Type": "application/merge-patch+json"}
        url = target.access.server + target.path
        try:
            self._times.sent[number] = time.perf_counter()
            async with self._http.patch(url, json=body, headers=headers, ssl=target.access.context) as answer:
                said = await answer.read()
                assert answer.status == 200, f"PATCH {target.path} answered {answer.status}: {said[:300]!r}"
            self._times.answered[number] = time.perf_counter()
            if found := _VERSION.search(said):
                self._times.versions[found[1].decode()] = number
        finally:
            self._free.release()


async def event_stream(url: str, token: str, times: Times) -> AsyncIterator[None]:
    """Reads server-sent events until closed; yields once when connected."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(timeout=timeout, read_bufsize=_LONGEST_LINE) as http,
        http.get(url, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        reading = asyncio.create_task(_note_lines(answer.content, times))
        try:
            yield
        finally:
            await _cancelled([reading])


async def kubectl_watches(
    program: str, arguments: Sequence[str], environments: Sequence[Mapping[str, str]], times: Times
) -> AsyncIterator[None]:
    """One `kubectl get --watch` a cluster until closed; yields once when all are started."""
    processes = [
        await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        for environment in environments
    ]
    readings = [
        asyncio.create_task(_note_lines(process.stdout, times)) for process in processes if process.stdout
    ]
    try:
        yield
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes))
        await _cancelled(readings)


@dataclass(frozen=True)
class Measured:
    """Seconds that each change took, and how many never arrived."""

    latencies: list[float]
    lost: int


async def measured(writer: Writer, times: Times, targets: int, per_second: float, seconds: float) -> Measured:
    """Write at a steady rate, once changes of every target have been seen.

    Raises AssertionError when the reader shows no changes at all.
    """
    await _all_listening(writer, times, targets)
    numbers = await writer.steadily(per_second, seconds)
    with suppress(LabError):
        await wait_for(lambda: _all_in(numbers, times.seen), "all changes to arrive", ARRIVE_WITHIN_S)
    latencies = times.latencies(numbers)
    return Measured(latencies, len(numbers) - len(latencies))


async def _all_in(numbers: Sequence[int], seen: Mapping[int, float]) -> bool:
    return all(number in seen for number in numbers)


async def _all_listening(writer: Writer, times: Times, targets: int) -> None:
    deadline = time.perf_counter() + READY_WITHIN_S
    while True:
        numbers = await writer.steadily(targets * 4, 0.25)
        await asyncio.sleep(0.75)
        if all(number in times.seen for number in numbers):
            return
        assert time.perf_counter() < deadline, "a watch shows no changes"


async def _note_lines(stream: aiohttp.StreamReader | asyncio.StreamReader, times: Times) -> None:
    while line := await stream.readline():
        times.note(line)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
