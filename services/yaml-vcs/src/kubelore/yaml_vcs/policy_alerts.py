"""The alerts about backup policies: one for each cluster of a policy. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubelore.common.contracts.alerts import (
    BACKUP_FAILED,
    BACKUP_LATE,
    BackupAlertData,
    CloudEvent,
    Severity,
    alert_subject,
    source_of,
)
from kubelore.common.contracts.versions import SERVICE
from kubelore.yaml_vcs.backup_policies import iso
from kubelore.yaml_vcs.policy_repository import Policy, Run

Alert = tuple[str, CloudEvent]
"""Where an alert is published, and the alert."""


def failed(policy: Policy, run: Run, now: float) -> Iterator[Alert]:
    """A run has failed."""
    message = f"The backup by the policy {policy.name} failed: {run.error}"
    remedy = run.remedy or f"See `kubelore backup policy get {policy.name}`, then run it again."
    told = BackupAlertData(
        policy=policy.name,
        cluster="",
        slot=iso(run.slot),
        backup_id=run.backup_id,
        last_success=iso(policy.last_success),
        message=message,
        remedy=remedy,
    )
    yield from _alerts(BACKUP_FAILED, f"{run.id}:failed", policy, told, "critical", now)


def late(policy: Policy, slot: int, now: float) -> Iterator[Alert]:
    """No backup was completed in time after a slot."""
    last = iso(policy.last_success)
    message = (
        f"The policy {policy.name} was due at {iso(slot)}, and no backup was completed in "
        f"{policy.spec.late_after_s} s. The last that was is {f'of {last}' if last else 'none at all'}."
    )
    told = BackupAlertData(
        policy=policy.name,
        cluster="",
        slot=iso(slot),
        last_success=last,
        message=message,
        remedy=f"See `kubelore backup policy get {policy.name}`: it may still be running, or could not.",
    )
    yield from _alerts(BACKUP_LATE, f"{policy.uid}:{slot}:late", policy, told, "warning", now)


def _alerts(
    kind: str, id_: str, policy: Policy, told: BackupAlertData, severity: Severity, now: float
) -> Iterator[Alert]:
    for cluster in sorted(set(policy.spec.clusters)):
        alert = CloudEvent(
            id=f"{id_}:{cluster}",
            source=source_of(SERVICE),
            type=kind,
            subject=cluster,
            time=iso(now),
            severity=severity,
            data=msgspec.to_builtins(msgspec.structs.replace(told, cluster=cluster)),
        )
        yield alert_subject(alert), alert
