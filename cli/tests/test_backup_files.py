"""Backups written out on this machine: every object has a file, whatever it is called."""

from __future__ import annotations

import json
from pathlib import Path

from kubelore.cli.backup_files import decrypt
from kubelore.common.backups import About, BackupWriter, Record, Scope
from kubelore.common.crypto import Keyring

BACKUP = "20260101-000000-aaaaaaaaaaaa"
LONG = "a" * 252
NAMES = [f"{LONG}b", f"{LONG}c", "system:" * 36 + "x", "..", "a/../b"]


class Files:
    """A folder that backups are written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def create(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def written(folder: Path) -> dict[Path, bytes]:
    """Every object's file below a folder, wherever it is."""
    found = {one.relative_to(folder): one.read_bytes() for one in folder.rglob("*.json")}
    return {place: raw for place, raw in found.items() if place != Path("versions.json")}


async def test_names_as_long_as_kubernetes_takes_them_are_written_out_each_to_a_file_below(
    tmp_path: Path,
) -> None:
    path = tmp_path / "versions.json"
    keyring = Keyring.create(path, "versions")
    async with BackupWriter(Files(tmp_path / "backup"), keyring, BACKUP) as writer:
        packer = writer.packer("prod")
        for name in NAMES:
            found = json.dumps({"metadata": {"name": name, "namespace": "..", "uid": name}}).encode()
            await packer.add(
                [Record(cluster="prod", type="t", namespace="..", name=name, uid=name, rv="1", object=found)]
            )
        await packer.close()
        moment = "2026-01-01T00:00:00Z"
        await writer.finish(
            About(
                name="b",
                created_at=moment,
                completed_at=moment,
                created_by="admin",
                reason="",
                scope=Scope(clusters=["prod"]),
            )
        )
    out = tmp_path / "out"
    count = await decrypt(
        tmp_path / "backup", path, out, form="json", secrets=False, progress=lambda _seen, _all: None
    )
    told = {json.loads(raw)["metadata"]["name"]: place for place, raw in written(tmp_path).items()}
    assert count == len(told) == len(NAMES)
    assert set(told) == set(NAMES)
    assert all(place.parts[:3] == ("out", "prod", "%2E%2E") for place in told.values())
