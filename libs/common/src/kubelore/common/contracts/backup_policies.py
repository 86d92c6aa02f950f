"""What yaml-vcs answers: backup policies, which say what is backed up when, and what is kept of it.

A policy acts for whoever made or last changed it, with what is granted to them
at each run. It is seen by whoever may read all of its scope; everything else
needs the right `backup` there. Times are ISO 8601 in UTC, empty for what has not
happened.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE

RunState: TypeAlias = Literal["pending", "running", "completed", "failed", "skipped"]
"""`skipped`: the run before it was still going."""

MAX_POLICIES = 500
USUAL_LATE_AFTER_S = 3600


class PolicySpec(msgspec.Struct, kw_only=True):
    """What somebody asks for. The scope is that of a backup: empty lists mean all.

    `schedule` is a cron expression of five fields in `time_zone`. `keep_count`
    and `keep_days` of 0 are without limit. `late_after_s` is how long after a
    slot a completed backup is expected.
    """

    clusters: list[str]
    schedule: str
    time_zone: str = "UTC"
    jitter_s: int = 0
    namespaces: list[str] = []
    types: list[str] = []
    labels: str = ""
    keep_count: int = 7
    keep_days: int = 0
    late_after_s: int = USUAL_LATE_AFTER_S
    paused: bool = False


class PolicyRun(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One run. `slot` is the scheduled time, empty for a run by hand; `caught_up`: earlier slots went by unseen."""

    id: str
    state: RunState
    slot: str = ""
    due_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    caught_up: bool = False
    backup_id: str = ""
    error: str = ""


class BackupPolicy(msgspec.Struct, kw_only=True):
    """A policy, when it runs next (jitter included), and how it went."""

    name: str
    spec: PolicySpec
    subject: str
    created_at: str
    updated_at: str
    revision: int
    next_runs: list[str] = []
    last_run: PolicyRun | None = None
    last_success: str = ""
    """When the last completed backup was begun."""
    late: bool = False


class CreatePolicy(msgspec.Struct, kw_only=True):
    """A new policy; the name is a DNS label."""

    name: str
    spec: PolicySpec


class UpdatePolicy(msgspec.Struct, kw_only=True):
    """Another specification, whole. With `revision` only if nobody changed it since."""

    name: str
    spec: PolicySpec
    revision: int | None = None


class PausePolicy(msgspec.Struct, kw_only=True):
    """Stop or go on running by schedule; what came due while paused is not caught up."""

    name: str
    paused: bool


class PolicyRef(msgspec.Struct):
    """One policy."""

    name: str


class DeletedPolicy(msgspec.Struct):
    """A policy that is gone, and how many of its backups stay until somebody deletes them."""

    name: str
    backups: int = 0


class ListPolicies(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A page of policies by name, behind `after`."""

    after: str = ""
    limit: int = 100


class PolicyPage(msgspec.Struct):
    """Policies, and the `after` of the page behind; empty at the end."""

    items: list[BackupPolicy]
    next: str = ""


class ListRuns(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The last runs of a policy, newest first."""

    name: str
    limit: int = 20


class PolicyRuns(msgspec.Struct):
    """Runs of a policy."""

    items: list[PolicyRun]


CREATE_POLICY = Endpoint(SERVICE, "backup-policy-create", CreatePolicy, BackupPolicy)
LIST_POLICIES = Endpoint(SERVICE, "backup-policy-list", ListPolicies, PolicyPage)
GET_POLICY = Endpoint(SERVICE, "backup-policy-get", PolicyRef, BackupPolicy)
UPDATE_POLICY = Endpoint(SERVICE, "backup-policy-update", UpdatePolicy, BackupPolicy)
PAUSE_POLICY = Endpoint(SERVICE, "backup-policy-pause", PausePolicy, BackupPolicy)
DELETE_POLICY = Endpoint(SERVICE, "backup-policy-delete", PolicyRef, DeletedPolicy)
RUN_POLICY = Endpoint(SERVICE, "backup-policy-run", PolicyRef, PolicyRun)
POLICY_RUNS = Endpoint(SERVICE, "backup-policy-runs", ListRuns, PolicyRuns)

ENDPOINTS = (
    CREATE_POLICY,
    LIST_POLICIES,
    GET_POLICY,
    UPDATE_POLICY,
    PAUSE_POLICY,
    DELETE_POLICY,
    RUN_POLICY,
    POLICY_RUNS,
)
