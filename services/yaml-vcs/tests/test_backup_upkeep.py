"""Kept backups while nobody looks: they expire, their data keys follow rotations, and a removed key is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.backups import About, BackupReader, BackupWriter, KeyUnknown, Record, Scope, names
from kubelore.common.bus import Leases, connect, ensure_streams
from kubelore.common.callers import acting_as
from kubelore.common.contracts.backup_keys import AskKeys
from kubelore.common.contracts.backup_policies import PolicySpec
from kubelore.common.contracts.backups import BackupRef, ListBackups
from kubelore.common.contracts.restores import StartRestore
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Conflict, Forbidden, KubeloreError
from kubelore.common.mandates import Mandate
from kubelore.common.store import BlobStore, Database, open_database
from kubelore.lab.waiting import wait_for
from kubelore.yaml_vcs.backup_jobs import BackupJobs
from kubelore.yaml_vcs.backup_policies import mandate_context
from kubelore.yaml_vcs.backup_repository import BackupRepository, Job, now
from kubelore.yaml_vcs.backup_upkeep import BackupUpkeep
from kubelore.yaml_vcs.backups import Backups
from kubelore.yaml_vcs.policy_repository import Policy, PolicyRepository
from kubelore.yaml_vcs.restore_repository import Job as RestoreJob
from kubelore.yaml_vcs.restore_repository import RestoreRepository


class Archive:
    """Backups that lie there whole, and who looks after them."""

    def __init__(self, settings: Any, bus: Any, database: Database) -> None:
        self.keyring = Keyring.create(settings.keyring_dir / "versions.json", "versions")
        self.other = Keyring.load(settings.keyring_dir / "versions.json")
        """The same file, as another process has it open: the command line."""
        self.repository = BackupRepository(database)
        self.policies = PolicyRepository(database)
        leases = Leases(bus)
        self.jobs = BackupJobs(self.repository, BlobStore.open(settings.blob_url), self.keyring, bus, leases)
        self.restores = RestoreRepository(database)
        self.backups = Backups(self.repository, self.jobs, bus, leases, self.restores.reading)
        self.upkeep = self.successor()

    def successor(self) -> BackupUpkeep:
        return BackupUpkeep(self.repository, self.backups, self.jobs, self.policies, self.keyring)

    async def put(self, *, expires: datetime | None = None, known: bool = True) -> str:
        """A completed backup of one object."""
        backup_id = names.fresh_id(now().timestamp())
        async with BackupWriter(self.jobs.blobs(backup_id), self.keyring, backup_id) as writer:
            packer = writer.packer("prod")
            record = Record(
                cluster="prod", type="configmaps", namespace="shop", name="web", uid="u", rv="1", object=b"{}"
            )
            await packer.add([record])
            await packer.close()
            about = About(
                name="",
                created_at="",
                completed_at="",
                created_by="ann",
                reason="",
                scope=Scope(clusters=["prod"]),
            )
            manifest = await writer.finish(about)
        await self.repository.add(
            Job(
                id=backup_id,
                name="",
                status="completed",
                clusters=["prod"],
                namespaces=[],
                types=[],
                labels="",
                created_by="ann",
                reason="",
                created_at=now(),
                expires_at=expires,
                retention_days=0,
                replica="r",
                beat=now(),
                keys=manifest.key_id if known else "",
            )
        )
        return backup_id

    async def wraps(self, backup_id: str) -> set[str]:
        sizes = await self.jobs.blobs(backup_id).sizes()
        return {names.key_id(name) for name in sizes if names.is_key(name)}

    async def reads(self, backup_id: str) -> list[str]:
        reader = await BackupReader.open(self.jobs.blobs(backup_id), self.keyring, backup_id)
        return [record.name async for record in reader.records()]


@pytest_asyncio.fixture(loop_scope="session")
async def archive(settings) -> AsyncIterator[Archive]:
    bus = await connect(settings, name="yaml-vcs")
    await ensure_streams(bus)
    async with await open_database(settings) as database:
        made = Archive(settings, bus, database)
        await made.repository.prepare()
        await made.policies.prepare()
        yield made
    await bus.close()


async def test_after_a_rotation_every_backup_is_wrapped_by_the_new_key_and_the_old_one_may_go(
    archive: Archive,
) -> None:
    first = archive.keyring.active_key_id
    kept = [await archive.put(), await archive.put(known=False)]
    second = archive.other.rotate()
    assert await archive.reads(kept[0]) == ["web"]
    assert await archive.upkeep.rewrap() == 2
    assert await archive.upkeep.rewrap() == 0
    for backup_id in kept:
        assert await archive.wraps(backup_id) == {second}
    archive.other.remove(first)
    for backup_id in kept:
        assert await archive.reads(backup_id) == ["web"]
    with acting_as(ADMINISTRATOR):
        shown = await archive.backups.get(BackupRef(kept[0]))
    assert (shown.key_ids, shown.unreadable) == ([second], "")


async def test_a_removed_key_makes_what_was_not_rewrapped_unreadable_and_everything_says_so_by_name(
    archive: Archive,
) -> None:
    first = archive.keyring.active_key_id
    lost = await archive.put()
    archive.other.rotate()
    with acting_as(ADMINISTRATOR):
        before = await archive.backups.get(BackupRef(lost))
        assert (before.key_ids, before.unreadable) == ([first], "")
        assert {key.id: key.backups for key in (await archive.upkeep.keys(AskKeys())).keys}[first] == 1
        archive.other.remove(first)
        after = await archive.backups.get(BackupRef(lost))
        assert first in after.unreadable
        assert "removed" in after.unreadable
        assert [item.unreadable for item in (await archive.backups.list(ListBackups())).items] == [
            after.unreadable
        ]
        assert await archive.upkeep.rewrap() == 0
        assert (await archive.upkeep.keys(AskKeys())).unreadable == [lost]
        await archive.backups.verify(BackupRef(lost))

        async def verified() -> str:
            told = (await archive.backups.get(BackupRef(lost))).verification
            return told.reason if told and told.state == "failed" else ""

        assert await wait_for(verified, "the verification", 10) == KeyUnknown.reason
    with pytest.raises(KeyUnknown, match=first):
        await archive.reads(lost)
    assert await archive.wraps(lost) == {first}


@pytest.mark.parametrize("turns", range(1, 40, 3))
async def test_a_rewrap_that_dies_anywhere_leaves_a_backup_that_opens(archive: Archive, turns: int) -> None:
    backup_id = await archive.put()
    second = archive.other.rotate()
    wrapping = asyncio.create_task(archive.upkeep.rewrap())
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    wrapping.cancel()
    await asyncio.gather(wrapping, return_exceptions=True)
    assert await archive.reads(backup_id) == ["web"]
    await archive.successor().rewrap()
    assert await archive.wraps(backup_id) == {second}
    assert await archive.reads(backup_id) == ["web"]


async def test_mandates_of_policies_follow_a_rotation_too(archive: Archive) -> None:
    context = mandate_context("ab")
    policy = Policy(
        name="nightly",
        uid="ab",
        spec=PolicySpec(clusters=["prod"], schedule="0 3 * * *"),
        subject="ann",
        mandate=Mandate("word").seal(archive.keyring, context=context),
        created_at=1.0,
        updated_at=1.0,
    )
    await archive.policies.insert(policy)
    first = archive.keyring.active_key_id
    archive.other.rotate()
    with acting_as(ADMINISTRATOR):
        assert {key.id: key.policies for key in (await archive.upkeep.keys(AskKeys())).keys}[first] == 1
    assert await archive.upkeep.rewrap() == 1
    archive.other.remove(first)
    kept = (await archive.policies.get("nightly")).mandate
    assert Mandate.open(archive.keyring, kept, context=context).token == "word"


async def test_who_needs_which_key_is_for_administrators(archive: Archive) -> None:
    ann = Caller(subject="ann", grants=(Grant(role="admin", clusters=("prod",)),), credential="token:1")
    with acting_as(ann), pytest.raises(Forbidden):
        await archive.upkeep.keys(AskKeys())


async def test_a_backup_whose_time_is_over_goes_with_its_files_and_no_other_does(archive: Archive) -> None:
    moment = datetime.now(UTC)
    over = await archive.put(expires=moment - timedelta(seconds=1))
    kept = [await archive.put(expires=moment + timedelta(days=1)), await archive.put()]
    assert await archive.upkeep.expire(moment) == 1
    assert await archive.upkeep.expire(moment) == 0
    with acting_as(ADMINISTRATOR):
        shown = [item.id for item in (await archive.backups.list(ListBackups())).items]
    assert sorted(shown) == sorted(kept)
    looking = asyncio.create_task(archive.jobs.run())

    async def gone() -> bool:
        return not await archive.jobs.blobs(over).sizes()

    await wait_for(gone, "the files to go", 15)
    looking.cancel()
    with suppress(asyncio.CancelledError, KubeloreError):
        await looking
    assert await archive.reads(kept[0]) == ["web"]


async def test_a_backup_that_is_being_restored_stays_until_that_has_ended(archive: Archive) -> None:
    moment = datetime.now(UTC)
    over = await archive.put(expires=moment - timedelta(seconds=1))
    restore = RestoreJob(
        id="op-1",
        asked=StartRestore(backup_id=over),
        created_by="ann",
        created_at=moment,
        scope=[("prod", "")],
        mandate=b"",
    )
    await archive.restores.add(restore)
    assert await archive.upkeep.expire(moment) == 0
    with acting_as(ADMINISTRATOR), pytest.raises(Conflict, match="restored by op-1"):
        await archive.backups.delete(BackupRef(over))
    await archive.restores.end(restore.id, "completed")
    assert await archive.upkeep.expire(moment) == 1
