"""Following logs on a real node: one chatty container against `kubectl logs -f`, a hundred against stern.

Both readers follow the same containers, one after the other, and count what
arrives: kubectl and stern at a pipe, Kubelore at an HTTP client that takes the
stream of events, each line with its origin. Lines are told apart by what the
container wrote, so that nothing else is counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import Reach, Row, megabytes
from tests.bench.stack import Stack
from tests.bench.world import World, add_cluster

from kubelore.lab import attached, build, recipes
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.errors import LabUnavailableError
from kubelore.lab.kubectl import kubectl_program
from kubelore.lab.node import Node, prepare_node
from kubelore.lab.session import kubeconfig_files
from kubelore.stack.memory import memory_bytes

NAMESPACE = "bench-logs"
MARK = b"served-by-the-bench"
CHATTY = Reach("0.8 of its lines", (-0.8,))
MANY = Reach("1.0 of its lines", (-1.0,))
MEMORY = Reach("200 MB", (200e6,))
PODS, CONTAINERS = 10, 10
ROUNDS = 3
OPEN_S = 5.0
_READY = ("wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s")
_BLOCK = (
    "i=0; while [ $i -lt 500 ]; do"
    f' echo "$i INFO {MARK.decode()} path=/api/items/$i status=200 duration=12ms"; i=$((i+1));'
    " done > /tmp/block; "
)
_FAST = _BLOCK + "while true; do cat /tmp/block; sleep 0.01; done"
_STEADY = _BLOCK + "while true; do head -n 40 /tmp/block; sleep 0.5; done"
_WORK_ONE = "follow one chatty container, lines a second at a client"
_WORK_MANY = f"follow {PODS * CONTAINERS} containers, lines a second at a client"


def follow_logs(world: World) -> list[Row]:
    """Both rows, or what is missing on this machine."""
    try:
        with _cluster(world.folder / "logs-lab") as kubeconfig:
            build.ensure([recipes.STERN])
            return _measured(world, kubeconfig)
    except LabUnavailableError as error:
        return [Row(_WORK_ONE, f"not measured: {error}"), Row(_WORK_MANY, f"not measured: {error}")]


@contextmanager
def _cluster(folder: Path) -> Iterator[Path]:
    """A cluster with a node: the one that runs already, where the environment says so, or one of its own."""
    if os.environ.get(attached.VARIABLE):
        yield kubeconfig_files()[0]
        return
    prepare_node()
    plane = ControlPlane(folder, "logs")
    node = Node(plane)
    with asyncio.Runner() as runner:
        runner.run(plane.start())
        try:
            runner.run(node.__aenter__())
            try:
                yield plane.kubeconfig_file()
            finally:
                runner.run(node.__aexit__(None, None, None))
        finally:
            runner.run(plane.stop())


def _measured(world: World, kubeconfig: Path) -> list[Row]:
    kubectl = (str(kubectl_program()), "--kubeconfig", str(kubeconfig), "-n", NAMESPACE)
    seconds = world.size.watch_s
    with Stack(world.folder / "logs") as stack:
        stack.up()
        add_cluster(stack, "lab", kubeconfig.read_text())
        with _pods(kubectl, [_pod("chatty", 1, _FAST)]):
            path = f"/api/k8s/containers/lab:{NAMESPACE}:chatty:c0/logs/stream?tail=0"
            command = (*kubectl, "logs", "-f", "--tail=0", "chatty")
            one = _compared(lambda: _ours(stack, path, seconds), lambda: _theirs(command, seconds))
        with _pods(kubectl, [_pod(f"many-{number}", CONTAINERS, _STEADY) for number in range(PODS)]):
            stern = (
                str(build.program(recipes.STERN, "stern")),
                *("--kubeconfig", str(kubeconfig), "-n", NAMESPACE, "--tail=0"),
                *("--max-log-requests", str(2 * PODS * CONTAINERS), "."),
            )
            path = f"/api/k8s/logs/stream?clusters=lab&namespace={NAMESPACE}&tail=0"
            many = _compared(lambda: _ours(stack, path, seconds), lambda: _theirs(stern, seconds))
            memory = memory_bytes(stack.pid("container-ops")) or 0
    targets = world.size.targets
    return [
        _row(_WORK_ONE, one, CHATTY, "`kubectl logs -f`", targets=targets),
        _row(_WORK_MANY, many, MANY, "stern v1.33.1", targets=targets),
        Row(
            f"memory of container-ops behind {_WORK_MANY.partition(',')[0]}",
            megabytes(memory),
            MEMORY.text,
            MEMORY.met_by(memory) if targets else None,
        ),
    ]


def _row(work: str, rates: tuple[float, float], reach: Reach, instead: str, *, targets: bool) -> Row:
    mine, that = rates
    ratio = mine / that if that else 0.0
    met = reach.met_by(-ratio) if targets else None
    return Row(work, f"{mine:,.0f}/s", reach.text, met, instead, f"{that:,.0f}/s", ratio)


def _compared(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Medians of rounds in which each goes once, so that what else the machine does meets both."""
    rounds = [(ours(), theirs()) for _ in range(ROUNDS)]
    return statistics.median(one for one, _ in rounds), statistics.median(two for _, two in rounds)


def _ours(stack: Stack, path: str, seconds: float) -> float:
    parts = urlsplit(stack.url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {stack.token}\r\n\r\n"
        connection.sendall(head.encode())
        return _rate(lambda: connection.recv(1 << 20), seconds)


def _theirs(command: tuple[str, ...], seconds: float) -> float:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdout is not None
        try:
            return _rate(lambda: process.stdout.read(1 << 20) if process.stdout else b"", seconds)
        finally:
            process.kill()


def _rate(read: Callable[[], bytes | None], seconds: float) -> float:
    """Marked lines a second, counted from a while after the first came: by then all logs are open."""
    begun: float | None = None
    count = 0
    while True:
        chunk = read()
        now = time.perf_counter()
        assert chunk, "the log ended"
        if begun is None:
            if MARK in chunk:
                begun = now + OPEN_S
        elif now >= begun:
            count += chunk.count(MARK)
            if now - begun >= seconds:
                return count / (now - begun)


@contextmanager
def _pods(kubectl: tuple[str, ...], pods: list[dict[str, object]]) -> Iterator[None]:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    items = {"apiVersion": "v1", "kind": "List", "items": [namespace, *pods]}
    _run(kubectl, "apply", "-f", "-", said=json.dumps(items))
    try:
        _run(kubectl, *_READY)
        yield
    finally:
        _run(kubectl, "delete", "namespace", NAMESPACE, "--timeout=120s")


def _pod(name: str, containers: int, script: str) -> dict[str, object]:
    each = {"image": "kubelore.local/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": f"c{number}", **each} for number in range(containers)],
        },
    }


def _run(kubectl: tuple[str, ...], *arguments: str, said: str | None = None) -> None:
    done = subprocess.run(
        [*kubectl, *arguments], input=said, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
