"""One child process that never outlives its parent.

On Linux the kernel kills the child when the process that started it dies, even
by kill -9; elsewhere what is left is ended at the next start. Every child leads
a session of its own, so that Ctrl-C in a terminal reaches the supervisor only,
which then stops things in their order, and so that what a child started can be
killed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from kubelore.common.errors import Unavailable
from kubelore.stack.output import Sink

_CLOCK_TICK_S = 0.05


@dataclass(frozen=True)
class Command:
    """What to run.

    `env` is the whole environment, None takes over ours; `grace_s` is the time
    it gets to stop by itself.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    grace_s: float = 15.0


@dataclass(frozen=True)
class Identity:
    """Names one process for good: a pid comes again, together with its start time it does not."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a running process, None when there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def process(self) -> psutil.Process | None:
        """The process itself, None when it ended (also when its pid now belongs to another)."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started_at) < _CLOCK_TICK_S
            alive = found.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return found if same and alive else None


class Child:
    """A started process, its output pumped into a sink."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, sink: Sink) -> None:
        self.command = command
        self.identity = Identity.of(process.pid) or Identity(process.pid, 0.0)
        self._process = process
        self._pump = asyncio.create_task(self._copy_output(sink), name=f"output-{command.name}")

    @classmethod
    async def start(cls, command: Command, sink: Sink) -> Child:
        """Start it. Raises `Unavailable` when the program is missing or cannot be run."""
        try:
            process = await asyncio.create_subprocess_exec(
                *_ends_with_us(),
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(command.env) if command.env is not None else None,
                cwd=command.cwd,
                start_new_session=True,
            )
        except OSError as error:
            why = f"{command.argv[0]}: {error.strerror}"
            raise Unavailable(f"{command.name} cannot be started: {why}") from error
        return cls(command, process, sink)

    @property
    def pid(self) -> int:
        """Process id; only meaningful while it runs."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Until it ended and its output is written."""
        code = await self._process.wait()
        await self._pump
        return code

    async def stop(self) -> int:
        """Ask it to stop, and kill it with all it started when its grace is over."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self.command.grace_s)
        return await self.kill()

    async def kill(self) -> int:
        """End it and its whole group at once (SIGKILL), and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return await self.wait()

    async def _copy_output(self, sink: Sink) -> None:
        stream = self._process.stdout
        while stream is not None and (chunk := await stream.read(64 * 1024)):
            sink(chunk)


async def run_once(command: Command, sink: Sink, within_s: float) -> int:
    """Run a program to its end, and return its code. Raises `Unavailable` when it takes too long."""
    child = await Child.start(command, sink)
    try:
        async with asyncio.timeout(within_s):
            return await child.wait()
    except TimeoutError as error:
        raise Unavailable(f"{command.name} did not end within {within_s:g} s") from error
    finally:
        if child.returncode is None:
            await child.kill()


def _ends_with_us() -> tuple[str, ...]:
    # setpriv (util-linux) rather than preexec_fn, which is unsafe in a process with threads.
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


async def until_ready(child: Child, probe: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Wait until the probe says yes.

    Raises `Unavailable` when the process ends, or the time is over, before that.
    """
    name, pause_s = child.command.name, 0.01
    try:
        async with asyncio.timeout(within_s):
            while True:
                if child.returncode is not None:
                    raise Unavailable(f"{name} ended with code {child.returncode} before it was ready")
                if await probe():
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, 0.2)
    except TimeoutError as error:
        raise Unavailable(f"{name} was not ready within {within_s:g} s") from error
