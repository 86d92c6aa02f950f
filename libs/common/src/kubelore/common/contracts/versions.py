"""What yaml-vcs answers: the history of every object, its versions, and what differs between them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kubelore.common.contracts.endpoint import Endpoint

SERVICE = "yaml-vcs"
MAIN = "main"
"""The branch that follows the cluster."""

Happened = Literal["observed", "created", "updated", "deleted", "vanished", "recorded", "missing"]
"""`vanished`: a list no longer held it, when and by whom it was deleted is not known. `recorded`: written
by hand and not applied. `missing`: a change that could not be taken, and waits parked."""
ActorKind = Literal["user", "manager", "unknown"]


class Actor(msgspec.Struct, kw_only=True):
    """Who made a version, named as what it is: a user of Kubelore, or the field manager that the cluster names."""

    kind: ActorKind
    name: str = ""
    operation: str = ""
    """Of a field manager: Update or Apply."""
    probable: bool = False
    """Of a user: inferred after the write's own answer was lost."""


class Version(msgspec.Struct, kw_only=True):
    """One version of one object. Times are ISO 8601 in UTC; `change_log` is what its author wrote about it."""

    resource_id: str
    resource_type: str
    cluster: str
    namespace: str
    name: str
    version: int
    branch: str
    happened: Happened
    created_at: str
    created_by: str
    actor: Actor
    uid: str
    resource_version: str
    commit_hash: str
    is_current: bool
    change_log: str = ""
    tags: list[str] = []
    operation_id: str = ""
    rules: int = 0
    """The number of the policy that it was made under; where it differs from the one before, that may be all."""
    redacted: bool = False
    """Its content was taken out of the history; that it was there, and its hash, stay."""


class ListVersions(msgspec.Struct, kw_only=True):
    """A page of an object's versions, newest first, numbered below `before`; times in seconds since 1970."""

    id: str
    branch: str = MAIN
    before: int | None = None
    since: float = 0.0
    until: float | None = None
    actor: str = ""
    tag: str = ""
    limit: int = 50


class HistoryGap(msgspec.Struct, kw_only=True):
    """What is not known of an object, or came late: never part of the chain of its versions.

    `gap`: the API server no longer had what happened to the type after
    `resource_version`; `since` is when that was found, `until` when everything had
    been seen again. `missing`: the change to `resource_version` could not be taken
    and waits parked; `late`: it was replayed behind newer versions. It lies behind
    `after_version` (0: before the first) and before `before_version`, where there is one.
    """

    kind: Literal["gap", "missing", "late"]
    type: str
    namespace: str
    """Of which namespace; empty for all."""
    since: str
    until: str | None = None
    resource_version: str = ""
    after_version: int = 0
    before_version: int | None = None
    happened: str = ""
    """To the object, by a change that is missing or late."""
    parked: int = 0
    reason: str = ""
    yaml_content: str = ""
    """What a late change held; only beside a single version and in whole histories."""


class VersionPage(msgspec.Struct):
    """Versions, and the `before` of the page behind; None at the end. `gaps` lie between and behind them."""

    items: list[Version]
    next: int | None = None
    gaps: list[HistoryGap] = []


class GetVersion(msgspec.Struct, kw_only=True):
    """One version; the newest when none is named."""

    id: str
    version: int | None = None
    branch: str = MAIN


class VersionContent(msgspec.Struct, kw_only=True):
    """A version with the object as it was: YAML as kubectl prints it; empty for a deleted one.

    The values of a Secret are not in it: only that a key exists, and whether it changed.
    """

    version: Version
    yaml_content: str
    gaps: list[HistoryGap] = []
    """Right before and right behind it."""


class DiffVersions(msgspec.Struct, kw_only=True):
    """What differs between two versions; without numbers between the last two.

    With `against` the older one is of that branch, without a number its newest.
    """

    id: str
    from_version: int | None = None
    to_version: int | None = None
    branch: str = MAIN
    against: str = ""


class FieldChange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One place that differs; a side that does not have it is absent."""

    path: str
    old: Any = msgspec.UNSET
    new: Any = msgspec.UNSET


class VersionDiff(msgspec.Struct, kw_only=True):
    """A diff for people (unified text over YAML) and for programs."""

    id: str
    from_version: int
    to_version: int
    diff_content: str
    changes: list[FieldChange]


class BlameLine(msgspec.Struct, array_like=True):
    """One line of the YAML, and the version that set it; 0 when that is no longer kept."""

    version: int
    text: str


class Blame(msgspec.Struct, kw_only=True):
    """Each line of a version, and the versions that they come from."""

    id: str
    version: int
    lines: list[BlameLine]
    versions: list[Version]


class TakeSnapshot(msgspec.Struct, kw_only=True):
    """A page of what a namespace held at a time (seconds since 1970); an empty namespace: what lies in none."""

    cluster: str
    namespace: str
    at: float
    after: str = ""
    limit: int = 100
    content: bool = True


class SnapshotItem(msgspec.Struct, kw_only=True):
    """One object as it was then."""

    version: Version
    yaml_content: str = ""
    gaps: list[HistoryGap] = []
    """What makes uncertain that it was so then."""


class SnapshotPage(msgspec.Struct):
    """Objects that were there, and the `after` of the page behind; empty at the end."""

    items: list[SnapshotItem]
    next: str = ""


class VerifyHistory(msgspec.Struct, kw_only=True):
    """Check the chain of one object's versions."""

    id: str
    branch: str = MAIN


class VerifiedHistory(msgspec.Struct, kw_only=True):
    """How many versions follow from one another; `broken` is the first that does not, and `why`."""

    id: str
    versions: int
    ok: bool
    broken: int | None = None
    why: str = ""


LIST = Endpoint(SERVICE, "list", ListVersions, VersionPage)
GET = Endpoint(SERVICE, "get", GetVersion, VersionContent)
DIFF = Endpoint(SERVICE, "diff", DiffVersions, VersionDiff)
BLAME = Endpoint(SERVICE, "blame", GetVersion, Blame, deadline_s=15.0)
SNAPSHOT = Endpoint(SERVICE, "snapshot", TakeSnapshot, SnapshotPage, deadline_s=15.0)
VERIFY = Endpoint(SERVICE, "verify", VerifyHistory, VerifiedHistory, deadline_s=30.0)

ENDPOINTS = (LIST, GET, DIFF, BLAME, SNAPSHOT, VERIFY)
