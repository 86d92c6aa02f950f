"""How fast logs are collected, for one core's work, and how small they are then.

A simulated cluster of its own whose containers write faster than a core could
read. What is stored is told by the policy itself, the work by the CPU time of
container-ops over the same stretch: lines for each second of it are what one
core collects, whatever else the machine does.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

import httpx
import psutil
from tests.bench.figures import Reach, Row
from tests.bench.fleet import Access, SimulatedClusters
from tests.bench.stack import Stack
from tests.bench.world import World, add_cluster

CONTAINERS = 20
RATE = 3_000
"""Lines a second of each."""
LINES = Reach("50,000", (-50_000.0,))
SIZE = Reach("8 times", (-8.0,))
WARM_S = 20.0
_GIVE_UP_S = 120.0
_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Held:
    """What the policy holds and the CPU seconds that container-ops has used, at a moment."""

    lines: int
    raw: int
    stored: int
    cpu: float


def collect(world: World) -> list[Row]:
    """Collect from chatty containers for a while."""
    fleet = replace(world.size, clusters=1, pods=CONTAINERS)
    with (
        SimulatedClusters(world.folder / "collected", fleet) as clusters,
        Stack(world.folder / "collecting") as stack,
    ):
        stack.up()
        [path] = clusters.kubeconfigs
        _make_chatty(Access.of(path.read_text()), RATE if world.size.targets else 100)
        add_cluster(stack, path.stem, path.read_text())
        with _api(stack) as api:
            body = {"name": "all", "scope": {"clusters": [path.stem]}, "days": 1}
            api.post("/api/k8s/logs/policies", json=body).raise_for_status()
            before = _held(api, stack, more_than=0, at_least_s=WARM_S if world.size.targets else 0.0)
            after = _held(api, stack, more_than=before.lines, at_least_s=world.size.record_s)
    return _rows(before, after, targets=world.size.targets)


def _rows(before: Held, after: Held, *, targets: bool) -> list[Row]:
    lines, cpu = after.lines - before.lines, after.cpu - before.cpu
    rate, smaller = lines / cpu, (after.raw - before.raw) / (after.stored - before.stored)
    work = (
        f"collecting logs of {CONTAINERS} containers: lines stored for a second of one core's work "
        f"({lines:,} lines in {cpu:.1f} s of container-ops)"
    )
    met = (LINES.met_by(-rate), SIZE.met_by(-smaller)) if targets else (None, None)
    return [
        Row(work, f"{rate:,.0f}", LINES.text, met[0]),
        Row(
            "their size when stored, against the lines alone",
            f"{smaller:.1f} times smaller",
            SIZE.text,
            met[1],
        ),
    ]


def _make_chatty(access: Access, rate: int) -> None:
    annotation = {"metadata": {"annotations": {"kubesim.kubelore.dev/logs": f"rate={rate} style=web"}}}
    with httpx.Client(base_url=access.server, headers=access.headers, verify=access.context) as client:
        for pod in client.get("/api/v1/pods").json()["items"]:
            meta = pod["metadata"]
            answer = client.patch(
                f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}",
                content=json.dumps(annotation),
                headers={"Content-Type": _PATCH},
            )
            answer.raise_for_status()


def _api(stack: Stack) -> httpx.Client:
    headers = {"Authorization": f"Bearer {stack.token}"}
    return httpx.Client(base_url=stack.url, headers=headers, timeout=30)


def _held(api: httpx.Client, stack: Stack, *, more_than: int, at_least_s: float) -> Held:
    """What is held once there is more of it, and so much time has passed; at a moment when it just grew."""
    begun, lines = time.monotonic(), -1
    while time.monotonic() - begun < _GIVE_UP_S:
        held = api.get("/api/k8s/logs/policies/all").raise_for_status().json()["held"]
        grown, lines = 0 <= lines < held["lines"], held["lines"]
        if grown and lines > more_than and time.monotonic() - begun >= at_least_s:
            used = psutil.Process(stack.pid("container-ops")).cpu_times()
            return Held(lines, held["raw_bytes"], held["stored_bytes"], used.user + used.system)
        time.sleep(0.2)
    raise AssertionError(f"waited in vain for more than {more_than:,} collected lines")
