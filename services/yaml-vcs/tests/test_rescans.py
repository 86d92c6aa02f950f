"""Backups after MongoDB was lost: the blob store and the keyring bring them back, and what is no backup is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.backups import (
    About,
    BackupIncomplete,
    BackupWriter,
    KeyUnknown,
    ManifestAltered,
    ManifestForeign,
    Record,
    Scope,
    Shortfall,
    names,
)
from kubelore.common.bus import Leases, connect, ensure_streams
from kubelore.common.callers import acting_as
from kubelore.common.contracts.backups import Backup, BackupRef, ListBackups
from kubelore.common.contracts.rescans import Rescan, Rescanned
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Forbidden
from kubelore.common.store import BlobStore, Database, open_database
from kubelore.lab.waiting import wait_for
from kubelore.yaml_vcs import rescans
from kubelore.yaml_vcs.backup_blobs import ROOT
from kubelore.yaml_vcs.backup_jobs import BackupJobs
from kubelore.yaml_vcs.backup_repository import BackupRepository
from kubelore.yaml_vcs.backups import Backups
from kubelore.yaml_vcs.rescans import Rescans
from kubelore.yaml_vcs.restore_repository import RestoreRepository

MADE = datetime(2026, 1, 15, 2, 0, 0, tzinfo=UTC)


class Installation:
    """One that has a bucket and a keyring, and whose MongoDB is empty."""

    def __init__(self, settings: Any, bus: Any, database: Database) -> None:
        self.keyring = Keyring.create(settings.keyring_dir / "versions.json", "versions")
        self.foreign = Keyring.create(settings.keyring_dir / "foreign.json", "versions")
        self.blobs = BlobStore.open(settings.blob_url)
        self.repository = BackupRepository(database)
        leases = Leases(bus)
        self.jobs = BackupJobs(self.repository, self.blobs, self.keyring, bus, leases)
        self.backups = Backups(self.repository, self.jobs, bus, leases, RestoreRepository(database).reading)
        self.rescans = Rescans(self.repository, self.blobs, self.keyring, bus)

    async def put(
        self, keyring: Keyring | None = None, *, at: float = MADE.timestamp(), made: str = MADE.isoformat()
    ) -> str:
        """A whole backup of two objects that nothing else is known of."""
        backup_id = names.fresh_id(at)
        async with BackupWriter(self.jobs.blobs(backup_id), keyring or self.keyring, backup_id) as writer:
            packer = writer.packer("prod")
            for name in ("web", "api"):
                record = Record(
                    cluster="prod",
                    type="configmaps",
                    namespace="shop",
                    name=name,
                    uid=f"u-{name}",
                    rv="1",
                    object=b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%b","namespace":"shop",'
                    b'"uid":"u-%b","resourceVersion":"1"}}' % (name.encode(), name.encode()),
                )
                await packer.add([record])
            await packer.close()
            about = About(
                name="nightly",
                created_at=made,
                completed_at=made,
                created_by="ann",
                reason="habit",
                scope=Scope(clusters=["prod", "test"], namespaces=["shop"], labels="app"),
                shortfalls=[Shortfall(cluster="test", error="It did not answer.")],
            )
            await writer.finish(about)
        return backup_id

    async def rounds(self) -> Rescanned:
        """All rounds, as an administrator has them."""
        told, after = Rescanned(found=[], known=0, refused=[]), ""
        with acting_as(ADMINISTRATOR):
            while True:
                one = await self.rescans.rescan(Rescan(after=after))
                told.found += one.found
                told.known += one.known
                told.refused += one.refused
                if not one.next:
                    return told
                assert one.next > after
                after = one.next

    async def shown(self) -> list[Backup]:
        with acting_as(ADMINISTRATOR):
            return (await self.backups.list(ListBackups())).items


@pytest_asyncio.fixture(loop_scope="session")
async def installation(settings) -> AsyncIterator[Installation]:
    bus = await connect(settings, name="yaml-vcs")
    await ensure_streams(bus)
    async with await open_database(settings) as database:
        made = Installation(settings, bus, database)
        await made.repository.prepare()
        yield made
    await bus.close()


async def test_a_backup_that_only_the_bucket_has_is_listed_verified_and_opened_again(
    installation: Installation,
) -> None:
    backup_id = await installation.put()
    assert await installation.shown() == []
    told = await installation.rounds()
    assert (told.found, told.known, told.refused) == ([backup_id], 0, [])
    (shown,) = await installation.shown()
    assert (shown.id, shown.status, shown.partial) == (backup_id, "completed", True)
    assert (shown.name, shown.created_by, shown.reason) == ("nightly", "ann", "habit")
    assert (shown.created_at, shown.expires_at) == ("2026-01-15T02:00:00.000Z", "")
    assert (shown.namespaces, shown.labels) == (["shop"], "app")
    assert [(one.cluster, one.status, one.objects) for one in shown.clusters] == [
        ("prod", "completed", 2),
        ("test", "failed", 0),
    ]
    assert (shown.objects, shown.missing[0].error) == (2, "It did not answer.")
    assert (shown.key_ids, shown.unreadable) == ([installation.keyring.active_key_id], "")
    with acting_as(ADMINISTRATOR):
        reader = await installation.backups.open(backup_id)
        assert [record.name async for record in reader.records()] == ["web", "api"]
        await installation.backups.verify(BackupRef(backup_id))

        async def verified() -> str:
            told = (await installation.backups.get(BackupRef(backup_id))).verification
            return told.state if told and told.state != "running" else ""

        assert await wait_for(verified, "the verification", 10) == "passed"


async def test_a_second_rescan_finds_nothing_and_changes_nothing(installation: Installation) -> None:
    backup_id = await installation.put()
    await installation.rounds()
    job = await installation.repository.get(backup_id)
    told = await installation.rounds()
    assert (told.found, told.known, told.refused) == ([], 1, [])
    assert await installation.repository.get(backup_id) == job


async def test_a_backup_that_is_being_deleted_stays_deleted(installation: Installation) -> None:
    backup_id = await installation.put()
    await installation.rounds()
    with acting_as(ADMINISTRATOR):
        await installation.backups.delete(BackupRef(backup_id))
    told = await installation.rounds()
    assert (told.found, told.known) == ([], 1)
    assert await installation.shown() == []


async def test_what_cannot_be_opened_is_named_with_its_reason_and_stays_unknown(
    installation: Installation,
) -> None:
    whole = await installation.put()
    cut, moved, timeless = (
        await installation.put(),
        names.fresh_id(MADE.timestamp()),
        await installation.put(made="yesterday"),
    )
    strange = await installation.put(installation.foreign)
    for name in await installation.jobs.blobs(whole).sizes():
        content = await installation.blobs.get(f"{ROOT}/{whole}/{name}")
        await installation.blobs.put(f"{ROOT}/{moved}/{name}", content)
    await installation.blobs.delete(f"{ROOT}/{cut}/{names.MANIFEST}")
    await installation.blobs.put(f"{ROOT}/NOTES/readme", b"not ours")
    told = await installation.rounds()
    assert told.found == [whole]
    assert {one.id: one.reason for one in told.refused} == {
        cut: BackupIncomplete.reason,
        moved: ManifestForeign.reason,
        strange: KeyUnknown.reason,
        timeless: ManifestAltered.reason,
        "NOTES": "BadRequest",
    }
    assert [one.id for one in await installation.shown()] == [whole]


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_rounds_of_any_size_find_every_backup_once(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(rescans, "ROUND", most)
    made = [await installation.put(at=MADE.timestamp() + day * 86400) for day in range(4)]
    assert (await installation.rounds()).found == made


async def test_a_round_that_takes_long_ends_early_and_the_next_goes_on(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescans, "ROUND_S", -1.0)
    made = [await installation.put(at=MADE.timestamp() + day * 86400) for day in range(3)]
    with acting_as(ADMINISTRATOR):
        first = await installation.rescans.rescan(Rescan())
    assert (first.found, first.next) == (made[:1], made[0])
    assert (await installation.rounds()).found == made[1:]


async def test_a_rescan_is_for_administrators_of_everything(installation: Installation) -> None:
    ann = Caller(
        subject="ann",
        grants=(Grant(role="admin", clusters=("prod",), rights=("backup",)),),
        credential="token:1",
    )
    with acting_as(ann), pytest.raises(Forbidden):
        await installation.rescans.rescan(Rescan())
