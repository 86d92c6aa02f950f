"""Keeps processes running: starts them, notices when one ends, starts it again, and stops all in order.

It knows nothing of what they are: a program says how it is prepared, started
and probed. Programs started together form a group; groups stop in the reverse
order of their start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from kubelore.common.errors import Unavailable
from kubelore.stack.child import Child, Command, until_ready
from kubelore.stack.layout import ProcessState
from kubelore.stack.output import PrefixedLines, RotatedLog


class Program(Protocol):
    """What the supervisor needs to know of something that it runs."""

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        ...

    @property
    def ready_within_s(self) -> float:
        """How long a start may take."""
        ...

    async def prepare(self) -> None:
        """Write what it reads at its start."""
        ...

    def command(self) -> Command:
        """How it is started."""
        ...

    async def probe(self) -> bool:
        """Whether it is ready now."""
        ...


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a start: doubling from `first_s` to `longest_s`.

    Failures are forgotten after `stable_s` of running.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    stable_s: float = 60.0

    def wait_s(self, failures: int) -> float:
        """Seconds before the start that follows the given number of failures in a row (at least one)."""
        return min(self.first_s * 2 ** min(failures - 1, 30), self.longest_s)

    def failures(self, before: int, ran_s: float) -> int:
        """Failures in a row, after one more end of a process that ran so long."""
        return 1 if ran_s >= self.stable_s else before + 1


class _Kept:
    """One program and its process, over all its starts."""

    def __init__(self, program: Program, log: RotatedLog, terminal: BinaryIO | None) -> None:
        self.program = program
        self.log = log
        self.child: Child | None = None
        self.state = "starting"
        self.since = time.time()
        self.restarts = 0
        self.task: asyncio.Task[None] | None = None
        self._ready_at: float | None = None
        self._lines = PrefixedLines(program.name, terminal) if terminal else None

    def write(self, chunk: bytes) -> None:
        self.log.write(chunk)
        if self._lines is not None:
            self._lines.write(chunk)

    def enter(self, state: str) -> None:
        self.state, self.since = state, time.time()
        self._ready_at = time.monotonic() if state == "running" else None

    def ran_s(self) -> float:
        """Seconds since it was ready, zero when it never was."""
        return time.monotonic() - self._ready_at if self._ready_at is not None else 0.0

    def described(self) -> ProcessState:
        identity = self.child.identity if self.child is not None else None
        return ProcessState(
            name=self.program.name,
            state=self.state,
            pid=identity.pid if identity else 0,
            started_at=identity.started_at if identity else 0.0,
            since=self.since,
            restarts=self.restarts,
        )


class Supervisor:
    """Runs groups of programs.

    `say` tells a person what happens; `changed` is called after every change of
    a state; `terminal` gets the output of all, each line with its origin.
    """

    def __init__(
        self,
        logs: Path,
        *,
        say: Callable[[str], None],
        changed: Callable[[], None],
        terminal: BinaryIO | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._logs = logs
        self._say = say
        self._changed = changed
        self._terminal = terminal
        self._backoff = backoff or Backoff()
        self._groups: list[list[_Kept]] = []
        self._stopping = False

    def processes(self) -> tuple[ProcessState, ...]:
        """Every process in the order of its start."""
        return tuple(kept.described() for group in self._groups for kept in group)

    async def start(self, *programs: Program) -> None:
        """Start a group at once and wait until all of it is ready.

        The first start is not tried again: raises `Unavailable` with the last
        lines of the log, and the rest of the group keeps running until `stop`.
        """
        group = [_Kept(program, self._log_of(program), self._terminal) for program in programs]
        self._groups.append(group)
        try:
            async with asyncio.TaskGroup() as starts:
                for kept in group:
                    starts.create_task(self._first_start(kept), name=f"start-{kept.program.name}")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        for kept in group:
            kept.task = asyncio.create_task(self._keep(kept), name=f"keep-{kept.program.name}")

    async def stop(self) -> None:
        """Stop all, the group started last first; a program that does not stop in its grace is killed."""
        self._stopping = True
        for group in reversed(self._groups):
            await self._give_up(group)
            await asyncio.gather(*(self._stop_one(kept) for kept in group))

    async def kill(self) -> None:
        """End all at once, without any order."""
        self._stopping = True
        everything = [kept for group in self._groups for kept in group]
        await self._give_up(everything)
        await asyncio.gather(*(kept.child.kill() for kept in everything if kept.child is not None))

    def _log_of(self, program: Program) -> RotatedLog:
        return RotatedLog(self._logs / f"{program.name}.log")

    async def _first_start(self, kept: _Kept) -> None:
        await kept.program.prepare()
        await self._start_one(kept)

    async def _start_one(self, kept: _Kept) -> None:
        self._enter(kept, "starting")
        kept.log.begin()
        try:
            kept.child = await Child.start(kept.program.command(), kept.write)
            self._changed()
            await until_ready(kept.child, kept.program.probe, kept.program.ready_within_s)
        except Unavailable as error:
            if kept.child is not None:
                await kept.child.kill()
            self._enter(kept, "failed")
            last_lines = kept.log.tail()
            detail = f"{error.detail}\n{last_lines}".rstrip()
            raise Unavailable(detail, remedy=f"The whole log: {kept.log.path}") from error
        self._enter(kept, "running")

    async def _keep(self, kept: _Kept) -> None:
        failures = 0
        while kept.child is not None:
            code = await kept.child.wait()
            if self._stopping:
                return
            failures = self._backoff.failures(failures, kept.ran_s())
            wait_s = self._backoff.wait_s(failures)
            self._say(f"{kept.program.name} ended with code {code}; starting it again in {wait_s:g} s")
            self._enter(kept, "waiting")
            await asyncio.sleep(wait_s)
            kept.restarts += 1
            try:
                await self._start_one(kept)
                self._say(f"{kept.program.name} runs again")
            except Unavailable as error:
                self._say(error.detail)

    async def _stop_one(self, kept: _Kept) -> None:
        if kept.child is not None and kept.child.returncode is None:
            self._enter(kept, "stopping")
            await kept.child.stop()
        self._enter(kept, "stopped")

    async def _give_up(self, group: list[_Kept]) -> None:
        tasks = [kept.task for kept in group if kept.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _enter(self, kept: _Kept, state: str) -> None:
        kept.enter(state)
        self._changed()
