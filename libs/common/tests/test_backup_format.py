"""The format of backups: what was written is read again, and whatever was done to it in between is refused by name."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common import backups
from kubelore.common.backups import BackupReader, BackupWriter, LocalFolder, Record, keys, names, sealing
from kubelore.common.crypto import Keyring
from kubelore.common.errors import AlreadyExists, IntegrityError, NotFound, TooLarge, error_from_parts
from kubelore.common.kube.secrets import secret_context

ID = "20261124-030000-5f0c1d2e3a4b"
OTHER = "20261124-040000-000000000001"
ABOUT = backups.About(
    name="nightly",
    created_at="2026-11-24T03:00:00Z",
    completed_at="2026-11-24T03:00:07Z",
    created_by="alice",
    reason="before the upgrade",
    scope=backups.Scope(clusters=["east", "west"]),
    shortfalls=[backups.Shortfall(cluster="west", type="widgets.example.com", error="not allowed")],
)


class Files(dict[str, bytes]):
    """A backup in memory: what the blob store does, without one."""

    async def create(self, name: str, content: bytes) -> None:
        if name in self:
            raise AlreadyExists(name)
        self[name] = content

    async def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self.items()}

    async def read(self, name: str, *, max_bytes: int) -> bytes:
        if name not in self:
            raise NotFound(name)
        if len(self[name]) > max_bytes:
            raise TooLarge(name)
        return self[name]


def a_record(number: int, *, cluster: str = "east", size: int = 200, sealed: bytes = b"") -> Record:
    metadata = {"name": f"one-{number}", "namespace": f"shop-{number % 3}", "uid": f"uid-{number}"}
    body = json.dumps({"kind": "ConfigMap", "metadata": metadata, "data": {"text": "x" * size}}).encode()
    return Record(
        cluster=cluster,
        type="secrets" if sealed else "configmaps",
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        rv=str(number),
        object=body,
        sealed=sealed,
    )


async def written(
    keyring: Keyring, records: list[Record], backup_id: str = ID, files: Files | None = None
) -> Files:
    files = Files() if files is None else files
    async with BackupWriter(files, keyring, backup_id) as writer:
        packers = {record.cluster: writer.packer(record.cluster) for record in records}
        for record in records:
            await packers[record.cluster].add([record])
            if int(record.rv) % 4 == 3:
                await packers[record.cluster].close()
        for packer in packers.values():
            await packer.close()
        await writer.finish(ABOUT)
    return files


async def read(files: Files, keyring: Keyring, backup_id: str = ID) -> list[Record]:
    reader = await BackupReader.open(files, keyring, backup_id)
    await reader.verify()
    return [record async for record in reader.records()]


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "keys" / "versions.json", "versions")


@pytest.fixture
async def files(keyring: Keyring) -> Files:
    return await written(keyring, [a_record(number) for number in range(12)])


async def test_what_was_written_is_read_again_byte_for_byte(keyring: Keyring) -> None:
    records = [a_record(n, cluster=("east", "west")[n % 2], size=n * 50) for n in range(40)]
    files = await written(keyring, records)
    by_uid = {record.uid: record for record in await read(files, keyring)}
    assert by_uid == {record.uid: record for record in records}


async def test_a_manifest_says_what_is_in_which_chunk_and_who_had_it_made(keyring: Keyring) -> None:
    records = [a_record(n, cluster=("east", "west")[n % 2]) for n in range(40)]
    reader = await BackupReader.open(await written(keyring, records), keyring)
    manifest = reader.manifest
    assert (manifest.id, manifest.created_by, manifest.reason) == (ID, "alice", "before the upgrade")
    assert manifest.shortfalls == ABOUT.shortfalls
    assert manifest.objects == 40
    assert manifest.bytes == sum(len(record.object) for record in records)
    west = [record async for record in reader.records(lambda chunk: chunk.cluster == "west")]
    assert {record.uid for record in west} == {record.uid for record in records if record.cluster == "west"}
    assert manifest.chunks[-1].objects == 0


async def test_large_backups_are_cut_into_chunks_of_about_four_megabytes(keyring: Keyring) -> None:
    records = [a_record(4 * n, size=100_000) for n in range(100)]
    files = Files()
    async with BackupWriter(files, keyring, ID) as writer:
        packer = writer.packer("east")
        await packer.add(records)
        await packer.close()
        manifest = await writer.finish(ABOUT)
    assert [chunk.objects for chunk in manifest.chunks] == [42, 42, 16, 0]
    assert len(await read(files, keyring)) == 100


async def test_an_object_that_fits_no_chunk_is_refused_as_it_is_written(keyring: Keyring) -> None:
    async with BackupWriter(Files(), keyring, ID) as writer:
        with pytest.raises(TooLarge):
            await writer.packer("east").add([a_record(1, size=13 * 1024 * 1024)])


async def test_the_values_of_a_secret_come_back_only_with_the_keyring(keyring: Keyring) -> None:
    context = secret_context("east", "uid-1", "1")
    box = keyring.recipient().seal(msgspec.msgpack.encode({"password": b"hunter2\xff"}), context=context)
    files = await written(keyring, [a_record(1, sealed=box)])
    (record,) = await read(files, keyring)
    assert b"hunter2" not in record.object
    assert json.loads(backups.with_values(record, keyring))["data"] == {
        "password": base64.b64encode(b"hunter2\xff").decode()
    }


async def test_a_backup_that_was_not_finished_is_none(files: Files, keyring: Keyring) -> None:
    del files[names.MANIFEST]
    with pytest.raises(backups.BackupIncomplete):
        await read(files, keyring)


async def test_a_failed_write_fails_the_backup(keyring: Keyring) -> None:
    files = Files({names.chunk_name(0): b"somebody else's"})
    with pytest.raises(AlreadyExists):
        await written(keyring, [a_record(1)], files=files)
    assert names.MANIFEST not in files


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_bit_that_was_flipped_anywhere_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files, keyring = _shared(tmp_path_factory)
    name = data.draw(st.sampled_from(sorted(files)))
    bit = data.draw(st.integers(0, len(files[name]) * 8 - 1))
    altered = bytearray(files[name])
    altered[bit // 8] ^= 1 << bit % 8
    broken = Files({**files, name: bytes(altered)})
    with pytest.raises(backups.BackupFault):
        _run(read(broken, keyring))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_off_anywhere_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files, keyring = _shared(tmp_path_factory)
    name = data.draw(st.sampled_from(sorted(files)))
    broken = Files({**files, name: files[name][: data.draw(st.integers(0, len(files[name]) - 1))]})
    with pytest.raises(backups.BackupFault):
        _run(read(broken, keyring))


_kept: list[tuple[Files, Keyring]] = []


def _shared(factory: pytest.TempPathFactory) -> tuple[Files, Keyring]:
    if not _kept:
        keyring = Keyring.create(factory.mktemp("keys") / "versions.json", "versions")
        _kept.append((_run(written(keyring, [a_record(number) for number in range(12)])), keyring))
    return _kept[0]


def _run(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def test_a_chunk_that_was_dropped_is_missing(files: Files, keyring: Keyring) -> None:
    del files[names.chunk_name(1)]
    with pytest.raises(backups.ChunkMissing, match="Chunk 1"):
        await read(files, keyring)


async def test_the_last_chunk_cannot_be_dropped_unseen(files: Files, keyring: Keyring) -> None:
    del files[max(name for name in files if names.is_chunk(name))]
    with pytest.raises(backups.ChunkMissing):
        await read(files, keyring)


async def test_a_chunk_that_was_doubled_is_unexpected_behind_the_end(files: Files, keyring: Keyring) -> None:
    files[names.chunk_name(len(files))] = files[names.chunk_name(1)]
    with pytest.raises(backups.ChunkUnexpected):
        await read(files, keyring)


async def test_a_chunk_that_was_doubled_over_another_is_misplaced(files: Files, keyring: Keyring) -> None:
    files[names.chunk_name(2)] = files[names.chunk_name(1)]
    with pytest.raises(backups.ChunkMisplaced, match="place of chunk 2"):
        await read(files, keyring)


async def test_chunks_that_were_swapped_are_misplaced(files: Files, keyring: Keyring) -> None:
    one, two = names.chunk_name(0), names.chunk_name(1)
    files[one], files[two] = files[two], files[one]
    with pytest.raises(backups.ChunkMisplaced):
        await read(files, keyring)


async def test_a_chunk_of_another_backup_is_foreign(files: Files, keyring: Keyring) -> None:
    other = await written(keyring, [a_record(number) for number in range(12)], OTHER)
    files[names.chunk_name(1)] = other[names.chunk_name(1)]
    with pytest.raises(backups.ChunkForeign):
        await read(files, keyring)


async def test_a_manifest_of_another_backup_is_foreign(files: Files, keyring: Keyring) -> None:
    other = await written(keyring, [a_record(number) for number in range(12)], OTHER)
    files[names.MANIFEST] = other[names.MANIFEST]
    with pytest.raises(backups.ManifestForeign):
        await read(files, keyring)


async def test_a_foreign_manifest_under_this_name_does_not_verify(files: Files, keyring: Keyring) -> None:
    other = await written(keyring, [a_record(1)], OTHER)
    files[names.MANIFEST] = other[names.MANIFEST].replace(OTHER.encode(), ID.encode(), 1)
    with pytest.raises(backups.ManifestAltered):
        await read(files, keyring)


async def test_the_key_of_another_backup_is_refused(files: Files, keyring: Keyring) -> None:
    other = await written(keyring, [a_record(1)], OTHER)
    name = names.key_name(keyring.active_key_id)
    files[name] = other[name]
    with pytest.raises(backups.KeyRefused):
        await read(files, keyring)


async def test_another_keyring_does_not_know_the_key(files: Files, tmp_path: Path) -> None:
    stranger = Keyring.create(tmp_path / "other" / "versions.json", "versions")
    with pytest.raises(backups.KeyUnknown):
        await read(files, stranger)


async def test_a_wrong_key_under_the_right_id_is_refused(
    files: Files, keyring: Keyring, tmp_path: Path
) -> None:
    stranger = Keyring.create(tmp_path / "other" / "versions.json", "versions")
    mine = names.key_name(keyring.active_key_id)
    raw = files.pop(mine)
    files[names.key_name(stranger.active_key_id)] = raw[:4] + bytes.fromhex(stranger.active_key_id) + raw[12:]
    with pytest.raises(backups.KeyRefused):
        await read(files, stranger)


async def test_a_rotation_leaves_backups_readable_and_a_removed_key_says_so(
    files: Files, keyring: Keyring
) -> None:
    before = keyring.active_key_id
    keyring.rotate()
    assert len(await read(files, keyring)) == 12
    rewrapped = dict(files)
    key_id, raw = backups.rewrapped(files[names.key_name(before)], ID, keyring)
    rewrapped[names.key_name(key_id)] = raw
    keyring.remove(before)
    with pytest.raises(backups.KeyUnknown, match=before):
        await read(files, keyring)
    assert len(await read(Files(rewrapped), keyring)) == 12


@pytest.mark.parametrize("name", [names.MANIFEST, names.chunk_name(0), "key"])
async def test_a_newer_version_of_the_format_is_named_as_such(
    name: str, files: Files, keyring: Keyring
) -> None:
    name = names.key_name(keyring.active_key_id) if name == "key" else name
    files[name] = files[name][:3] + b"\x02" + files[name][4:]
    with pytest.raises(backups.FormatUnknown):
        await read(files, keyring)


async def test_something_else_altogether_is_not_a_backup(files: Files, keyring: Keyring) -> None:
    files[names.MANIFEST] = b"PK\x03\x04 some zip"
    with pytest.raises(backups.NotABackup):
        await read(files, keyring)


async def _resealed(files: Files, keyring: Keyring, number: int, plain: bytes, **place) -> None:
    """Put a chunk in place as only somebody with the key could, the manifest in accord with its bytes."""
    data_key = keys.unwrapped(files[names.key_name(keyring.active_key_id)], ID, keyring)
    ciphers = keys.derived(data_key, ID)
    manifest = msgspec.json.decode(
        sealing.open_manifest(files[names.MANIFEST], ciphers.manifest, backup_id=ID)
    )
    where = {"backup_id": ID, "number": number, "last": False, **place}
    header, shown = where.pop("shown", None), where
    raw = sealing.seal_chunk(plain, ciphers.chunks, **shown)
    if header is not None:
        raw = header + raw[len(header) :]
    manifest["chunks"][number] |= {"sha256": hashlib.sha256(raw).hexdigest(), "plain_size": len(plain)}
    files[names.chunk_name(number)] = raw
    files[names.MANIFEST] = sealing.seal_manifest(
        msgspec.json.encode(manifest), ciphers.manifest, backup_id=ID
    )


async def test_a_chunk_sealed_for_another_place_does_not_open_in_this_one(
    files: Files, keyring: Keyring
) -> None:
    """The additional data alone finds it: the hash in the manifest and the header shown are those of the place."""
    header = sealing.chunk_header(files[names.chunk_name(1)]).raw
    await _resealed(files, keyring, 1, b"", last=True, shown=header)
    with pytest.raises(backups.ChunkAltered, match="does not verify"):
        await read(files, keyring)


@pytest.mark.parametrize("cut", [1, 100, 700])
async def test_an_object_that_was_cut_off_before_it_was_sealed_is_found(
    cut: int, files: Files, keyring: Keyring
) -> None:
    plain = b"".join(piece for n in range(4) for piece in backups.records.packed(a_record(n)))
    await _resealed(files, keyring, 0, plain[:-cut])
    with pytest.raises(backups.RecordDamaged):
        await read(files, keyring)


async def test_an_object_under_the_head_of_another_is_found(files: Files, keyring: Keyring) -> None:
    wrong = msgspec.structs.replace(a_record(0), object=a_record(3).object)
    plain = b"".join(
        p for one in (wrong, a_record(1), a_record(2), a_record(3)) for p in backups.records.packed(one)
    )
    await _resealed(files, keyring, 0, plain)
    with pytest.raises(backups.RecordDamaged, match="another one"):
        await read(files, keyring)


async def test_a_chunk_that_unpacks_to_more_than_it_may_is_refused(files: Files, keyring: Keyring) -> None:
    await _resealed(files, keyring, 0, bytes(17 * 1024 * 1024))
    with pytest.raises(backups.RecordDamaged):
        await read(files, keyring)
    assert zstandard.frame_content_size(zstandard.compress(b"")) == 0


async def _as_archive(files: Files, path: Path) -> Path:
    pieces = [piece async for piece in backups.archive(files, ID, await files.sizes())]
    whole = b"".join(pieces)
    assert len(whole) == backups.archive_size(await files.sizes())
    await asyncio.to_thread(path.write_bytes, whole)
    return path


async def test_an_archive_reads_as_the_folder_does_and_is_a_tar_of_it(
    files: Files, keyring: Keyring, tmp_path: Path
) -> None:
    path = await _as_archive(files, tmp_path / "backup.tar")
    reader = await BackupReader.open(await backups.ArchiveFolder.open(path), keyring)
    assert (await reader.verify()).objects == 12
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    folder = await BackupReader.open(LocalFolder(tmp_path / "out" / ID), keyring, ID)
    assert (await folder.verify()).objects == 12


async def test_an_archive_that_ends_too_soon_is_refused_wherever_it_ends(
    files: Files, tmp_path: Path
) -> None:
    whole = (await _as_archive(files, tmp_path / "backup.tar")).read_bytes()
    for length in range(0, len(whole), 256):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(backups.ArchiveDamaged):
            await backups.ArchiveFolder.open(tmp_path / "cut.tar")


@pytest.mark.parametrize("name", [f"{ID}/../../etc/passwd", "/etc/passwd", f"{ID}/other", "x/manifest"])
async def test_an_archive_with_anything_else_in_it_is_refused(
    name: str, files: Files, tmp_path: Path
) -> None:
    whole = (await _as_archive(files, tmp_path / "backup.tar")).read_bytes()
    with tarfile.open(fileobj=(more := io.BytesIO()), mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        tar.addfile(entry)
    (tmp_path / "more.tar").write_bytes(whole[:-1024] + more.getvalue())
    with pytest.raises(backups.ArchiveDamaged):
        await backups.ArchiveFolder.open(tmp_path / "more.tar")


@pytest.mark.parametrize("as_archive", [False, True])
async def test_a_reader_written_from_the_document_alone_reads_it(
    as_archive: bool, keyring: Keyring, tmp_path: Path
) -> None:
    context = secret_context("east", "uid-0", "0")
    values = msgspec.msgpack.encode({"password": b"hunter2"})
    secret = a_record(0, sealed=keyring.recipient().seal(values, context=context))
    records = [secret, *(a_record(n, cluster=("east", "west")[n % 2]) for n in range(1, 30))]
    files = await written(keyring, records)
    place = tmp_path / ID
    if as_archive:
        await _as_archive(files, place)
    else:
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    script = Path(__file__).parent / "data" / "read_backup.py"
    assert "kubelore.common" not in script.read_text()
    found = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(script), str(tmp_path / "keys" / "versions.json"), str(place)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    manifest, *lines = (json.loads(line) for line in found.stdout.splitlines())
    assert manifest["created_by"] == "alice"
    assert {line["head"]["uid"]: line["object"] for line in lines} == {
        record.uid: json.loads(record.object) for record in records
    }
    assert [line["values"] for line in lines if line["values"]] == [values.hex()]


async def test_errors_travel_by_their_names() -> None:
    found = error_from_parts("BackupChunkMissing", 500, "gone")
    assert isinstance(found, backups.ChunkMissing)
    assert isinstance(found, IntegrityError)
