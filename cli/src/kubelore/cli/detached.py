"""A stack in the background: started, waited for, and left running."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import typer

from kubelore.cli.banner import print_banner
from kubelore.common.errors import DeadlineExceeded, Unavailable
from kubelore.stack.kept import Kept
from kubelore.stack.layout import DataDirectory, DirectoryLock, RunningStack
from kubelore.stack.output import RotatedLog

START_S = 300.0
_POLL_S = 0.05


def start_detached(directory: DataDirectory, *, port: int | None, no_demo: bool, replicas: str) -> None:
    """Start a stack in a session of its own, and return once it is ready.

    Raises `Conflict` when one runs already, `DeadlineExceeded` when it does not
    get ready; when it ends instead, what it said is shown and the code is 1.
    """
    begun = time.monotonic()
    first_start = not Kept.load(directory).was_ready
    _see_that_it_is_free(directory)
    log = RotatedLog(directory.logs / "stack.log")
    log.write(b"\n")
    said_from = log.path.stat().st_size
    child = _start(directory, log.path, port, no_demo, replicas)
    while time.monotonic() - begun < START_S:
        running = RunningStack.now(directory)
        if running is not None and running.pid == child.pid and running.phase == "ready":
            took_s = time.monotonic() - begun
            print_banner(directory, running.url, first_start=first_start, took_s=took_s)
            return
        if child.poll() is not None:
            with log.path.open("rb") as said:
                said.seek(said_from)
                typer.echo(said.read(64 * 1024).decode(errors="replace"), err=True, nl=False)
            raise typer.Exit(1)
        time.sleep(_POLL_S)
    raise DeadlineExceeded(
        f"not ready within {START_S:g} s", remedy=f"{log.path} may tell why; `kubelore down` stops it."
    )


def _see_that_it_is_free(directory: DataDirectory) -> None:
    try:
        directory.make()
    except OSError as error:
        raise Unavailable(
            f"{directory.root} cannot be used: {error.strerror}", remedy="Name another with --data."
        ) from error
    lock = DirectoryLock(directory)
    lock.acquire()
    lock.release()


def _start(
    directory: DataDirectory, log: Path, port: int | None, no_demo: bool, replicas: str
) -> subprocess.Popen[bytes]:
    options = ["--data", str(directory.root)]
    if port is not None:
        options += ["--port", str(port)]
    if no_demo:
        options.append("--no-demo")
    if replicas:
        options += ["--replicas", replicas]
    command = [sys.executable, "-m", "kubelore.cli", "up", "--detached", *options]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
