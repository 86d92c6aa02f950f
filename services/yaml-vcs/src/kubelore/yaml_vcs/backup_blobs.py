"""A backup's folder in the blob store: `backups/<id>/`."""

from __future__ import annotations

import asyncio

from kubelore.common.backups import names
from kubelore.common.store import BlobStore
from kubelore.yaml_vcs.together import together

ROOT = "backups"
_AT_ONCE = 8


class BackupBlobs:
    """The files of one backup, to be read and to be created. Raises what BlobStore raises."""

    def __init__(self, blobs: BlobStore, backup_id: str) -> None:
        self._blobs = blobs
        self._root = f"{ROOT}/{names.checked_id(backup_id)}"

    async def sizes(self) -> dict[str, int]:
        """Every file with its size in bytes."""
        start = len(self._root) + 1
        found = {info.key[start:]: info.size async for info in self._blobs.list(self._root)}
        return {name: size for name, size in found.items() if names.is_ours(name)}

    async def read(self, name: str, *, max_bytes: int) -> bytes:
        """A whole file. Raises NotFound, TooLarge."""
        return await self._blobs.get(f"{self._root}/{name}", max_bytes=max_bytes)

    async def create(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet. Raises AlreadyExists."""
        await self._blobs.put(f"{self._root}/{name}", content, create_only=True)

    async def delete(self, name: str) -> None:
        """Remove one file; one that is gone stays gone."""
        await self._blobs.delete(f"{self._root}/{name}")

    async def remove(self) -> None:
        """Remove everything, the manifest before all: what is left at a death in between is no backup."""
        await self._blobs.delete(f"{self._root}/{names.MANIFEST}")
        slots = asyncio.Semaphore(_AT_ONCE)

        async def delete(key: str) -> None:
            async with slots:
                await self._blobs.delete(key)

        keys = [info.key async for info in self._blobs.list(self._root)]
        async with together() as group:
            for key in keys:
                group.create_task(delete(key))
