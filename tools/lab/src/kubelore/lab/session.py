"""One lab per user in the foreground: two clusters at a known place, until somebody ends it."""

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from kubelore.lab import build
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.node import Node, prepare_node

WITH_NODE = "lab-node"
WITHOUT_NODE = "lab-plain"

_DOWN_SECONDS = 60


async def serve() -> None:
    """Run both clusters until SIGINT or SIGTERM, then end them in order.

    Where no node can be, both are control planes only, and that is said. Raises LabError when a lab runs
    already.
    """
    task = asyncio.current_task()
    assert task is not None
    _cancel_once(task)
    with _only_one():
        folder = _folder()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            async with AsyncExitStack() as stack:
                await _start(stack, folder)
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("the lab has ended", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def stop_running() -> None:
    """End the lab that runs and wait for it; raises LabError when none does or it doesn't end."""
    pid = _running()
    if pid is None:
        raise LabError("no lab runs")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while _running() is not None:
        if time.monotonic() > deadline:
            raise LabError(f"the lab (process {pid}) did not end within {_DOWN_SECONDS} s")
        time.sleep(0.1)


def kubeconfig_files() -> list[Path]:
    """The kubeconfig files of the lab that runs; raises LabError when none does."""
    files = [_folder() / name / "kubeconfig" for name in (WITH_NODE, WITHOUT_NODE)]
    if _running() is None:
        raise LabError("no lab runs")
    return [file for file in files if file.exists()]


async def _start(stack: AsyncExitStack, folder: Path) -> None:
    first = ControlPlane(folder / WITH_NODE, WITH_NODE)
    second = ControlPlane(folder / WITHOUT_NODE, WITHOUT_NODE)
    for plane in (first, second):
        stack.push_async_exit(plane)
    await asyncio.gather(first.start(), second.start())
    try:
        prepare_node()
        await stack.enter_async_context(Node(first))
        note = "with a node and metrics"
    except LabUnavailableError as error:
        note = f"without a node ({error})"
    print(f"{first.kubeconfig_file()}  {first.server}  {note}")
    print(f"{second.kubeconfig_file()}  {second.server}  a control plane only")
    print("Ctrl-C ends both", flush=True)


def _cancel_once(task: "asyncio.Task[None]") -> None:
    """The first signal ends the lab; impatient further ones must not break off the cleaning up."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        print("ending the lab", file=sys.stderr, flush=True)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


def _folder() -> Path:
    return build.cache_folder() / "up"


def _lock() -> Path:
    return build.cache_folder() / "up.lock"


@contextmanager
def _only_one() -> Iterator[None]:
    _lock().parent.mkdir(parents=True, exist_ok=True)
    with _lock().open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"a lab runs already (process {_running()})") from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _running() -> int | None:
    """The process id of the lab that runs: whose file is locked, for a dead one's file stays."""
    if not _lock().exists():
        return None
    with _lock().open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(handle.read() or 0) or None
    return None
