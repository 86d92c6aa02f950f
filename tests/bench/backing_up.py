"""How fast encrypted backups are made, verified and restored, beside what a shell does with kubectl.

A stack of its own whose blob store is a real MinIO. Pods of 4.4 KB come from
kubesim; what is restored goes into a real API server, which says what it takes
from `kubectl create` before Kubelore knows it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from tests.bench.figures import Reach, Row, megabytes, seconds
from tests.bench.fleet import SimulatedClusters
from tests.bench.http_client import Connection
from tests.bench.recording import CLUSTERS, Memory, memory_of, recorded_in
from tests.bench.stack import Stack
from tests.bench.watching import with_lab
from tests.bench.world import World, add_cluster, connect, list_pods

from kubelore.lab import build, recipes
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.kubectl import kubectl_program
from kubelore.lab.minio import Minio
from kubelore.lab.waiting import wait_for

MAKE = Reach("8,000/s and 5 times", (-8_000.0, -5.0))
VERIFY = Reach("20,000/s", (-20_000.0,))
RESTORE = Reach("0.7 of that", (-0.7,))
MEMORY = Reach("300 MB", (300e6,))
PARALLEL = (1, 2, 4, 8)
"""How many `kubectl create` are tried at once."""
ENDS_WITHIN_S = 300.0
_PIPE_WITHIN_S = 900.0
_LOOK_EVERY_S = 0.05
_SPENDING = ("resource-ops", "nats", "yaml-vcs", "mongo")
_WORK = "encrypted backup to MinIO on this machine"
_SOURCE = "bench-1"


def back_up(world: World) -> list[Row]:
    """Backup and verification of simulated clusters, then a restore into a real one, with memory all along."""
    if not build.is_built(recipes.MINIO):
        return [Row(_WORK, f"skipped: {recipes.MINIO.key} not built, `make lab` does that", MAKE.text)]
    return with_lab(lambda: _measured(world), _WORK, MAKE)


async def _measured(world: World) -> list[Row]:
    folder = world.folder / "backups"
    folder.mkdir()
    async with Minio(folder) as store:
        with Stack(folder / "data", environment=_blobs_in(store)) as stack:
            await asyncio.to_thread(stack.up)
            with memory_of(stack.pid("yaml-vcs")) as memory:
                rows = await asyncio.to_thread(_simulated, world, folder, stack)
                rows += await _restored(world, folder, stack)
            return [*rows, _memory(memory, world.size.targets)]


def _blobs_in(store: Minio) -> dict[str, str]:
    return {
        "KUBELORE_BLOB_URL": f"s3://{store.bucket}/kubelore",
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_REGION": store.region,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
    }


def _memory(memory: Memory, targets: bool) -> Row:
    most = max(memory.seen)
    told = f"{megabytes(most)} at most; {megabytes(statistics.median(memory.seen))} in the middle"
    met = MEMORY.met_by(most) if targets else None
    return Row("PSS of yaml-vcs during these backups, verifications and restores", told, MEMORY.text, met)


@dataclass
class _Spent:
    """CPU seconds of processes, to tell what each object takes of them."""

    pids: Mapping[str, int]

    def __post_init__(self) -> None:
        self._before = self._now()

    def per_object(self, objects: int) -> str:
        """Microseconds of each process since then."""
        now = self._now()
        each = (f"{name} {(now[name] - self._before[name]) / objects * 1e6:.0f}" for name in self.pids)
        return f"us of CPU an object: {', '.join(each)}"

    def _now(self) -> dict[str, float]:
        times = {name: psutil.Process(pid).cpu_times() for name, pid in self.pids.items()}
        return {name: used.user + used.system for name, used in times.items()}


def _simulated(world: World, folder: Path, stack: Stack) -> list[Row]:
    size = world.size
    fleet = replace(size, clusters=CLUSTERS, pods=size.backed_up // CLUSTERS)
    with SimulatedClusters(folder / "clusters", fleet) as clusters:
        for path in clusters.kubeconfigs:
            add_cluster(stack, path.stem, path.read_text())
        with recorded_in(stack) as versions:
            versions.wait_for(fleet.all_pods, "the pods' first versions")
        names = [path.stem for path in clusters.kubeconfigs]
        spending = {"kubesim": clusters.pid, **{name: stack.pid(name) for name in _SPENDING}}
        connection = connect(stack)
        spent, taken, made = _Spent(spending), [], {}
        for _ in range(size.runs):
            made, took = _make(connection, {"clusters": names, "types": ["pods"]})
            assert made["objects"] == fleet.all_pods, made
            taken.append(took)
        making = spent.per_object(fleet.all_pods * size.runs)
        spent = _Spent({name: stack.pid(name) for name in ("yaml-vcs",)})
        verified = [_verify(connection, made) for _ in range(size.runs)]
        verifying = spent.per_object(fleet.all_pods * size.runs)
        connection.close()
        piped = _piped(clusters.kubeconfigs, folder)
        for name in names:
            _remove(stack, name)
    rate, verify_rate = (fleet.all_pods / statistics.median(each) for each in (taken, verified))
    megabyte = f"{made['bytes'] / 1e6:.0f} MB of JSON in {made['size'] / 1e6:.0f} MB"
    work = f"{_WORK}: {fleet.all_pods:,} pods of {CLUSTERS} kubesim clusters, {megabyte} ({making})"
    backup = Row(work, f"{rate:,.0f}/s ({seconds(statistics.median(taken))})", MAKE.text)
    if piped is not None:
        ratio = piped / statistics.median(taken)
        backup = backup.with_rival(_PIPED, f"{fleet.all_pods / piped:,.0f}/s ({seconds(piped)})", ratio)
        backup = replace(backup, met=MAKE.met_by(-rate, -ratio) if size.targets else None)
    verify = Row(
        f"verification of that backup, every object read and compared ({verifying})",
        f"{verify_rate:,.0f}/s ({seconds(statistics.median(verified))})",
        VERIFY.text,
        VERIFY.met_by(-verify_rate) if size.targets else None,
    )
    return [backup, verify]


_PIPED = "`kubectl get pods -A -o yaml | zstd | openssl enc -aes-256-ctr` in each, into a file"


def _piped(kubeconfigs: list[Path], folder: Path) -> float | None:
    """Seconds until the last cluster's pipe has ended, all side by side; None without zstd or openssl."""
    if not (shutil.which("zstd") and shutil.which("openssl")):
        return None

    def pipe(kubeconfig: Path) -> None:
        target = shlex.quote(str(folder / f"{kubeconfig.stem}.yaml.zst.enc"))
        line = (
            f"{shlex.quote(str(kubectl_program()))} get pods -A -o yaml | zstd -q "
            f"| openssl enc -aes-256-ctr -pbkdf2 -pass env:PASSPHRASE > {target}"
        )
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "HOME": str(folder),
            "PATH": os.environ.get("PATH", ""),
            "PASSPHRASE": "only a measurement",
        }
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PIPE_WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"the pipe for {kubeconfig.stem}: {done.stderr}"

    begun = time.perf_counter()
    with ThreadPoolExecutor(len(kubeconfigs)) as pool:
        list(pool.map(pipe, kubeconfigs))
    return time.perf_counter() - begun


