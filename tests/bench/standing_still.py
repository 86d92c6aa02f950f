"""What happens when the replica that owns one of the clusters is stopped (SIGSTOP): to the others' rows, and to its own.

A second replica of resource-ops is started with the environment of the stack's
own, until the first one has given a cluster up to it.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.figures import Reach, Row, seconds
from tests.bench.world import RESOURCES, World

PAGE = 100
OWNS_WITHIN_S = 120.0
LIVE_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.2
ANSWER = Reach("1 s + 50 ms", (1.050,))
LIVE = Reach("35 s", (35.0,))


def stopped(world: World) -> list[Row]:
    """Ask for a page until the cluster is live again; how long the slowest answer took, and all of it."""
    world.wait_until_synced(world.stack)
    with _second_replica(world) as (process, log):
        cluster = _first_cluster(world, log)
        world.wait_until_synced(world.stack)
        process.send_signal(signal.SIGSTOP)
        begun = time.perf_counter()
        silent, others = _until_live(world, cluster, begun)
        live_s = time.perf_counter() - begun
    assert silent, f"{cluster} was never silent: the stopped replica did not own it"
    targets = world.size.targets
    work = f"the replica that owns 1 of {world.size.clusters} clusters is stopped (SIGSTOP)"
    slowest, usual = max(silent), statistics.median(silent)
    told = f"{usual * 1000:,.0f} ms, the slowest of {len(silent)} {slowest * 1000:,.0f} ms"
    met = ANSWER.met_by(slowest) and all(others) if targets else None
    return [
        Row(f"{work}: page of {PAGE} whole pods of the others", told, ANSWER.text, met),
        Row(
            f"{work}: until it is live again",
            seconds(live_s),
            LIVE.text,
            LIVE.met_by(live_s) if targets else None,
        ),
    ]


def _until_live(world: World, cluster: str, begun: float) -> tuple[list[float], list[bool]]:
    """Seconds of each answer that lacked the cluster, and whether it had a whole page of the others."""
    connection, query = world.connect(), {"type": "pods", "limit": PAGE}
    silent: list[float] = []
    others: list[bool] = []
    while True:
        asked = time.perf_counter()
        page: dict[str, Any] = json.loads(connection.get(RESOURCES, query))
        taken = time.perf_counter() - asked
        state = next(found for found in page["clusters"] if found["name"] == cluster)
        if state["status"] == "live" and state["count"] == world.size.pods:
            return silent, others
        if state["status"] == "error":
            silent.append(taken)
            rest = world.size.all_pods - world.size.pods
            others.append(len(page["items"]) == min(PAGE, rest) and page["total"] == rest)
        assert time.perf_counter() - begun < LIVE_WITHIN_S, f"{cluster} is not live again: {state}"
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _second_replica(world: World) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Its process, and the file with its log."""
    path = world.folder / "second-replica.log"
    inherited = Path(f"/proc/{world.stack.pid('resource-ops')}/environ").read_bytes()
    environment = dict(entry.split("=", 1) for entry in inherited.decode().split("\0") if "=" in entry)
    # Under the first one's name it would be taken for the same.
    environment.pop("KUBELORE_REPLICA", None)
    environment |= {"KUBELORE_LOG_FORMAT": "json", "KUBELORE_LOG_LEVEL": "INFO"}
    with path.open("wb") as log:
        command = [sys.executable, "-m", "kubelore.resource_ops"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield process, path
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_cluster(world: World, log: Path) -> str:
    """The first cluster that the replica observes, once the one that gave it answers for it no longer."""
    cluster = _said(log, "observing", "")
    return _said(world.stack.directory.logs / "resource-ops.log", "no longer answering", cluster)


def _said(log: Path, event: str, cluster: str) -> str:
    """The cluster of the first such event in a log, about this cluster when one is named."""
    deadline = time.monotonic() + OWNS_WITHIN_S
    while True:
        for line in log.read_text(errors="replace").splitlines():
            said: dict[str, Any] = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if said.get("event") == event and said["cluster"] == (cluster or said["cluster"]):
                return said["cluster"]
        assert time.monotonic() < deadline, f"nothing {event} {cluster} in {log.read_text()[-2000:]}"
        time.sleep(_LOOK_EVERY_S)
