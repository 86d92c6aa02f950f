"""Backups without any service: read from an archive or a folder, with the keyring, verified before anything is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from kubelore.cli.file_names import file_name
from kubelore.common.backups import (
    ArchiveFolder,
    BackupReader,
    LocalFolder,
    Record,
    Verified,
    with_values,
)
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.kube.documents import dump

Form = Literal["yaml", "json"]
Progress = Callable[[int, int], None]
"""Is told objects seen, and objects in all."""


async def open_backup(path: Path, keyring: Path) -> BackupReader:
    """The backup in an archive or folder. Raises KeyringError, NotFound, BackupFault."""
    folder = LocalFolder(path) if _is_folder(path) else await ArchiveFolder.open(path)
    return await BackupReader.open(folder, Keyring.load(keyring))


def _is_folder(path: Path) -> bool:
    if not path.exists():
        raise NotFound(f"there is no {path}", remedy="`kubelore backup download ID` fetches an archive.")
    return path.is_dir()


async def verify(path: Path, keyring: Path, progress: Progress) -> Verified:
    """Read all of it. Raises as `open_backup`, and the fault that was found."""
    reader = await open_backup(path, keyring)
    return await reader.verify(lambda seen: progress(seen.objects, reader.manifest.objects))


async def decrypt(
    path: Path, keyring_path: Path, out: Path | None, *, form: Form, secrets: bool, progress: Progress
) -> int:
    """Write every object, each to a file below `out` or all to stdout; how many they are.

    Nothing is written before all of it has verified. Raises as `verify`, and
    Conflict when `out` is there and not empty.
    """
    _see_empty(out)
    keyring = Keyring.load(keyring_path)
    reader = await open_backup(path, keyring_path)
    await reader.verify(lambda seen: progress(seen.objects, reader.manifest.objects))
    count = 0
    async with aclosing(reader.records()) as records:
        async for record in records:
            content = _content(with_values(record, keyring) if secrets else record.object, form)
            if out is None:
                sys.stdout.write(f"---\n{content}" if form == "yaml" else content)
            else:
                _write(out / _place(record, form), content)
            count += 1
    return count


def _see_empty(out: Path | None) -> None:
    if out is not None and out.exists() and any(out.iterdir()):
        raise Conflict(f"{out} is not empty", remedy="Name a new folder.")


def _content(raw: bytes, form: Form) -> str:
    if form == "json":
        return f"{msgspec.json.format(raw, indent=-1).decode()}\n"
    return dump(msgspec.json.decode(raw))


def _place(record: Record, form: Form) -> Path:
    """Where an object goes: cluster, namespace (`_` for none), type, name; each encoded, so that it stays below."""
    folders = (record.cluster, record.namespace or "_", record.type)
    return Path(
        *(file_name(_encoded(part)) for part in folders), file_name(_encoded(record.name), f".{form}")
    )


def _encoded(text: str) -> str:
    return quote(text, safe="").replace("..", "%2E%2E")


def _write(path: Path, content: str) -> None:
    from kubelore.stack.private_files import create_private

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_private(path, content.encode())
