"""How fast changes become versions, what a version takes on disk, and how quickly a history is read.

A fleet and a stack of its own: kubesim changes pods of 4.4 KB in one annotation,
resource-ops publishes, yaml-vcs records. Whether anything was lost is told by the
pods themselves: each counts its own changes, so the last version of every pod
must say how many there are.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Any

import psutil
import pymongo
from tests.bench.changes import Target, Times, Writer
from tests.bench.figures import Reach, Row, megabytes
from tests.bench.fleet import Access, SimulatedClusters
from tests.bench.http_client import Connection, measure
from tests.bench.size import Size
from tests.bench.stack import Stack
from tests.bench.world import World, add_cluster, connect

from kubelore.stack.memory import memory_bytes

CLUSTERS = 4
PAGE = 50
RATE = Reach("5,000/s, nothing lost", (-5_000.0,))
STORAGE = Reach("150 and 60 bytes", (150.0, 60.0))
READ = Reach("10 ms", (0.010,))
MEMORY = Reach("300 MB, flat", (300e6,))
BEAT = "kubesim.kubelore.dev/beat"
RECORDED = ("kubesim", "resource-ops", "nats", "yaml-vcs", "mongo")
HISTORY_PER_S = 500.0
CAUGHT_UP_S = 120.0
UNDER_WAY = 4_000
_LOOK_EVERY_S = 0.1
_STEER_EVERY_S = 0.05


def record(world: World) -> list[Row]:
    """Load as fast as kubesim is told to make it, then the questions, with the memory of yaml-vcs all along."""
    size = world.size
    fleet = replace(size, clusters=CLUSTERS, pods=size.recorded_pods // CLUSTERS)
    with (
        SimulatedClusters(world.folder / "recorded", fleet) as clusters,
        Stack(world.folder / "recording") as stack,
    ):
        stack.up()
        for path in clusters.kubeconfigs:
            add_cluster(stack, path.stem, path.read_text())
        with recorded_in(stack) as versions:
            versions.wait_for(fleet.all_pods, "the pods' first versions")
            with memory_of(stack.pid("yaml-vcs")) as memory:
                rows = _load(world, fleet.all_pods, clusters, stack, versions)
                rows += _read(world, clusters, stack)
    return [*rows, memory.row(size.targets)]


class Recorded:
    """The versions as MongoDB counts and stores them."""

    def __init__(self, client: pymongo.MongoClient[dict[str, Any]]) -> None:
        self._client = client
        self._database = client["kubelore"]

    def count(self) -> int:
        """Versions of all objects."""
        return self._database["versions"].estimated_document_count()

    def stored(self) -> tuple[int, int]:
        """Bytes of documents and of indexes on disk, by collStats after a checkpoint, room that is free left out."""
        self._client["admin"].command({"fsync": 1})
        stats = self._database.command({"collStats": "versions"})
        free = stats["wiredTiger"]["block-manager"]["file bytes available for reuse"]
        return stats["storageSize"] - free, stats["totalIndexSize"]

    def wait_for(self, count: int, what: str) -> float:
        """Until there are so many, and no more come; when the last of them was there, by perf_counter."""
        deadline = time.monotonic() + CAUGHT_UP_S
        seen, since = -1, time.perf_counter()
        while seen < count or time.perf_counter() - since < 1.0:
            if (now := self.count()) != seen:
                seen, since = now, time.perf_counter()
            assert time.monotonic() < deadline, f"waited in vain for {what}: {seen:,} of {count:,}"
            time.sleep(_LOOK_EVERY_S)
        return since


@contextmanager
def recorded_in(stack: Stack) -> Iterator[Recorded]:
    """The versions of a stack, read beside yaml-vcs with its own address and password."""
    url = psutil.Process(stack.pid("yaml-vcs")).environ()["KUBELORE_MONGO_URL"]
    with pymongo.MongoClient[dict[str, Any]](url, timeoutMS=30_000) as client:
        yield Recorded(client)


@dataclass
class Memory:
    """PSS of one process in bytes, twice a second."""

    seen: list[int] = field(default_factory=list)

    def row(self, targets: bool) -> Row:
        """The most of it, and whether it grows: the middle of the last third beside that of the second."""
        third = max(1, len(self.seen) // 3)
        middle, last = (statistics.median(part) for part in (self.seen[third:-third], self.seen[-third:]))
        flat = last < middle * 1.05 + 5e6
        told = f"{megabytes(max(self.seen))} at most; {megabytes(middle)}, then {megabytes(last)}"
        met = MEMORY.met_by(max(self.seen)) and flat if targets else None
        return Row("PSS of yaml-vcs during all that", told, MEMORY.text, met)


@contextmanager
def memory_of(pid: int) -> Iterator[Memory]:
    """Sampled from a thread until the block ends."""
    memory, done = Memory(), Event()

    def watch() -> None:
        while not done.wait(0.5):
            if used := memory_bytes(pid):
                memory.seen.append(used)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()


def _load(
    world: World, pods: int, clusters: SimulatedClusters, stack: Stack, versions: Recorded
) -> list[Row]:
    size = world.size
    beats_before = _beats(clusters)
    before, stored_before, cpu_before = versions.count(), versions.stored(), _cpu(clusters, stack)
    due, begun = before - clusters.revisions(), time.perf_counter()
    _change(clusters, versions, size)
    last = versions.wait_for(due + clusters.revisions(), "the versions of all changes")
    cpu_after = _cpu(clusters, stack)
    # Asked only now: to read ten thousand pods takes a second, which is not the recorder's.
    beats = _beats(clusters)
    made = sum(beats.values()) - sum(beats_before.values())
    rate, lost = made / (last - begun), _lost(stack, beats)
    each = ", ".join(f"{name} {(cpu_after[name] - cpu_before[name]) / made * 1e6:.0f}" for name in RECORDED)
    work = (
        f"sustained recording of kubesim's load: {made:,} changes of {pods:,} pods of 4.4 KB, asked for "
        f"up to {size.recorded_per_second:,}/s (us of CPU a change: {each})"
    )
    told = f"{rate:,.0f}/s, " + (f"{lost} pods without their last version" if lost else "nothing lost")
    met = not lost and RATE.met_by(-rate) if size.targets else None
    added = versions.count() - before
    documents, index = (
        (now - then) / added for now, then in zip(versions.stored(), stored_before, strict=True)
    )
    disk = Row(
        "storage per version of a pod of 4.4 KB changed in one field, by collStats",
        f"{documents:.0f} and {index:.0f} of index",
        STORAGE.text,
        STORAGE.met_by(documents, index) if size.targets else None,
    )
    return [Row(work, told, RATE.text, met), disk]


def _change(clusters: SimulatedClusters, versions: Recorded, size: Size) -> None:
    """Load above the rate that is to be reached, held back while much is under way.

    An API server forgets: kubesim keeps the last 10,000 changes of a cluster. What
    is to be measured is the recording, not the gap behind what was forgotten.
    """
    until = time.monotonic() + size.record_s
    ahead, rate = clusters.revisions() - versions.count(), 0
    while time.monotonic() < until:
        full = clusters.revisions() - versions.count() - ahead > UNDER_WAY
        if rate != (wanted := 0 if full else size.recorded_per_second):
            clusters.change_pods(rate := wanted)
        time.sleep(_STEER_EVERY_S)
    clusters.change_pods(0)


def _cpu(clusters: SimulatedClusters, stack: Stack) -> dict[str, float]:
    pids = {"kubesim": clusters.pid, **{name: stack.pid(name) for name in RECORDED if name != "kubesim"}}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: used.user + used.system for name, used in times.items()}


def _beats(clusters: SimulatedClusters) -> dict[str, int]:
    """How often each pod of each cluster was changed, as the pod itself says."""
    beats: dict[str, int] = {}
    for path in clusters.kubeconfigs:
        access = Access.of(path.read_text())
        connection = Connection(access.server, access.headers, access.context)
        for item in json.loads(connection.get("/api/v1/pods"))["items"]:
            metadata = item["metadata"]
            id_ = f"{path.stem}:pods:{metadata['namespace']}:{metadata['name']}"
            beats[id_] = int(metadata["annotations"][BEAT])
        connection.close()
    return beats


def _lost(stack: Stack, beats: Mapping[str, int]) -> int:
    """Pods whose newest version is not the one that their count of changes says, of every fiftieth."""
    connection, lost = connect(stack), 0
    for id_, count in list(beats.items())[::50]:
        page = json.loads(connection.get(f"/api/k8s/yaml/versions/{id_}", {"limit": 1}))
        lost += page["items"][0]["version"] != count + 1
    connection.close()
    return lost


def _read(world: World, clusters: SimulatedClusters, stack: Stack) -> list[Row]:
    """A page and a diff from the middle of a long history, so that neither lies at its end."""
    size = world.size
    id_, count = asyncio.run(_long_history(clusters, size.history_versions))
    connection, path = connect(stack), f"/api/k8s/yaml/versions/{id_}"
    deadline = time.monotonic() + CAUGHT_UP_S
    while (newest := _newest(connection, path)) < count:
        assert time.monotonic() < deadline, f"{newest:,} of {count:,} versions of one pod"
        time.sleep(_LOOK_EVERY_S)
    page = measure(lambda: connection.get(path, {"limit": PAGE}), size)
    two = {"from": count // 2, "to": count // 2 + 60}
    diff = measure(lambda: connection.get(f"{path}/diff", two), size)
    connection.close()
    named = ((f"page of {PAGE} versions out of {newest:,}", page), ("diff of two versions of 4.4 KB", diff))
    return [
        Row(work, str(latency), READ.text, READ.met_by(latency.p50) if size.targets else None)
        for work, latency in named
    ]


async def _long_history(clusters: SimulatedClusters, count: int) -> tuple[str, int]:
    """The id of one pod that got `count` further changes by an API client."""
    path = clusters.kubeconfigs[0]
    access = Access.of(path.read_text())
    connection = Connection(access.server, access.headers, access.context)
    metadata = json.loads(connection.get("/api/v1/pods", {"limit": 1}))["items"][0]["metadata"]
    connection.close()
    place = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
    writer = Writer([Target(access, place)], Times())
    try:
        await writer.steadily(HISTORY_PER_S, count / HISTORY_PER_S)
    finally:
        await writer.close()
    return f"{path.stem}:pods:{metadata['namespace']}:{metadata['name']}", count


def _newest(connection: Connection, path: str) -> int:
    return json.loads(connection.get(path, {"limit": 1}))["items"][0]["version"]