def _make(connection: Connection, body: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """A completed backup that lacks nothing, and the seconds from the request until it was told so."""
    begun = time.perf_counter()
    asked = _begin(connection, "/api/k8s/yaml/backup/create", body)
    path = f"/api/k8s/yaml/backup/{asked['id']}"
    made = _wait(connection, path, lambda found: found["status"] not in ("pending", "running"))
    took = time.perf_counter() - begun
    assert made["status"] == "completed", made
    assert not made["partial"], made["missing"]
    return made, took


def _verify(connection: Connection, made: Mapping[str, Any]) -> float:
    path = f"/api/k8s/yaml/backup/{made['id']}"
    begun = time.perf_counter()
    _begin(connection, f"{path}/verify", None)
    seen = _wait(connection, path, lambda found: found["verification"]["state"] != "running")
    took = time.perf_counter() - begun
    assert seen["verification"]["state"] == "passed", seen["verification"]
    assert seen["verification"]["objects"] == made["objects"], seen["verification"]
    return took


def _begin(connection: Connection, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    status, said = connection.send("POST", path, body)
    assert status == 202, f"{path} answered {status}: {said[:500]!r}"
    return json.loads(said)


def _wait(connection: Connection, path: str, ended: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while not ended(found := json.loads(connection.get(path))):
        assert time.monotonic() < deadline, f"{path} did not end: {found}"
        time.sleep(_LOOK_EVERY_S)
    return found


def _remove(stack: Stack, cluster: str) -> None:
    connection = connect(stack)
    connection.send("DELETE", f"/api/k8s/clusters/{cluster}")
    connection.close()


async def _restored(world: World, folder: Path, stack: Stack) -> list[Row]:
    """kubectl first, while nothing watches that API server; then the same objects from a backup of them."""
    size = world.size
    async with ControlPlane(folder / "lab", "lab") as plane:
        created = {
            parallel: await _create(plane, folder, f"bench-{parallel}", size.restored, parallel)
            for parallel in PARALLEL
        }
        await asyncio.to_thread(add_cluster, stack, "lab", plane.kubeconfig())
        every = size.restored * len(PARALLEL)
        live = partial(asyncio.to_thread, _is_live, stack, every)
        await wait_for(live, "the lab cluster to be live", 120)
        spent = _Spent({name: stack.pid(name) for name in _SPENDING})
        taken = await asyncio.to_thread(_restores, world, stack)
        used = spent.per_object(size.restored * size.runs)
        await asyncio.to_thread(_remove, stack, "lab")
    best = min(created, key=created.__getitem__)
    rate, rival = size.restored / statistics.median(taken), size.restored / created[best]
    tried = ", ".join(f"{parallel}: {size.restored / took:,.0f}" for parallel, took in created.items())
    row = Row(
        f"restore of {size.restored:,} ConfigMaps of 5 KB into a namespace of a real API server that has "
        f"none of them, verification of the backup included ({used})",
        f"{rate:,.0f}/s ({seconds(statistics.median(taken))})",
        RESTORE.text,
        RESTORE.met_by(-rate / rival) if size.targets else None,
    )
    instead = f"`kubectl create -f`, {best} at once, the best of (a second) {tried}, nothing watching"
    return [row.with_rival(instead, f"{rival:,.0f}/s ({seconds(created[best])})", rate / rival)]


async def _create(plane: ControlPlane, folder: Path, namespace: str, count: int, parallel: int) -> float:
    """Seconds of so many kubectl side by side, each with its share of the objects in one file."""
    kubectl = plane.kubectl()
    await kubectl("create", "namespace", namespace)
    files = []
    for part in range(parallel):
        file = folder / f"{namespace}-{part}.json"
        items = [_config_map(namespace, number) for number in range(part, count, parallel)]
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        files.append(str(file))
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for file in files:
            group.create_task(kubectl("create", "-f", file, seconds=_PIPE_WITHIN_S))
    return time.perf_counter() - begun


def _config_map(namespace: str, number: int) -> dict[str, Any]:
    metadata = {"name": f"item-{number}", "namespace": namespace, "labels": {"app": f"app-{number % 10}"}}
    lines = "\n".join(f"service.{line}.endpoint=https://{number}-{line}.example.com/" for line in range(98))
    data = {"settings.properties": lines}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _restores(world: World, stack: Stack) -> list[float]:
    """Seconds of each restore of one backup, from the request until it was told that it ended."""
    size, connection = world.size, connect(stack)
    made, _ = _make(
        connection, {"clusters": ["lab"], "namespaces": [_SOURCE], "types": ["configmaps", "namespaces"]}
    )
    taken = []
    for run in range(size.runs):
        body = {"backup_id": made["id"], "namespace_map": {_SOURCE: f"restored-{run}"}}
        begun = time.perf_counter()
        asked = _begin(connection, "/api/k8s/yaml/backup/restore", body)
        path = f"/api/k8s/yaml/restore/{asked['id']}"
        told = _wait(connection, path, lambda found: found["state"] in ("completed", "failed", "cancelled"))
        taken.append(time.perf_counter() - begun)
        assert told["state"] == "completed", told
        assert told["counts"].get("created") == size.restored + 1, told["counts"]
    connection.close()
    return taken


def _is_live(stack: Stack, count: int) -> bool:
    page = list_pods(stack, type="configmaps", clusters="lab")
    return [state["status"] for state in page.get("clusters", [])] == ["live"] and page["total"] >= count
