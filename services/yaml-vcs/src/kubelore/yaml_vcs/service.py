"""The bus endpoints of yaml-vcs: one line to the domain each."""

from __future__ import annotations

from kubelore.common.bus import Bus, Service
from kubelore.common.contracts import (
    backup_keys,
    backup_policies,
    backups,
    branches,
    keeping,
    rescans,
    restores,
    rollbacks,
    timelines,
    verifying,
    versions,
)
from kubelore.yaml_vcs.backup_policies import BackupPolicies
from kubelore.yaml_vcs.backup_upkeep import BackupUpkeep
from kubelore.yaml_vcs.backups import Backups
from kubelore.yaml_vcs.branches import Drafts
from kubelore.yaml_vcs.draft_merging import DraftMerging
from kubelore.yaml_vcs.drift import Drifting
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.parked import ParkedChanges
from kubelore.yaml_vcs.policies import Policies
from kubelore.yaml_vcs.redactions import Redacting
from kubelore.yaml_vcs.rescans import Rescans
from kubelore.yaml_vcs.restores import Restores
from kubelore.yaml_vcs.rollbacks import Rollbacks
from kubelore.yaml_vcs.secrets import Revealing
from kubelore.yaml_vcs.snapshots import Snapshots
from kubelore.yaml_vcs.tags import Tagging
from kubelore.yaml_vcs.timelines import Timelines
from kubelore.yaml_vcs.verifying import Verifying

VERSION = "0.1.0"


def endpoints(bus: Bus, histories: Histories) -> Service:
    """The ADR-32 service with every endpoint of the contract."""
    service = Service(bus, versions.SERVICE, VERSION)
    service.serve(versions.LIST, histories.list)
    service.serve(versions.GET, histories.get)
    service.serve(versions.DIFF, histories.diff)
    service.serve(versions.BLAME, histories.blame, max_concurrent=4)
    service.serve(versions.SNAPSHOT, histories.snapshot, max_concurrent=8)
    service.serve(versions.VERIFY, histories.verify, max_concurrent=4)
    return service


def serve_tags(service: Service, tagging: Tagging, drift: Drifting) -> None:
    """The endpoints about tags, and what departed from them."""
    service.serve(branches.TAGS, tagging.list)
    service.serve(branches.TAG, tagging.put)
    service.serve(branches.UNTAG, tagging.remove)
    service.serve(branches.DRIFT, drift.find, max_concurrent=4)
    service.serve(branches.TAG_SNAPSHOT, tagging.put_on_snapshot, max_concurrent=2)


def serve_verifying(service: Service, many: Verifying) -> None:
    """The endpoint that verifies many histories."""
    service.serve(verifying.VERIFY_MANY, many.many, max_concurrent=2)


def serve_timelines(service: Service, lines: Timelines) -> None:
    """The endpoints about whole histories."""
    service.serve(timelines.OBJECTS, lines.objects, max_concurrent=4)
    service.serve(timelines.HISTORY, lines.history, max_concurrent=8)


def serve_drafts(service: Service, drafts: Drafts, merging: DraftMerging) -> None:
    """The endpoints about branches."""
    service.serve(branches.BRANCHES, drafts.list)
    service.serve(branches.BRANCH, drafts.make)
    service.serve(branches.UNBRANCH, drafts.remove)
    service.serve(branches.RECORD, drafts.record, max_concurrent=8)
    service.serve(branches.UPDATE, drafts.update, max_concurrent=4)
    service.serve(branches.VALIDATE_DRAFT, merging.validate, max_concurrent=8)
    service.serve(branches.MERGE, merging.merge, max_concurrent=8)


def serve_keeping(service: Service, revealing: Revealing, redacting: Redacting, policies: Policies) -> None:
    """The endpoints about keeping; before the service starts."""
    service.serve(keeping.REVEAL, revealing.reveal, max_concurrent=8)
    service.serve(keeping.REDACT, redacting.redact, max_concurrent=2)
    service.serve(keeping.POLICIES, policies.list)
    service.serve(keeping.POLICY, policies.get)
    service.serve(keeping.SET_POLICY, policies.put)
    service.serve(keeping.DROP_POLICY, policies.drop)


def serve_parked(service: Service, parked: ParkedChanges) -> None:
    """The endpoints about changes that could not be taken."""
    service.serve(keeping.PARKED, parked.list, max_concurrent=2)
    service.serve(keeping.REPLAY_PARKED, parked.replay, max_concurrent=1)


def serve_restores(service: Service, kept: Restores) -> None:
    """The endpoints about restores."""
    service.serve(restores.START, kept.start, max_concurrent=8)
    service.serve(restores.GET, kept.get)
    service.serve(restores.LIST, kept.list)
    service.serve(restores.ITEMS, kept.items)
    service.serve(restores.CANCEL, kept.cancel)


def serve_backups(service: Service, kept: Backups, finding: Rescans) -> None:
    """The endpoints about backups."""
    service.serve(backups.CREATE, kept.create)
    service.serve(backups.LIST_BACKUPS, kept.list)
    service.serve(backups.GET_BACKUP, kept.get)
    service.serve(backups.CANCEL, kept.cancel)
    service.serve(backups.DELETE, kept.delete)
    service.serve(backups.VERIFY_BACKUP, kept.verify)
    service.serve(backups.FILES, kept.files, max_concurrent=4)
    service.serve(backups.FILE, kept.file, max_concurrent=4)
    service.serve(rescans.RESCAN, finding.rescan, max_concurrent=1)


def serve_rollbacks(service: Service, going_back: Rollbacks, snapshots: Snapshots) -> None:
    """The endpoints about going back."""
    service.serve(rollbacks.DIFF_LIVE, going_back.diff_live)
    service.serve(rollbacks.ROLL_BACK, going_back.roll_back)
    service.serve(rollbacks.SNAPSHOT_DIFF, snapshots.diff, max_concurrent=8)
    service.serve(rollbacks.SNAPSHOT_ROLL_BACK, snapshots.roll_back, max_concurrent=2)


def serve_backup_policies(service: Service, policies: BackupPolicies, upkeep: BackupUpkeep) -> None:
    """The endpoints about backup policies, and about keys."""
    service.serve(backup_keys.KEYS, upkeep.keys, max_concurrent=2)
    service.serve(backup_policies.CREATE_POLICY, policies.create)
    service.serve(backup_policies.LIST_POLICIES, policies.list)
    service.serve(backup_policies.GET_POLICY, policies.get)
    service.serve(backup_policies.UPDATE_POLICY, policies.update)
    service.serve(backup_policies.PAUSE_POLICY, policies.pause)
    service.serve(backup_policies.DELETE_POLICY, policies.delete)
    service.serve(backup_policies.RUN_POLICY, policies.run)
    service.serve(backup_policies.POLICY_RUNS, policies.runs)
