"""The embedded stack as a person starts it: `kubelore up --detach`, on a data directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from kubelore.stack.layout import DataDirectory, RunningStack
from kubelore.stack.memory import memory_bytes

LONGEST_START_S = 120.0


class Stack:
    """One stack; `up` and `down` as often as wanted, `with` takes it down.

    `environment` is what it is told besides, as by a person's shell.
    """

    def __init__(
        self, data: Path, *, demo: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory = DataDirectory(data)
        self._demo = demo
        self._environment = environment or {}

    def up(self) -> float:
        """Seconds until the command has returned, which is when everything is ready."""
        begun = time.perf_counter()
        self._run("up", "--detach", *([] if self._demo else ["--no-demo"]))
        return time.perf_counter() - begun

    def down(self) -> None:
        """Stop it."""
        self._run("down")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.down()

    @property
    def running(self) -> RunningStack:
        """What runs now."""
        running = RunningStack.now(self.directory)
        assert running is not None, f"no stack runs on {self.directory.root}"
        return running

    @property
    def url(self) -> str:
        """The gateway."""
        return self.running.url

    @property
    def token(self) -> str:
        """The administrator's token."""
        return self.directory.admin_token.read_text().strip()

    def pid(self, process: str) -> int:
        """The process of that name."""
        return next(found.pid for found in self.running.processes if found.name == process)

    def memory(self) -> dict[str, int]:
        """PSS in bytes of each process, and of the supervisor."""
        running = self.running
        pids = {"supervisor": running.pid, **{found.name: found.pid for found in running.processes}}
        return {name: memory_bytes(pid) or 0 for name, pid in pids.items()}

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [Path(sys.executable).parent / "kubelore", *arguments],
            capture_output=True,
            text=True,
            timeout=LONGEST_START_S,
            check=False,
            env={**os.environ, **self._environment, "KUBELORE_DATA": str(self.directory.root)},
        )
        assert done.returncode == 0, f"kubelore {' '.join(arguments)}: {done.stderr}"
