"""How a blob comes into a store: by obstore, for S3 and memory, or as a file that survives a power cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Protocol

import obstore
from obstore.store import ObjectStore

PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 3
DRAFTS = ".drafts"
STALE_DRAFT_S = 24 * 3600.0


class Writer(Protocol):
    """Writing and removing; the keys are checked already."""

    async def put(self, key: str, content: bytes, *, create_only: bool) -> None:
        """Write a blob whole, in one step."""
        ...

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a blob of any size with bounded memory; it appears whole at the end, or not at all."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a blob; nothing happens when there is none."""
        ...


class ObjectWriter:
    """Writes by obstore. `once` is a handle that repeats no request.

    A create-only PUT that is repeated after a lost answer would meet the blob
    that it made itself, and call it somebody else's.
    """

    def __init__(self, store: ObjectStore, once: ObjectStore) -> None:
        self._store = store
        self._once = once

    async def put(self, key: str, content: bytes, *, create_only: bool) -> None:
        """One PUT, with `If-None-Match: *` when create-only."""
        if create_only:
            await obstore.put_async(self._once, key, content, mode="create", use_multipart=False)
        else:
            await obstore.put_async(
                self._store, key, content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """A multipart upload, given up when the source fails or the caller is cancelled."""
        await obstore.put_async(
            self._store, key, chunks, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE, use_multipart=True
        )

    async def delete(self, key: str) -> None:
        """Remove the object."""
        with contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)


class DirectoryWriter:
    """Writes files below a folder: a draft, its sync, then a link or a rename, then the folder's sync.

    obstore's own local store never syncs (docs/decisions/0014). Drafts that a
    killed process left are removed a day later, by whoever opens the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._drafts = root / DRAFTS
        self._drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_stale_drafts()

    async def put(self, key: str, content: bytes, *, create_only: bool) -> None:
        """Write a file; a link makes it create-only, as the kernel lets only one succeed."""
        await asyncio.to_thread(self._put, key, content, create_only)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Write chunk by chunk into the draft."""
        draft = self._draft()
        try:
            file = await asyncio.to_thread(_open_new, draft)
            with file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(self._publish, draft, key, False)
        finally:
            draft.unlink(missing_ok=True)

    async def delete(self, key: str) -> None:
        """Remove the file for good."""
        await asyncio.to_thread(self._delete, key)

    def _put(self, key: str, content: bytes, create_only: bool) -> None:
        draft = self._draft()
        try:
            with _open_new(draft) as file:
                file.write(content)
                _sync(file)
            self._publish(draft, key, create_only)
        finally:
            draft.unlink(missing_ok=True)

    def _publish(self, draft: Path, key: str, create_only: bool) -> None:
        target = self._root / key
        self._make_folders(target.parent)
        if create_only:
            target.hardlink_to(draft)
        else:
            draft.replace(target)
        _sync_folder(target.parent)

    def _make_folders(self, folder: Path) -> None:
        if folder == self._root or folder.is_dir():
            return
        self._make_folders(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _sync_folder(folder.parent)

    def _delete(self, key: str) -> None:
        target = self._root / key
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            target.unlink()
            _sync_folder(target.parent)

    def _draft(self) -> Path:
        return self._drafts / uuid.uuid4().hex

    def _remove_stale_drafts(self) -> None:
        for draft in self._drafts.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if draft.stat().st_mtime < time.time() - STALE_DRAFT_S:
                    draft.unlink()


def _open_new(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
