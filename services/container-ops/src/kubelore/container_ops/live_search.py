"""Search through what the log API still has of containers that are there, and that is not stored yet."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from kubelore.common.errors import KubeloreError
from kubelore.common.reach import Reach
from kubelore.container_ops.found_lines import Hit, origin_of, rfc3339
from kubelore.container_ops.lines import LineSplitter
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_places import Places
from kubelore.container_ops.pod_watch import LoggedContainer, PodWatch
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import StreamKey
from kubelore.container_ops.targets import PodSelection

MAX_CONTAINERS = 100
"""Containers whose log is read for one search."""
AT_ONCE = 8
TAIL = 20_000
"""Lines that are read of a container at most: the newest."""
MAX_BYTES = 32 * 1024 * 1024
MAX_HELD = 64 * 1024 * 1024
"""Bytes of lines that match and are held for one search."""
HIT_BYTES = 300
"""What holding one takes beside its text."""


class LiveHits(msgspec.Struct):
    """What was found, and in words what could not be searched."""

    hits: list[Hit] = []
    problems: list[str] = []
    containers: int = 0
    held: int = 0

    @property
    def full(self) -> bool:
        """Whether no more may be held."""
        return self.held >= MAX_HELD


class _Reading(NamedTuple):
    """What is sought in one search, and where it is put."""

    wanted: LineFilter
    beyond_stored: bool
    strictly: bool
    found: LiveHits


class LiveSearch:
    """Reads the logs of containers through their API servers."""

    def __init__(self, reach: Reach, pods: PodWatch, store: SegmentStore) -> None:
        self._reach = reach
        self._pods = pods
        self._store = store

    async def search(
        self, places: Places, wanted: LineFilter, *, beyond_stored: bool, strictly: bool, seconds: float
    ) -> LiveHits:
        """All lines that match; `beyond_stored` without those that are stored, but for the last stored time
        (`strictly`: that neither)."""
        found = LiveHits()
        reading = _Reading(wanted, beyond_stored, strictly, found)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(
                    *(self._cluster(cluster, places, reading) for cluster in places.asked.clusters)
                )
        except TimeoutError:
            found.problems.append(f"the logs of what runs now were not all read within {seconds:.0f} s")
        if found.full:
            found.problems.append("of what runs now more lines match than one search holds: narrow it down")
        return found

    async def _cluster(self, cluster: str, places: Places, reading: _Reading) -> None:
        found = reading.found
        try:
            containers = [
                (one, key)
                for one in await self._containers(cluster, places)
                if places.matches(key := _key(one))
            ]
            covered = await self._store.covered(cluster) if containers and reading.beyond_stored else {}
        except KubeloreError as error:
            found.problems.append(f"{cluster}: what runs now was not searched: {error.detail}")
            return
        if len(containers) > MAX_CONTAINERS:
            found.problems.append(
                f"{cluster}: of {len(containers)} containers that run now, {MAX_CONTAINERS} were searched"
            )
        room = asyncio.Semaphore(AT_ONCE)

        async def read(one: LoggedContainer, key: StreamKey) -> None:
            async with room:
                since = covered.get((key.uid, key.container, key.restart), 0)
                await self._container(one, key, reading, since)

        await asyncio.gather(*(read(one, key) for one, key in containers[:MAX_CONTAINERS]))

    async def _containers(self, cluster: str, places: Places) -> list[LoggedContainer]:
        asked = places.asked
        selection = PodSelection(
            namespaces=tuple(one for one in asked.namespaces if places.readable(cluster, one)),
            labels=asked.labels,
            fields=f"metadata.name={asked.pod}" if asked.pod else "",
        )
        async with aclosing(self._pods.follow(cluster, selection)) as batches:
            return [sighting.container for sighting in await anext(batches)]

    async def _container(self, one: LoggedContainer, key: StreamKey, reading: _Reading, stored: int) -> None:
        asked, found = reading.wanted.asked, reading.found
        since = max(stored + reading.strictly if stored else 0, asked.since)
        if found.full or (asked.until and since >= asked.until):
            return
        found.containers += 1
        try:
            lines, hits = await self._read(one, key, reading, since)
        except KubeloreError as error:
            found.problems.append(f"{one.id}: {error.detail}")
            return
        found.hits += hits
        if lines >= TAIL:
            found.problems.append(
                f"{one.id}: only its last {TAIL} lines were searched, as it is not collected"
            )

    async def _read(
        self, one: LoggedContainer, key: StreamKey, reading: _Reading, since: int
    ) -> tuple[int, list[Hit]]:
        """How many lines were read, and those that match."""
        origin, splitter, wanted = origin_of(key), LineSplitter(), reading.wanted
        count = size = 0
        hits: list[Hit] = []
        async with self._reach.streaming(one.id.cluster) as reached:
            chunks = reached.client.logs(
                one.id.namespace,
                one.id.pod,
                one.id.container,
                since_time=rfc3339(since)[:19] + "Z" if since else None,
                timestamps=True,
                tail=TAIL,
            )
            async with aclosing(chunks):
                async for chunk in chunks:
                    for line in splitter.feed(chunk):
                        count += 1
                        if line.at >= since and wanted.matches(line):
                            hits.append(Hit(line.at, origin, (count,), key, line, stored=False))
                            reading.found.held += HIT_BYTES + len(line.text)
                    if (size := size + len(chunk)) > MAX_BYTES:
                        return max(count, TAIL), hits
                    if reading.found.full:
                        return count, hits
        return count, hits


def _key(one: LoggedContainer) -> StreamKey:
    return StreamKey(
        cluster=one.id.cluster,
        namespace=one.id.namespace,
        pod=one.id.pod,
        uid=one.pod_uid,
        container=one.id.container,
        restart=one.restarts,
        node=one.node,
        workload=one.workload,
        labels=tuple(sorted(one.labels.items())),
    )
