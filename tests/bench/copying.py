"""How fast files and trees are copied into and out of a container of a real node, beside `kubectl cp`.

`kubelore cp` takes the hash on this machine, in container-ops and in the
container; `kubectl cp` takes none.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Thread

from tests.bench.figures import Reach, Row, megabytes
from tests.bench.real_node import CLUSTER, RealNode, box, real_node
from tests.bench.stack import Stack
from tests.bench.watching import with_lab
from tests.bench.world import World

from kubelore.lab.kubectl import kubectl_program
from kubelore.stack.memory import memory_bytes

HASHED = Reach("0.75 of kubectl's speed, hashed in the container too", (1 / 0.75,))
TREE = Reach("1.0 of kubectl's speed", (1.0,))
MEMORY = Reach("64 MB more", (64e6,))
_WORK = "copies into and out of a container of a real node"
_COPIED_S = 300.0


def copy(world: World) -> list[Row]:
    """One file of 500 MB and one tree of 5,000 small files, each way."""
    return with_lab(lambda: _on_the_node(world), _WORK, HASHED)


async def _on_the_node(world: World) -> list[Row]:
    with Stack(world.folder / "copying") as stack:
        await asyncio.to_thread(stack.up)
        async with real_node(world.folder / "copied", stack, [box("box")]) as node:
            return await asyncio.to_thread(_rows, world, stack, node)


def _rows(world: World, stack: Stack, node: RealNode) -> list[Row]:
    folder = world.folder / "copies"
    folder.mkdir()
    size = 500_000_000 if world.size.targets else 5_000_000
    count = 5_000 if world.size.targets else 100
    _make_file(folder / "file", size)
    _make_tree(folder / "tree", count)
    pair = _Pair(stack, node, world.size.targets)
    file = f"file of {size // 1_000_000} MB"
    tree = f"tree of {count:,} files of 1 KB"
    before = _memory(stack)
    with _Most(stack) as most:
        rows = [
            pair.row(f"upload of a {file}", folder / "file", "{place}/{n}-file", HASHED, size),
            pair.row(f"download of a {file}", "{place}/0-file", folder / "{n}-file", HASHED, size),
        ]
    grown = most.bytes - before
    met = MEMORY.met_by(grown) if world.size.targets else None
    rows.append(
        Row("memory of gateway and container-ops during that", f"{megabytes(grown)} more", MEMORY.text, met)
    )
    rows.append(pair.row(f"upload of a {tree}", folder / "tree", "{place}/{n}-tree", TREE, 0))
    rows.append(pair.row(f"download of a {tree}", "{place}/0-tree", folder / "{n}-tree", TREE, 0))
    return rows


class _Pair:
    """The same copy by both commands, in turn; the best of three each."""

    def __init__(self, stack: Stack, node: RealNode, targets: bool) -> None:
        self._targets = targets
        self._runs = 3 if targets else 1
        self._mine = {**os.environ, "KUBELORE_URL": stack.url, "KUBELORE_TOKEN": stack.token}
        self._that = {**os.environ, "KUBECONFIG": str(node.kubeconfig)}
        self._place = f"{CLUSTER}:{node.namespace}:box:main:/tmp"
        self._pod = f"{node.namespace}/box:/tmp"

    def row(self, work: str, source: Path | str, target: Path | str, reach: Reach, size: int) -> Row:
        """One line; a target has a name of its own in each run."""
        kubelore = [str(Path(sys.executable).parent / "kubelore"), "cp"]
        kubectl = [str(kubectl_program()), "cp"]
        mine, that = list[float](), list[float]()
        for run in range(self._runs):
            for program, place, env, number, taken in (
                (kubelore, self._place, self._mine, run, mine),
                (kubectl, self._pod, self._that, 100 + run, that),
            ):
                words = [str(one).format(place=place, n=number) for one in (source, target)]
                taken.append(_timed([*program, *words], env))
        ratio = min(mine) / min(that)
        met = reach.met_by(ratio) if self._targets else None
        row = Row(f"{work}, `kubelore cp`", _told(min(mine), size), reach.text, met)
        return row.with_rival("`kubectl cp`", _told(min(that), size), 1 / ratio)


def _told(seconds: float, size: int) -> str:
    return f"{seconds:.2f} s" + (f", {size / seconds / 1e6:.0f} MB/s" if size else "")


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=dict(environment), check=True, capture_output=True, timeout=_COPIED_S)
    return time.perf_counter() - begun


def _make_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // 1_000_000):
            file.write(os.urandom(1_000_000))


def _make_tree(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"folder-{number // 100:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file-{number:04d}").write_bytes(os.urandom(512).hex().encode())


def _memory(stack: Stack) -> int:
    return sum(memory_bytes(stack.pid(name)) or 0 for name in ("gateway", "container-ops"))


class _Most:
    """The most memory that both services had while the block ran."""

    def __init__(self, stack: Stack) -> None:
        self._look: Callable[[], int] = lambda: _memory(stack)
        self._done = Event()
        self._thread = Thread(target=self._watch)
        self.bytes = 0

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.bytes = max(self.bytes, self._look())

    def __enter__(self) -> _Most:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
