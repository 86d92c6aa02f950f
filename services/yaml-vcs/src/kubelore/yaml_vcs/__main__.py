"""The process of yaml-vcs: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio

from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.bus import ChangeConsumer, Leases
from kubelore.common.contracts.versions import SERVICE
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.yaml_vcs.backup_jobs import BackupJobs
from kubelore.yaml_vcs.backup_policies import BackupPolicies
from kubelore.yaml_vcs.backup_repository import BackupRepository
from kubelore.yaml_vcs.backup_upkeep import BackupUpkeep, keep_backups
from kubelore.yaml_vcs.backups import Backups
from kubelore.yaml_vcs.branches import Drafts
from kubelore.yaml_vcs.draft_merging import DraftMerging
from kubelore.yaml_vcs.drift import DriftAlerts, Drifting
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.keeping_repository import KeepingRepository
from kubelore.yaml_vcs.normalising import Normaliser
from kubelore.yaml_vcs.parked import ParkedChanges
from kubelore.yaml_vcs.policies import Policies
from kubelore.yaml_vcs.policy_repository import PolicyRepository
from kubelore.yaml_vcs.policy_runs import PolicyRuns, follow_schedules
from kubelore.yaml_vcs.pruning import Pruner, prune_under_lease
from kubelore.yaml_vcs.recorder import Recorder
from kubelore.yaml_vcs.redactions import Redacting
from kubelore.yaml_vcs.repository import VersionRepository
from kubelore.yaml_vcs.rescans import Rescans
from kubelore.yaml_vcs.restore_repository import RestoreRepository
from kubelore.yaml_vcs.restore_run import Keys
from kubelore.yaml_vcs.restores import RestoreRunner, Restores, telling
from kubelore.yaml_vcs.rollbacks import Rollbacks
from kubelore.yaml_vcs.scheduled_backups import ScheduledBackups
from kubelore.yaml_vcs.secrets import Revealing, SecretValues
from kubelore.yaml_vcs.service import (
    endpoints,
    serve_backup_policies,
    serve_backups,
    serve_drafts,
    serve_keeping,
    serve_parked,
    serve_restores,
    serve_rollbacks,
    serve_tags,
    serve_timelines,
    serve_verifying,
)
from kubelore.yaml_vcs.snapshots import Snapshots
from kubelore.yaml_vcs.tags import Tagging
from kubelore.yaml_vcs.timelines import Timelines
from kubelore.yaml_vcs.verifying import Verifying
from kubelore.yaml_vcs.writing_back import WritingBack


async def main(settings: CommonSettings, stopping: asyncio.Event) -> None:
    """Record and answer until `stopping` is set."""
    keyring = Keyring.load(settings.keyring_dir / "versions.json")
    database = await open_database(settings)
    bus = await buses.connect(settings, name=SERVICE)
    try:
        blobs = BlobStore.open(settings.blob_url)

        async def read_blob(key: str) -> bytes:
            return keyring.open_box(await blobs.get(key), context=key)

        repository = VersionRepository(database)
        await repository.prepare()
        rules = KeepingRepository(database)
        versioning = Policies(rules)
        await versioning.refresh()
        histories = Histories(repository, keyring.signer().verifier)
        alerts = DriftAlerts(bus, repository, histories)
        recorder = Recorder(repository, versioning, keyring.signer(), read_blob, heard=alerts.hear)
        consumer = ChangeConsumer(bus, SERVICE, recorder.take, placeholder=recorder.placeholder)
        service = endpoints(bus, histories)
        gateway = Recipient.load(settings.keyring_dir / "gateway.pub")
        serve_keeping(
            service,
            Revealing(repository, histories, SecretValues(keyring), gateway),
            Redacting(repository, histories, keyring.signer()),
            versioning,
        )
        serve_parked(service, ParkedChanges(consumer, recorder))
        clusters = Recipient.load(settings.keyring_dir / "clusters.pub")
        writing = WritingBack(bus, versioning, SecretValues(keyring).values_of, clusters)
        serve_rollbacks(
            service,
            Rollbacks(repository, histories, writing),
            Snapshots(bus, repository, histories, writing),
        )
        pruner = Pruner(repository, rules, histories, versioning, keyring.signer())
        tagging = Tagging(repository, histories, keyring.signer())
        serve_tags(service, tagging, Drifting(repository, histories))
        serve_timelines(service, Timelines(repository, histories))
        serve_verifying(service, Verifying(repository, histories))
        drafts = Drafts(repository, histories, Normaliser(), keyring.signer())
        serve_drafts(service, drafts, DraftMerging(bus, repository, histories, drafts, Normaliser()))
        leases, kept = Leases(bus), BackupRepository(database)
        await kept.prepare()
        jobs = BackupJobs(kept, blobs, keyring, bus, leases)
        restores, policies = RestoreRepository(database), PolicyRepository(database)
        await restores.prepare()
        backups = Backups(kept, jobs, bus, leases, restores.reading)
        await policies.prepare()
        upkeep = BackupUpkeep(kept, backups, jobs, policies, keyring)
        schedules = PolicyRuns(policies, ScheduledBackups(backups, kept), keyring, bus)
        serve_backups(service, backups, Rescans(kept, blobs, keyring, bus))
        serve_backup_policies(service, BackupPolicies(policies, keyring, bus), upkeep)
        keys = Keys(versions=keyring, clusters=Recipient.load(settings.keyring_dir / "clusters.pub"))
        runner = RestoreRunner(restores, backups.open, keys, bus, telling(bus))
        serve_restores(service, Restores(restores, backups.open, keys, runner))
        await service.start()
        running = (
            consumer.run(),
            jobs.run(),
            runner.run(),
            alerts.run(),
            follow_schedules(leases, schedules),
            keep_backups(leases, upkeep),
            versioning.run(),
            prune_under_lease(leases, pruner),
            bus.until_closed(),
        )
        background = [asyncio.create_task(one) for one in running]
        await process.until_stopped_or_failed(stopping, background)
        await service.stop()
    finally:
        await bus.close()
        await database.close()


if __name__ == "__main__":
    process.run(SERVICE, CommonSettings(), main)
