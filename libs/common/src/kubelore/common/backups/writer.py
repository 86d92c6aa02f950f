"""Writing a backup: objects in, sealed chunks out, in bounded memory; the manifest comes last."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

import msgspec

from kubelore.common.backups import keys, manifest, names, records, sealing
from kubelore.common.backups.folder import Sink
from kubelore.common.backups.manifest import About, ChunkEntry, Content, Manifest
from kubelore.common.backups.records import Record
from kubelore.common.crypto import Keyring
from kubelore.common.errors import TooLarge

CHUNK_BYTES = 4 * 1024 * 1024
"""Of JSON in a chunk, about; the last record of a chunk may lead over it."""
IN_FLIGHT = 3
"""Chunks that are sealed and written at once: 5 MB each, and as much again while one is joined."""


class BackupWriter:
    """Writes one backup. Used as `async with`: what is under way ends with the block.

    A backup is one only when `finish` has returned; until then its files, if
    any stay, are no backup to any reader.
    """

    def __init__(self, sink: Sink, keyring: Keyring, backup_id: str) -> None:
        self._sink = sink
        self._keyring = keyring
        self._id = names.checked_id(backup_id)
        data_key = keys.drawn()
        self._ciphers = keys.derived(data_key, backup_id)
        self._key_id, self._wrapped = keys.wrapped(data_key, backup_id, keyring)
        self._chunks: list[ChunkEntry] = []
        self._contents: dict[tuple[str, str, str], Content] = {}
        self._next = 0
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._under_way: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    @property
    def objects(self) -> int:
        """How many objects were added."""
        return sum(content.objects for content in self._contents.values())

    @property
    def written_bytes(self) -> int:
        """Bytes of the chunks that are written."""
        return sum(chunk.size for chunk in self._chunks)

    async def __aenter__(self) -> BackupWriter:
        await self._sink.create(names.key_name(self._key_id), self._wrapped)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def packer(self, cluster: str) -> Packer:
        """Takes the objects of one cluster; several may be open side by side."""
        return Packer(self, cluster)

    async def finish(self, about: About) -> Manifest:
        """Write the last chunk, then the manifest. Every packer was closed before.

        Raises what any write raised, AlreadyExists, TooLarge.
        """
        await self.seal([], "", Counter(), last=True)
        await asyncio.gather(*self._under_way)
        self._see_no_failure()
        made = Manifest(
            format=manifest.FORMAT,
            version=manifest.VERSION,
            id=self._id,
            key_id=self._key_id,
            contents=[self._contents[key] for key in sorted(self._contents)],
            chunks=sorted(self._chunks, key=lambda chunk: chunk.number),
            **msgspec.structs.asdict(about),
        )
        sealed = sealing.seal_manifest(manifest.encode(made), self._ciphers.manifest, backup_id=self._id)
        await self._sink.create(names.MANIFEST, sealed)
        return made

    def count(self, record: Record) -> None:
        """Enter an object into the manifest; for `Packer`."""
        key = (record.cluster, record.type, record.namespace)
        content = self._contents.get(key)
        if content is None:
            content = self._contents[key] = Content(
                cluster=record.cluster, type=record.type, namespace=record.namespace
            )
        content.objects += 1
        content.bytes += len(record.object)

    async def seal(
        self, parts: list[bytes], cluster: str, types: Counter[str], *, last: bool = False
    ) -> None:
        """Seal and write one chunk in the background, when a slot is free; for `Packer`."""
        await self._slots.acquire()
        try:
            self._see_no_failure()
            number, self._next = self._next, self._next + 1
            if number > names.MAX_CHUNKS:
                raise TooLarge("The backup has more chunks than the format can number.")
        except BaseException:
            self._slots.release()
            raise
        task = asyncio.create_task(self._write(number, parts, cluster, types, last=last))
        self._under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    def _see_no_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _write(
        self, number: int, parts: list[bytes], cluster: str, types: Counter[str], *, last: bool
    ) -> None:
        def seal() -> tuple[bytes, str, int]:
            plain = b"".join(parts)
            sealed = sealing.seal_chunk(
                plain, self._ciphers.chunks, backup_id=self._id, number=number, last=last
            )
            return sealed, hashlib.sha256(sealed).hexdigest(), len(plain)

        sealed, digest, plain_size = await asyncio.to_thread(seal)
        parts.clear()
        await self._sink.create(names.chunk_name(number), sealed)
        self._chunks.append(
            ChunkEntry(
                number=number,
                size=len(sealed),
                sha256=digest,
                plain_size=plain_size,
                cluster=cluster,
                types=dict(types),
            )
        )


class Packer:
    """Gathers the objects of one cluster into chunks; made by `BackupWriter.packer`."""

    def __init__(self, writer: BackupWriter, cluster: str) -> None:
        self._writer = writer
        self._cluster = cluster
        self._parts: list[bytes] = []
        self._size = 0
        self._types: Counter[str] = Counter()

    async def add(self, added: Iterable[Record]) -> None:
        """Take objects; waits while `IN_FLIGHT` chunks are being written.

        Raises TooLarge for an object over 12 MB, ValueError for one of another
        cluster, and whatever an earlier write raised.
        """
        for record in added:
            if record.cluster != self._cluster:
                raise ValueError(f"{record!r} is not of {self._cluster}")
            pieces = records.packed(record)
            self._writer.count(record)
            self._parts.extend(pieces)
            self._size += len(pieces[0]) + len(pieces[1]) + len(pieces[2])
            self._types[record.type] += 1
            if self._size >= CHUNK_BYTES:
                await self.close()

    async def close(self) -> None:
        """Give what is gathered to the writer; the packer may go on afterwards."""
        if self._parts:
            parts, types = self._parts, self._types
            self._parts, self._size, self._types = [], 0, Counter()
            await self._writer.seal(parts, self._cluster, types)
