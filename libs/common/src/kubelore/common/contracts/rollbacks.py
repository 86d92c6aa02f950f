"""What yaml-vcs answers about going back: one object or a whole namespace, as they were, written to the cluster."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE, FieldChange

Method: TypeAlias = Literal["replace", "create", "delete", "none"]
"""`none`: the object is as the version says already."""
MAX_PLAN = 500
"""Objects that one plan may change."""


class DiffLive(msgspec.Struct, kw_only=True):
    """What differs between a version (0: nothing; None: the newest) and the object as the cluster has it now."""

    id: str
    from_version: int | None = None


class LiveDiff(msgspec.Struct, kw_only=True):
    """A diff to the live object; `resource_version` is empty when there is none."""

    id: str
    from_version: int
    resource_version: str
    diff_content: str
    changes: list[FieldChange]


class Expected(msgspec.Struct, kw_only=True):
    """What a preview saw, so that nothing else is overwritten; what is empty is not compared.

    `resource_version` means that very one, which status changes too; `content_hash`
    that what versions hold of the object is the same.
    """

    resource_version: str = ""
    content_hash: str = ""


class RollBack(msgspec.Struct, kw_only=True):
    """Make an object what a version of it says.

    A version that says that the object was deleted needs `delete`. Without
    `force`, Conflict when the object is not what `expected` says.
    """

    id: str
    version: int
    dry_run: bool = False
    reason: str = ""
    change_log: str = ""
    expected: Expected | None = None
    force: bool = False
    delete: bool = False


class Refusal(msgspec.Struct, kw_only=True):
    """Why the API server, or Kubelore, would refuse it; `fields` are those that cannot be changed."""

    reason: str
    detail: str
    remedy: str = ""
    fields: list[str] = []


class RolledBack(msgspec.Struct, kw_only=True):
    """What a rollback changes, or changed.

    The diff leads from the live object to the version. `resource_version` and
    `content_hash` are of the object that it was computed against (both empty
    when there was none): good for `expected`. `notes` say what was knowingly
    left out. `operation`, `uid` and `new_resource_version` are of the write;
    empty for a dry run. Only a dry run answers with `refusal`; otherwise it is
    raised.
    """

    id: str
    version: int
    method: Method
    dry_run: bool
    resource_version: str
    content_hash: str
    diff_content: str
    changes: list[FieldChange]
    recreates: bool = False
    notes: list[str] = []
    refusal: Refusal | None = None
    operation: str = ""
    uid: str = ""
    new_resource_version: str = ""


class DiffSnapshots(msgspec.Struct, kw_only=True):
    """A page of what differs in a namespace between two times (seconds since 1970)."""

    cluster: str
    namespace: str
    since: float
    until: float
    after: str = ""
    limit: int = 100


class SnapshotChange(msgspec.Struct, kw_only=True):
    """One object that differs; a version is 0 where it was not there."""

    id: str
    change: Literal["added", "removed", "changed"]
    from_version: int
    to_version: int
    diff_content: str
    changes: list[FieldChange]


class SnapshotDiff(msgspec.Struct):
    """What differs, and the `after` of the page behind; empty at the end."""

    items: list[SnapshotChange]
    next: str = ""


Step: TypeAlias = Literal["replace", "create", "delete", "leave"]
"""`leave`: somebody else makes or removes it, `why` says who."""


class PlanItem(msgspec.Struct, kw_only=True):
    """One object of a plan: what is done to it, from what it is to what the version says.

    In what was carried out, exactly one of `result` and `error` says what became of
    it; `skipped` was not begun.
    """

    id: str
    step: Step
    version: int
    resource_version: str
    diff_content: str
    changes: list[FieldChange]
    why: str = ""
    notes: list[str] = []
    refusal: Refusal | None = None
    result: str = ""
    error: Refusal | None = None
    skipped: bool = False
    operation: str = ""
    new_resource_version: str = ""


class RollBackSnapshot(msgspec.Struct, kw_only=True):
    """Make a namespace hold what it held at a time (seconds since 1970): one plan, shown or carried out.

    `expected` is the `plan` of a dry run; Conflict when objects changed since,
    unless `force` says that this does not matter.
    """

    cluster: str
    namespace: str
    at: float
    dry_run: bool = False
    reason: str = ""
    change_log: str = ""
    expected: str = ""
    force: bool = False
    stop_on_error: bool = False


class SnapshotPlan(msgspec.Struct, kw_only=True):
    """The steps in the order in which they are taken; `plan` names this very plan against these very objects."""

    cluster: str
    namespace: str
    at: float
    dry_run: bool
    plan: str
    items: list[PlanItem]
    unchanged: int


DIFF_LIVE = Endpoint(SERVICE, "diff-live", DiffLive, LiveDiff, deadline_s=20.0)
ROLL_BACK = Endpoint(SERVICE, "roll-back", RollBack, RolledBack, deadline_s=45.0)
SNAPSHOT_DIFF = Endpoint(SERVICE, "snapshot-diff", DiffSnapshots, SnapshotDiff, deadline_s=15.0)
SNAPSHOT_ROLL_BACK = Endpoint(SERVICE, "snapshot-roll-back", RollBackSnapshot, SnapshotPlan, deadline_s=120.0)

ENDPOINTS = (DIFF_LIVE, ROLL_BACK, SNAPSHOT_DIFF, SNAPSHOT_ROLL_BACK)
