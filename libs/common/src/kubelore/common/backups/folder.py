"""Where the files of one backup lie: whatever lists, reads, and creates by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from kubelore.common.backups import names
from kubelore.common.errors import NotFound, TooLarge, Unavailable


class Folder(Protocol):
    """The files of a backup, to be read."""

    async def sizes(self) -> dict[str, int]:
        """Every file of the backup with its size in bytes."""
        ...

    async def read(self, name: str, *, max_bytes: int) -> bytes:
        """A whole file. Raises NotFound, TooLarge, Unavailable."""
        ...


class Sink(Protocol):
    """Where a backup is written to."""

    async def create(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet, whole or not at all. Raises AlreadyExists, Unavailable."""
        ...


class LocalFolder:
    """A backup as a folder on this machine, such as `backups/<id>` of a folder store."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def sizes(self) -> dict[str, int]:
        """Every file of the backup; other files in the folder are not looked at."""
        return await asyncio.to_thread(self._sizes)

    async def read(self, name: str, *, max_bytes: int) -> bytes:
        """A whole file. Raises NotFound, TooLarge, Unavailable."""
        return await asyncio.to_thread(self._read, name, max_bytes)

    def _sizes(self) -> dict[str, int]:
        found = [*self._path.glob("*"), *self._path.glob("chunks/*")]
        sizes = {
            path.relative_to(self._path).as_posix(): path.stat().st_size for path in found if path.is_file()
        }
        return {name: size for name, size in sizes.items() if names.is_ours(name)}

    def _read(self, name: str, max_bytes: int) -> bytes:
        path = self._path / name
        try:
            if path.stat().st_size > max_bytes:
                raise TooLarge(f"{path} has more than {max_bytes} bytes.")
            return path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"There is no file {path}.") from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error
