"""One fault after another of the API server, while somebody writes: the read model is what the server says, all is told."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from kubelore.common.errors import KubeloreError, NotFound
from kubelore.common.kube import KubeClient, decode_meta, read_kubeconfig
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for

WRITES = 150
"""Confirmed ones under each fault, and again behind it."""
Fault = Callable[[Any, pytest.MonkeyPatch], Awaitable[None]]


class Writing:
    """Makes, changes and deletes ConfigMaps, and remembers what the API server confirmed."""

    def __init__(self, client: KubeClient, config_maps: Any) -> None:
        self._client, self._type = client, config_maps
        self._random = random.Random(3)
        self.written: list[tuple[str, str]] = []
        """(uid, resourceVersion) of every confirmed write."""
        self.deleted: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write from now on: of what was written before anybody observed, only the last state is told."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """What failed may have been done, so nothing is remembered of it."""
        while True:
            with suppress(KubeloreError):
                await self._one(f"w-{self._random.randrange(20)}")
            await asyncio.sleep(0.002)

    async def _one(self, name: str) -> None:
        body = json.dumps({"data": {"n": str(self._random.random())}}).encode()
        try:
            if self._random.random() < 0.1:
                meta = decode_meta(await self._client.get(self._type, "default", name))
                await self._client.delete(self._type, "default", name, uid=meta.uid)
                self.deleted.add(meta.uid)
                return
            meta = decode_meta(await self._client.patch(self._type, "default", name, body))
        except NotFound:
            manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            meta = decode_meta(
                await self._client.create(self._type, "default", json.dumps(manifest).encode())
            )
        self.written.append((meta.uid, meta.resource_version))

    async def more(self, count: int) -> None:
        """Until so many more are confirmed."""
        until = len(self.written) + count

        async def enough() -> bool:
            return len(self.written) >= until

        await wait_for(enough, f"{count} more writes", 30)


@pytest_asyncio.fixture(loop_scope="session")
async def writing(bench, policy, config_maps) -> AsyncIterator[Writing]:
    async with KubeClient(read_kubeconfig(bench.cluster.kubeconfig, None, policy), policy) as client:
        made = Writing(client, config_maps)
        yield made
        await made.stop()


async def cut(bench, _: Any) -> None:
    await bench.cluster.inject(Faults(watch_lifetime=0.2, paths="/configmaps"))
    bench.cluster.drop_watches()


async def busy(bench, _: Any) -> None:
    await bench.cluster.inject(Faults(error_rate=0.5, error_code=429, retry_after=1, paths="/configmaps"))
    bench.cluster.drop_watches()


async def failing(bench, _: Any) -> None:
    await bench.cluster.inject(Faults(error_rate=0.7, error_code=500, paths="/configmaps"))
    bench.cluster.drop_watches()


async def gone(bench, _: Any) -> None:
    await bench.cluster.inject(Faults(expired=True, paths="/configmaps"))
    bench.cluster.drop_watches()


async def compacted(bench, _: Any) -> None:
    bench.cluster.compact()
    bench.cluster.drop_watches()


async def ahead(_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)


async def behind(_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)


@pytest.mark.parametrize("fault", [cut, busy, failing, gone, compacted, ahead, behind])
async def test_after_a_fault_under_load_all_is_told_and_the_model_is_what_the_server_says(
    bench, writing: Writing, config_maps, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    async with bench.observing() as observer:
        writing.start()
        await writing.more(WRITES)
        await fault(bench, monkeypatch)
        await writing.more(WRITES)
        await bench.cluster.inject(Faults())
        monkeypatch.undo()
        await writing.more(WRITES)
        await wait_for(
            lambda: _told(bench, writing), "every confirmed write to be told, or to lie in a gap", 30
        )
        await wait_for(lambda: bench.is_live(observer), "the observer to be live", 30)
        if fault not in (gone, compacted):
            assert bench.published.gaps() == []
        await wait_for(lambda: _equal(bench, observer, config_maps), "the model to be what is there", 20)


async def _told(bench, writing: Writing) -> bool:
    """Whether every write is told; or lost with one behind it in a gap, whose end names what is there."""
    changes = bench.published.changes()
    told = {(change.uid, change.rv) for change in changes}
    gone = {change.uid for change in changes if change.kind == "deleted"}
    gaps = bench.published.gaps()
    missing = set(writing.written) - told
    unsaid = writing.deleted - gone
    if not gaps:
        return not missing and not unsaid
    first = min(int(gap.after_rv) for gap in gaps)
    last = max((int(synced.rv) for synced in bench.published.synced()), default=0)
    return all(first < int(rv) <= last for _, rv in missing)


async def _equal(bench, observer, config_maps) -> bool:
    page = await bench.client.list(config_maps, limit=0)
    there = {meta.uid: msgspec.json.decode(raw) for raw in page.items if (meta := decode_meta(raw))}
    held = {
        row.uid: msgspec.json.decode(row.whole()) for row in observer.model if row.home.type == "configmaps"
    }
    return there == held
