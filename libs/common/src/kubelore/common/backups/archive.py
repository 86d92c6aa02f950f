"""A backup as one file: a POSIX tar of its folder, keys and manifest first, then the chunks in order."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO

from kubelore.common.backups import names, sealing
from kubelore.common.backups.faults import ArchiveDamaged, ChunkMissing
from kubelore.common.backups.folder import Folder
from kubelore.common.errors import NotFound, TooLarge, Unavailable

BLOCK = 512
MAX_FILES = 1_000_000


def archive_size(sizes: dict[str, int]) -> int:
    """How many bytes `archive` gives for files of these sizes."""
    return sum(BLOCK + size + _padding(size) for size in sizes.values()) + 2 * BLOCK


async def archive(folder: Folder, backup_id: str, sizes: dict[str, int]) -> AsyncGenerator[bytes]:
    """The archive in pieces of one chunk at most; `sizes` are the folder's, asked before.

    Raises ChunkMissing when a file is gone or has another size by now: what was
    sent until then ends without tar's end, so that no reader takes it for whole.
    """
    for name in sorted(sizes, key=lambda name: (names.is_chunk(name), name == names.MANIFEST, name)):
        entry = tarfile.TarInfo(f"{backup_id}/{name}")
        entry.size, entry.mode = sizes[name], 0o600
        most = max(sealing.MAX_CHUNK_BYTES, sealing.MAX_MANIFEST_BYTES)
        try:
            content = await folder.read(name, max_bytes=most)
        except NotFound as error:
            raise ChunkMissing(f"{name} of the backup {backup_id} was removed meanwhile.") from error
        if len(content) != sizes[name]:
            raise ChunkMissing(f"{name} of the backup {backup_id} has another size by now.")
        yield entry.tobuf(tarfile.USTAR_FORMAT)
        yield content
        if _padding(len(content)):
            yield bytes(_padding(len(content)))
    yield bytes(2 * BLOCK)


class ArchiveFolder:
    """The files in an archive on this machine; nothing is unpacked to disk. Made by `open`."""

    def __init__(self, path: Path, places: dict[str, tuple[int, int]]) -> None:
        self._path = path
        self._places = places

    @classmethod
    async def open(cls, path: Path) -> ArchiveFolder:
        """Find every file of the backup in it. Raises ArchiveDamaged, Unavailable."""
        try:
            return cls(path, await asyncio.to_thread(_places, path))
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error

    async def sizes(self) -> dict[str, int]:
        """Every file of the backup with its size."""
        return {name: size for name, (_, size) in self._places.items()}

    async def read(self, name: str, *, max_bytes: int) -> bytes:
        """A whole file. Raises NotFound, TooLarge, ArchiveDamaged."""
        if name not in self._places:
            raise NotFound(f"There is no {name} in {self._path}.")
        start, size = self._places[name]
        if size > max_bytes:
            raise TooLarge(f"{name} in {self._path} has more than {max_bytes} bytes.")
        return await asyncio.to_thread(self._read, start, size)

    def _read(self, start: int, size: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            content = file.read(size)
        if len(content) != size:
            raise ArchiveDamaged(f"{self._path} ends too soon.")
        return content


def _places(path: Path) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    folder = ""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        while (entry := _next_entry(file, path)) is not None:
            home, _, name = entry.name.partition("/")
            start = file.tell()
            if not entry.isreg() or not names.is_ours(name) or home != (folder or home):
                raise ArchiveDamaged(f"{path} holds {entry.name[:100]!r}, which no backup holds.")
            if name in places or len(places) >= MAX_FILES:
                raise ArchiveDamaged(f"{path} holds {name} more than once, or too many files.")
            if start + entry.size > end:
                raise ArchiveDamaged(f"{path} ends too soon.", remedy="Download it again.")
            folder = home
            places[name] = (start, entry.size)
            file.seek(start + entry.size + _padding(entry.size))
    return places


def _next_entry(file: BinaryIO, path: Path) -> tarfile.TarInfo | None:
    block = file.read(BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except tarfile.TarError as error:
        if block == bytes(BLOCK) and file.read(BLOCK) == bytes(BLOCK):
            return None
        raise ArchiveDamaged(
            f"{path} is no archive of a backup, or ends too soon.", remedy="Download it again."
        ) from error
    except UnicodeDecodeError as error:
        raise ArchiveDamaged(f"{path} is no archive of a backup.") from error


def _padding(size: int) -> int:
    return -size % BLOCK
