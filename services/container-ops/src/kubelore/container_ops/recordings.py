"""Recordings of terminals: sealed chunks in the blob store, written while the terminal runs.

A chunk is zstd-compressed lines of asciicast, sealed by the keyring `logs` to
its operation and its number, so that none can be exchanged or left out unseen.
It is written ten seconds after its first line at the latest: a replica that
dies loses no more than that. How many there are is in the operation's result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import zstandard

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.crypto import Keyring
from kubelore.common.errors import IntegrityError, KubeloreError, NotFound, TooLarge, Unavailable
from kubelore.common.store import BlobStore, blob_key
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.asciicast import Asciicast

log = get_logger(__name__)

SCOPE = "recordings"
CHUNK_BYTES = 256 * 1024
WRITE_EVERY_S = 10.0
MAX_WAITING = 2 * 1024 * 1024
"""Bytes that wait to be written; past that the terminal waits too, as none runs unrecorded."""
PATIENCE_S = 30.0
"""A terminal whose recording cannot be written for so long ends."""
SWEEP_S = 3600.0
_RETRY_S = 2.0
_MAX_CHUNK = 16 * 1024 * 1024


@dataclass
class Recorder:
    """Writes one recording; run `run` beside the terminal and `finish` at its end."""

    blobs: BlobStore
    keyring: Keyring
    operation: str
    cast: Asciicast
    max_bytes: int
    _began: float = field(default_factory=time.monotonic)
    _waiting: bytearray = field(default_factory=bytearray)
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _written: asyncio.Event = field(default_factory=asyncio.Event)
    _chunks: int = 0
    _bytes: int = 0
    _full: bool = False

    def begin(self, target: ContainerId, command: list[str]) -> None:
        """The head."""
        self._add(self.cast.head(time.time(), str(target), " ".join(command)))

    async def output(self, data: bytes) -> None:
        """What the terminal shows. Raises Unavailable when it cannot be written for long."""
        self._add(self.cast.output(self._now(), data))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(self._waiting) > MAX_WAITING:
                    self._written.clear()
                    await self._written.wait()
        except TimeoutError as error:
            raise Unavailable(
                "the recording of the terminal cannot be written, so the terminal was ended",
                remedy="Look at the blob store (`kubelore status`), then open another.",
            ) from error

    def resized(self, columns: int, rows: int) -> None:
        """A new size."""
        self._add(self.cast.resized(self._now(), columns, rows))

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY_S):
                    await self._due.wait()
            self._due.clear()
            try:
                await self._write()
            except KubeloreError as error:
                log.warning("recording not written", operation=self.operation, detail=error.detail)
                await asyncio.sleep(_RETRY_S)

    async def finish(self) -> dict[str, Any]:
        """Write the rest; what the operation's result says of it."""
        whole = True
        try:
            await self._write()
        except KubeloreError as error:
            log.error("the end of a recording is lost", operation=self.operation, detail=error.detail)
            whole = False
        seconds = round(self._now(), 3)
        return {
            "chunks": self._chunks,
            "bytes": self._bytes,
            "seconds": seconds,
            "whole": whole and not self._full,
        }

    def _add(self, line: bytes) -> None:
        if self._full or not line:
            return
        if self._bytes + len(line) > self.max_bytes:
            self._full = True
            line = self.cast.marked(self._now(), "the recording ends here: it has reached its size limit")
        self._bytes += len(line)
        self._waiting += line
        if len(self._waiting) >= CHUNK_BYTES:
            self._due.set()

    async def _write(self) -> None:
        while self._waiting:
            part = bytes(self._waiting[:_MAX_CHUNK])
            packed = zstandard.ZstdCompressor(level=3).compress(part)
            sealed = self.keyring.seal(packed, context=_place(self.operation, self._chunks))
            await self.blobs.put(_key(self.operation, self._chunks), sealed)
            self._chunks += 1
            del self._waiting[: len(part)]
            self._written.set()

    def _now(self) -> float:
        return time.monotonic() - self._began


class Recordings:
    """Reads recordings, and removes old ones."""

    def __init__(self, blobs: BlobStore, keyring: Keyring, kept: timedelta) -> None:
        self._blobs = blobs
        self._keyring = keyring
        self._kept = kept

    async def read(self, operation: str, chunks: int | None) -> AsyncGenerator[bytes]:
        """The lines in pieces; `chunks` is how many there are, None when nobody said so.

        Raises NotFound when there is none, and IntegrityError for chunks that are missing or were altered.
        """
        number = 0
        while chunks is None or number < chunks:
            try:
                sealed = await self._blobs.get(_key(operation, number), max_bytes=_MAX_CHUNK)
            except NotFound as error:
                if number == 0:
                    raise no_recording(operation) from error
                if chunks is None:
                    return
                raise IntegrityError(f"chunk {number} of the recording is missing") from error
            yield _unpacked(self._keyring.open(sealed, context=_place(operation, number)))
            number += 1

    async def run(self) -> None:
        """Remove recordings that are older than operations are kept, until cancelled."""
        while True:
            try:
                await self.sweep()
            except KubeloreError as error:
                log.warning("old recordings not removed", detail=error.detail)
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> int:
        """Remove what is too old; how many chunks that were."""
        removed, before = 0, datetime.now(UTC) - self._kept
        async for blob in self._blobs.list(SCOPE):
            if blob.modified_at < before:
                await self._blobs.delete(blob.key)
                removed += 1
        return removed


def no_recording(operation: str) -> NotFound:
    """For an operation that has none."""
    return NotFound(
        f"there is no recording of {operation[:64]!r}",
        remedy="Terminals have one, from ten seconds after they were opened; `kubelore operations` lists them.",
    )


def _unpacked(packed: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_CHUNK)
    except zstandard.ZstdError as error:
        raise TooLarge("a chunk of the recording cannot be unpacked") from error


def _key(operation: str, number: int) -> str:
    return blob_key(SCOPE, operation, f"{number:06}")


def _place(operation: str, number: int) -> str:
    return f"recording:{operation}:{number}"
