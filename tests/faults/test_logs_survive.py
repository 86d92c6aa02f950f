"""Streams of logs while the parts behind them are killed: the reader is told, goes on, and has every line once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from datetime import datetime
from typing import Any

import httpx
import pytest

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for

CLUSTER = "logs"
STREAM = "/api/k8s/logs/stream"
BREAKS = (httpx.HTTPError,)

pytestmark = pytest.mark.timeout(300)


class Reader:
    """Follows a stream as a browser does: again and again, behind the last event that came whole."""

    def __init__(self, kubelore: Any, **query: Any) -> None:
        self._http = httpx.AsyncClient(
            base_url=kubelore.url, headers={"Authorization": f"Bearer {kubelore.token}"}, timeout=20
        )
        self._query = query
        self.items: list[dict[str, Any]] = []
        self.ends = 0
        """How often a stream broke off or ended with an error."""
        self._last = ""

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                try:
                    await self._read()
                except BREAKS:
                    self.ends += 1
                await asyncio.sleep(0.3)
        finally:
            await self._http.aclose()

    async def _read(self) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        async with self._http.stream("GET", STREAM, params=self._query, headers=headers) as answer:
            position = name = ""
            async for line in answer.aiter_lines():
                key, _, value = line.partition(": ")
                if key == "id":
                    position = value
                elif key == "event":
                    name = value
                elif key == "data" and name == "lines":
                    self.items += json.loads(value)["items"]
                    self._last = position
                elif key == "data" and name == "error":
                    self.ends += 1

    def steps(self) -> dict[str, set[float]]:
        """Seconds from line to line, by pod: of a simulated one always the same, where nothing is lost or repeated."""
        times: dict[str, list[float]] = {}
        for item in self.items:
            at = datetime.fromisoformat(item["timestamp"][:26] + "+00:00").timestamp()
            times.setdefault(item["pod"], []).append(at)
        return {
            pod: {round(two - one, 1) for one, two in itertools.pairwise(all_)} for pod, all_ in times.items()
        }


@pytest.mark.parametrize("victim", ["container-ops", "gateway", "nats"])
async def test_a_stream_goes_on_after_a_part_was_killed(own_kubelore: Any, victim: str) -> None:
    async with SimulatedFleet(clusters=1, pods=20) as fleet:
        await own_kubelore.onboard(CLUSTER, fleet[0].kubeconfig)
        reader = Reader(own_kubelore, clusters=CLUSTER, tail=1)
        reading = asyncio.create_task(reader.run())
        try:
            await _until_more(reader, 60)
            os.kill(own_kubelore.pid(victim), signal.SIGKILL)
            await _until_more(reader, 150)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    assert reader.ends
    uneven = {pod: sorted(steps) for pod, steps in reader.steps().items() if len(steps) > 1}
    assert not uneven


async def test_a_stream_goes_on_after_an_api_server_went_away(own_kubelore: Any) -> None:
    async with SimulatedFleet(clusters=1, pods=20) as fleet:
        await own_kubelore.onboard(CLUSTER, fleet[0].kubeconfig)
        reader = Reader(own_kubelore, clusters=CLUSTER, tail=1)
        reading = asyncio.create_task(reader.run())
        try:
            await _until_more(reader, 60)
            await fleet[0].close()
            await asyncio.sleep(1)
            await fleet[0].listen()
            await _until_more(reader, 150)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    uneven = {pod: sorted(steps) for pod, steps in reader.steps().items() if len(steps) > 1}
    assert not uneven


async def _until_more(reader: Reader, count: int) -> None:
    """Until so many lines more have come, from every pod."""
    before = len(reader.items)

    async def more() -> bool:
        return len(reader.items) >= before + count

    await wait_for(more, f"{count} more lines", 90)
