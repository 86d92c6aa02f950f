"""Reading a backup: the manifest first, then chunks in order, each verified before anything of it is seen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator

import msgspec

from kubelore.common.backups import keys, manifest, names, records, sealing
from kubelore.common.backups.faults import (
    BackupFault,
    BackupIncomplete,
    ChunkAltered,
    ChunkMissing,
    ChunkUnexpected,
    KeyRefused,
    ManifestForeign,
    RecordDamaged,
)
from kubelore.common.backups.folder import Folder
from kubelore.common.backups.keys import DataKeys
from kubelore.common.backups.manifest import ChunkEntry, Manifest
from kubelore.common.backups.records import Record
from kubelore.common.crypto import Keyring
from kubelore.common.errors import NotFound, TooLarge

READ_AHEAD = 3
"""Chunks that are read and opened before they are asked for; 5 MB each, and again as much for their records."""
MAX_KEY_BYTES = 4096

Progress = Callable[["Verified"], None]


class Verified(msgspec.Struct, kw_only=True):
    """How much of a backup has verified; everything, when `BackupReader.verify` has returned it."""

    objects: int = 0
    bytes: int = 0
    chunks: int = 0


class BackupReader:
    """An open backup, whose manifest has verified. Made by `open`."""

    def __init__(self, folder: Folder, ciphers: DataKeys, found: Manifest) -> None:
        self._folder = folder
        self._ciphers = ciphers
        self.manifest = found

    @classmethod
    async def open(cls, folder: Folder, keyring: Keyring, backup_id: str = "") -> BackupReader:
        """Open the backup in a folder; without an id, whichever it says it is.

        Raises BackupIncomplete, KeyUnknown, KeyRefused, ManifestForeign,
        ManifestAltered, FormatUnknown, NotABackup, and what the folder raises.
        """
        sizes = await folder.sizes()
        if names.MANIFEST not in sizes:
            raise BackupIncomplete(
                f"There is no manifest in this backup{f' ({backup_id})' if backup_id else ''}: "
                "it was never finished, or is not a backup.",
                remedy="Take another backup; of this one nothing can be trusted.",
            )
        raw = await folder.read(names.MANIFEST, max_bytes=sealing.MAX_MANIFEST_BYTES)
        named = sealing.manifest_id(raw)
        if backup_id and named != backup_id:
            raise ManifestForeign(f"The manifest is that of the backup {named[:64]!r}, not of {backup_id}.")
        ciphers = keys.derived(await _data_key(folder, sizes, keyring, named), named)
        plain = sealing.open_manifest(raw, ciphers.manifest, backup_id=named)
        found = manifest.decode(plain)
        if found.id != named:
            raise ManifestForeign(f"The manifest is that of the backup {found.id[:64]!r}, not of {named}.")
        return cls(folder, ciphers, found)

    async def verify(self, progress: Progress | None = None) -> Verified:
        """Read everything and compare it with the manifest, in bounded memory.

        Each object is parsed and compared with its name. Raises ChunkMissing,
        ChunkUnexpected, ChunkMisplaced, ChunkForeign, ChunkAltered, RecordDamaged.
        """
        await self._see_every_file()
        seen, counted = Verified(), dict[tuple[str, str, str], list[int]]()
        async for found in self.chunks(parse=True):
            for record in found:
                count = counted.setdefault((record.cluster, record.type, record.namespace), [0, 0])
                count[0] += 1
                count[1] += len(record.object)
                seen.bytes += len(record.object)
            seen.objects += len(found)
            seen.chunks += 1
            if progress is not None:
                progress(seen)
        told = {
            (content.cluster, content.type, content.namespace): [content.objects, content.bytes]
            for content in self.manifest.contents
        }
        if counted != told:
            raise RecordDamaged(f"The backup {self.manifest.id} holds other objects than its manifest says.")
        return seen

    async def chunks(
        self, select: Callable[[ChunkEntry], bool] | None = None, *, parse: bool = False
    ) -> AsyncGenerator[list[Record]]:
        """The records of each chunk that is selected (all, otherwise), in order; `READ_AHEAD` chunks ahead.

        Raises as `verify` does, for the chunk that it has come to.
        """
        wanted = iter([entry for entry in self.manifest.chunks if select is None or select(entry)])
        ahead: deque[asyncio.Task[list[Record]]] = deque()
        try:
            self._read_ahead(ahead, wanted, parse=parse)
            while ahead:
                found = await ahead[0]
                ahead.popleft()
                self._read_ahead(ahead, wanted, parse=parse)
                yield found
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def records(self, select: Callable[[ChunkEntry], bool] | None = None) -> AsyncGenerator[Record]:
        """The objects of the chunks that are selected, one by one; raises as `chunks` does."""
        async for found in self.chunks(select):
            for record in found:
                yield record

    def _read_ahead(
        self, ahead: deque[asyncio.Task[list[Record]]], wanted: Iterator[ChunkEntry], *, parse: bool
    ) -> None:
        while len(ahead) < READ_AHEAD:
            entry = next(wanted, None)
            if entry is None:
                return
            ahead.append(asyncio.create_task(self._chunk(entry, parse=parse)))

    async def _chunk(self, entry: ChunkEntry, *, parse: bool) -> list[Record]:
        name = names.chunk_name(entry.number)
        try:
            raw = await self._folder.read(name, max_bytes=sealing.MAX_CHUNK_BYTES)
        except NotFound as error:
            raise self._missing(entry.number) from error
        except TooLarge as error:
            raise ChunkAltered(f"Chunk {entry.number} is larger than any chunk.") from error
        return await asyncio.to_thread(self._opened, raw, entry, parse=parse)

    def _opened(self, raw: bytes, entry: ChunkEntry, *, parse: bool) -> list[Record]:
        plain = sealing.open_chunk(
            raw,
            self._ciphers.chunks,
            backup_id=self.manifest.id,
            number=entry.number,
            last=entry.number == len(self.manifest.chunks) - 1,
            sha256=entry.sha256,
            plain_size=entry.plain_size,
        )
        found = list(records.unpacked(plain, parse=parse))
        if any(record.cluster != entry.cluster for record in found) or len(found) != entry.objects:
            raise RecordDamaged(f"Chunk {entry.number} holds other objects than the manifest says.")
        return found

    async def _see_every_file(self) -> None:
        there = {name for name in await self._folder.sizes() if names.is_chunk(name)}
        wanted = {names.chunk_name(entry.number): entry.number for entry in self.manifest.chunks}
        for name, number in wanted.items():
            if name not in there:
                raise self._missing(number)
        for name in sorted(there - set(wanted)):
            raise ChunkUnexpected(
                f"The backup {self.manifest.id} has a file {name} that its manifest does not name."
            )

    def _missing(self, number: int) -> ChunkMissing:
        return ChunkMissing(
            f"Chunk {number} of the backup {self.manifest.id} is missing.",
            remedy="Bring the backup's files back from another copy.",
        )


async def _data_key(folder: Folder, sizes: dict[str, int], keyring: Keyring, backup_id: str) -> bytes:
    """The data key, from whichever of its wraps the keyring opens; after a rotation there may be two."""
    refused: BackupFault = KeyRefused(f"The backup {backup_id} has no wrapped data key.")
    for name in sorted(sizes):
        if not names.is_key(name):
            continue
        try:
            return keys.unwrapped(await folder.read(name, max_bytes=MAX_KEY_BYTES), backup_id, keyring)
        except BackupFault as error:
            refused = error
        except TooLarge as error:
            raise KeyRefused(f"The file {name} of the backup {backup_id} is no wrapped data key.") from error
    raise refused
