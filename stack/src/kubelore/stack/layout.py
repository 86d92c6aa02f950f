"""Where everything of one data directory lies, and what a running stack leaves there for others to find."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kubelore.common.errors import Conflict
from kubelore.stack.child import Identity
from kubelore.stack.private_files import write_private


def default_data_directory() -> Path:
    """What KUBELORE_DATA names, else the usual place."""
    named = os.environ.get("KUBELORE_DATA")
    return Path(named).expanduser().absolute() if named else usual_data_directory()


def usual_data_directory() -> Path:
    """Where the data lies when nothing is said: in XDG_DATA_HOME, else in ~/.local/share."""
    share = os.environ.get("XDG_DATA_HOME")
    return (Path(share) if share else Path.home() / ".local" / "share") / "kubelore"


@dataclass(frozen=True)
class DataDirectory:
    """The paths in a data directory. Its folders are 0700, and so is it."""

    root: Path

    @property
    def keyring(self) -> Path:
        """Keyrings: without them nothing that was sealed can be read."""
        return self.root / "keyring"

    @property
    def blobs(self) -> Path:
        """The blob store: backups and log segments."""
        return self.root / "blobs"

    @property
    def logs(self) -> Path:
        """One bounded log a process."""
        return self.root / "logs"

    @property
    def demo(self) -> Path:
        """Kubeconfigs and credentials of the simulated clusters."""
        return self.root / "demo"

    @property
    def admin_token(self) -> Path:
        """The administrator's token in force."""
        return self.root / "admin-token"

    @property
    def kept(self) -> Path:
        """What a restart takes over: ports, passwords, purposes."""
        return self.root / "state" / "kept.json"

    @property
    def running(self) -> Path:
        """What runs now, or ran last."""
        return self.root / "state" / "running.json"

    @property
    def lock(self) -> Path:
        """Held by the stack that uses the directory."""
        return self.root / "state" / "lock"

    def make(self) -> None:
        """Make the folders that are missing. Raises OSError where that is not allowed."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.blobs, self.logs, self.demo, self.kept.parent):
            folder.mkdir(exist_ok=True, mode=0o700)


@dataclass(frozen=True)
class ProcessState:
    """One process as `kubelore status` shows it; `since` is seconds since the epoch."""

    name: str
    state: str
    pid: int
    started_at: float
    since: float
    restarts: int = 0

    @property
    def identity(self) -> Identity:
        """Names the process for good."""
        return Identity(self.pid, self.started_at)


@dataclass(frozen=True)
class RunningStack:
    """What a stack tells about itself in its data directory; nothing in it is secret.

    `phase` is starting, ready or stopping.
    """

    pid: int
    started_at: float
    url: str
    phase: str
    since: float
    processes: tuple[ProcessState, ...] = field(default=())
    urls: tuple[str, ...] = ()
    """Where each replica of the gateway listens; `url` is the first of them."""

    @property
    def identity(self) -> Identity:
        """Names the supervisor's process for good."""
        return Identity(self.pid, self.started_at)

    def save(self, directory: DataDirectory) -> None:
        """Replace what the directory says."""
        write_private(directory.running, json.dumps(asdict(self), indent=2))

    @classmethod
    def last(cls, directory: DataDirectory) -> RunningStack | None:
        """What was said last, whether it still runs or not; None when nothing readable was."""
        try:
            said: dict[str, Any] = json.loads(directory.running.read_text())
            processes = tuple(ProcessState(**process) for process in said.pop("processes", ()))
            urls = tuple(said.pop("urls", ()))
            return cls(**said, urls=urls, processes=processes)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    @classmethod
    def now(cls, directory: DataDirectory) -> RunningStack | None:
        """The stack that runs on the directory, None when there is none."""
        last = cls.last(directory)
        return last if last is not None and last.identity.process() is not None else None


class DirectoryLock:
    """Held while a stack uses the directory; the kernel lets go when the process ends, however it ends."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises `Conflict`, naming the URL of the stack that holds it."""
        descriptor = os.open(self._directory.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            running = RunningStack.last(self._directory)
            where = f" at {running.url} (process {running.pid})" if running else ""
            raise Conflict(
                f"Kubelore already runs on {self._directory.root}{where}",
                remedy="Use it, stop it with `kubelore down`, or name another directory with --data.",
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; nothing happens when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
