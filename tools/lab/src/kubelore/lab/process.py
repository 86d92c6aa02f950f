"""One program of the lab as a child process that can't outlive its parent.

`setpriv --pdeathsig` (util-linux) asks the kernel to kill the child when the thread that started it ends, so
that even a `kill -9` of the test run leaves no API server behind. Hence: start children from a thread that
lives as long as they should, in practice the main one.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kubelore.lab.errors import LabError, LabUnavailableError

_LOG_TAIL = 20
_POLL_SECONDS = 0.05


class Program:
    """A command line with a log file, started, killed, paused and ended as often as a test wants."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id while it runs; the program itself, for setpriv becomes it by exec."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start it; raises LabError when it runs already, LabUnavailableError without setpriv."""
        if self.running:
            raise LabError(f"{self.name} runs already")
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise LabUnavailableError("setpriv (util-linux) is missing on this machine")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [setpriv, "--pdeathsig", "KILL", "--", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                # Ctrl-C goes to the parent alone, which then ends its children in order.
                start_new_session=True,
            )

    def require_running(self) -> None:
        """Raise LabError with the end of its log when the program is not running."""
        if not self.running:
            code = self._process.returncode if self._process else None
            raise LabError(f"{self.name} is not running (exit code {code}), its log ends:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines that the program wrote."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a program that does not run is left alone."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until the kernel has taken it away."""
        self.send(signal.SIGKILL)
        await self._gone(10)

    async def stop(self, seconds: float = 5) -> None:
        """SIGTERM, and SIGKILL for one that has not ended after `seconds`; a paused one is woken first."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if not await self._gone(seconds):
            await self.kill()

    async def _gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True


async def run_command(
    *command: str, seconds: float = 60, environment: Mapping[str, str] | None = None
) -> str:
    """Run a short command to its end and return what it printed.

    Raises LabError with its words when it fails or takes longer than `seconds`.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise LabError(f"{' '.join(command)} took longer than {seconds:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {err.decode(errors='replace').strip()[-1000:]}")
    return out.decode(errors="replace")
