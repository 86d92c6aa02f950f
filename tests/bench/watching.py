"""How long a change by an API client takes to an SSE client of the gateway, beside `kubectl get --watch`."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvloop
from tests.bench.changes import Target, Times, Writer, event_stream, kubectl_watches, measured
from tests.bench.figures import Latency, Reach, Row, seconds
from tests.bench.fleet import Access
from tests.bench.stack import Stack
from tests.bench.world import World, add_cluster, connect, list_pods

from kubelore.lab import build, recipes
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.errors import LabError
from kubelore.lab.waiting import wait_for

OBJECTS = 20
REACH = Reach("p99 300 ms", (float("inf"), 0.3))
_NAMESPACE = "bench"


@dataclass(frozen=True)
class Watched:
    """What is changed, and how it is watched in Kubelore and by kubectl."""

    targets: Sequence[Target]
    query: Mapping[str, str]
    kubectl: tuple[str, ...]
    environments: Sequence[Mapping[str, str]]


def watch(world: World) -> list[Row]:
    """Pods of all simulated clusters, changed in turn; SSE first, then kubectl's watches, at the same rate."""
    stack, clusters = world.stack, world.clusters
    accesses = {path.stem: Access.of(path.read_text()) for path in clusters.kubeconfigs}
    targets = [target for name, access in accesses.items() for target in _pods(stack, name, access)]
    every = max(1, len(accesses))
    in_turn = [targets[place::every] for place in range(every)]
    watched = Watched(
        [target for group in zip(*in_turn, strict=True) for target in group],
        {"type": "pods"},
        ("get", "pods", "-A", "--watch-only", "-o", "json"),
        [world.kubectl.environment(path) for path in clusters.kubeconfigs],
    )
    where = f"pods in {len(accesses)} kubesim clusters"
    return uvloop.run(_rows(world, watched, where, None))


def watch_lab(world: World) -> list[Row]:
    """The same with ConfigMaps of a real API server, where its programs are built already."""
    return with_lab(lambda: _on_the_lab(world), "change on a real API server to SSE client", REACH)


def with_lab(measure: Callable[[], Coroutine[Any, Any, list[Row]]], work: str, reach: Reach) -> list[Row]:
    """What needs a real API server, or one row that says why it was skipped."""
    if missing := [recipe.key for recipe in recipes.CONTROL_PLANE if not build.is_built(recipe)]:
        reason = f"skipped: {', '.join(missing)} not built, `make lab` does that"
        return [Row(work, reason, reach.text)]
    try:
        return asyncio.run(measure())
    except LabError as error:
        return [Row(work, f"skipped: {error}", reach.text)]


async def _on_the_lab(world: World) -> list[Row]:
    async with lab_cluster(world.folder / "lab", world.stack) as (plane, targets):
        watched = Watched(
            targets,
            {"type": "configmaps", "clusters": "lab", "namespace": _NAMESPACE},
            ("get", "configmaps", "-n", _NAMESPACE, "--watch-only", "-o", "json"),
            [world.kubectl.environment(plane.kubeconfig_file())],
        )
        return await _rows(world, watched, "ConfigMaps of a real API server", REACH)


@asynccontextmanager
async def lab_cluster(folder: Path, stack: Stack) -> AsyncIterator[tuple[ControlPlane, list[Target]]]:
    """A real API server as cluster `lab` of a stack, and its ConfigMaps, which may be changed."""
    async with ControlPlane(folder, "lab") as plane:
        kubectl = plane.kubectl()
        await kubectl("create", "namespace", _NAMESPACE)
        manifests = [_config_map(number) for number in range(OBJECTS)]
        await kubectl("apply", "-f", "-", stdin="\n---\n".join(manifests))
        await asyncio.to_thread(add_cluster, stack, "lab", plane.kubeconfig())
        await wait_for(lambda: asyncio.to_thread(_lab_is_live, stack), "the lab cluster to be live", 60)
        access = Access.of(plane.kubeconfig())
        path = f"/api/v1/namespaces/{_NAMESPACE}/configmaps"
        try:
            yield plane, [Target(access, f"{path}/item-{number}") for number in range(OBJECTS)]
        finally:
            await asyncio.to_thread(_remove_lab, stack)


async def _rows(world: World, watched: Watched, where: str, reach: Reach | None) -> list[Row]:
    size, stack = world.size, world.stack
    url = f"{stack.url}/api/k8s/unified/watch?{urlencode(watched.query)}"
    times = Times()
    mine, lost = await _measure(world, watched, event_stream(url, stack.token, times), times)
    write_s = statistics.median(times.answered[number] - times.sent[number] for number in times.answered)
    kubectl_times = Times()
    watches = kubectl_watches(world.kubectl.program, watched.kubectl, watched.environments, kubectl_times)
    that, that_lost = await _measure(world, watched, watches, kubectl_times)
    met = not lost and reach.met_by(mine.p50, mine.p99) if reach and size.targets else None
    work = f"change of {where}, {size.changes_per_second}/s, to an SSE client (the write alone: {seconds(write_s)})"
    row = Row(work, _with_lost(mine, lost), reach.text if reach else "", met)
    instead = f"`kubectl {' '.join(watched.kubectl)}` in each"
    return [row.with_rival(instead, _with_lost(that, that_lost), that.p50 / mine.p50)]


def _with_lost(latency: Latency, lost: int) -> str:
    return f"{latency}, {lost} of {latency.samples + lost} never came" if lost else str(latency)


async def _measure(
    world: World, watched: Watched, reader: AsyncIterator[None], times: Times
) -> tuple[Latency, int]:
    size = world.size
    writer = Writer(watched.targets, times)
    count, rate, each_s = len(watched.targets), size.changes_per_second, size.watch_s / size.runs
    try:
        async with asynccontextmanager(lambda: reader)():
            runs = [await measured(writer, times, count, rate, each_s) for _ in range(size.runs)]
    finally:
        await writer.close()
    return Latency.of([run.latencies for run in runs]), sum(run.lost for run in runs)


def _pods(stack: Stack, cluster: str, access: Access) -> list[Target]:
    page = list_pods(stack, clusters=cluster, limit=5, view="metadata")
    named = [item["object"]["metadata"] for item in page["items"]]
    return [Target(access, f"/api/v1/namespaces/{of['namespace']}/pods/{of['name']}") for of in named]


def _config_map(number: int) -> str:
    metadata = {"name": f"item-{number}", "namespace": _NAMESPACE}
    data = {"settings.properties": "\n".join(f"key-{line}=value-{line}" for line in range(100))}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _lab_is_live(stack: Stack) -> bool:
    page = list_pods(stack, type="configmaps", clusters="lab", namespace=_NAMESPACE)
    return [state["status"] for state in page.get("clusters", [])] == ["live"] and page["total"] >= OBJECTS


def _remove_lab(stack: Stack) -> None:
    connection = connect(stack)
    connection.send("DELETE", "/api/k8s/clusters/lab")
    connection.close()
