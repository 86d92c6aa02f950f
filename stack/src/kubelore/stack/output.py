"""Where the output of a child process goes: a bounded file, and the terminal when asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Sink = Callable[[bytes], None]

_MAX_LINE = 16 * 1024


class RotatedLog:
    """A log file of at most `max_bytes`, with `kept` older ones beside it (`name.log.1` is the newest).

    Files are 0600: what servers log may name databases, users and addresses.
    """

    def __init__(self, path: Path, *, max_bytes: int = 8 * 1024 * 1024, kept: int = 2) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._kept = kept
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        self._size = self._file.tell()
        self._begun_at = self._size

    def begin(self) -> None:
        """A new run starts here: `tail` tells of nothing before it."""
        self._begun_at = self._size

    def write(self, chunk: bytes) -> None:
        """Append; starts a new file first when this one would grow over its limit."""
        if self._size and self._size + len(chunk) > self._max_bytes:
            self._rotate()
        self._file.write(chunk)
        self._size += len(chunk)

    def tail(self, lines: int = 20) -> str:
        """The last lines of this run, for a message that says why a process ended."""
        with self.path.open("rb") as file:
            file.seek(max(self._begun_at, self._size - 64 * 1024))
            return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace")

    def close(self) -> None:
        """Close the file; a write after it raises ValueError."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._kept, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number}"))
        self._file = self._open()
        self._size = self._begun_at = 0

    def _open(self) -> BinaryIO:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)


class PrefixedLines:
    """Writes whole lines with the name of their process in front, so that several may share one terminal."""

    def __init__(self, name: str, terminal: BinaryIO, *, width: int = 16) -> None:
        self._prefix = f"{name:<{width}} | ".encode()
        self._terminal = terminal
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        """Pass on what completes lines; a line over 16 KiB is cut into several."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._terminal.write(self._prefix + line + b"\n")
        if lines:
            self._terminal.flush()
