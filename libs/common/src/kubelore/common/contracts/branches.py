"""What yaml-vcs answers about tags and drafts: names for versions, branches, merging, drift.

A tag is a name for one version of one object. A branch is a draft of an object:
versions that nobody has applied, which begin at a version of the branch that
follows the cluster. Every request but those that read needs the right to change
the object.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import MAIN, SERVICE, FieldChange, Version

DRAFTS = "drafts"
"""The branch that versions are recorded on when no other is named."""
MAX_NOTE = 500
MAX_TAGS = 100
MAX_BRANCHES = 100
"""Of one object."""
MAX_DRAFT = 3 * 1024 * 1024
"""Bytes of YAML, as much as the API server takes."""
MAX_TAGGED = 5000
"""Objects that are tagged at a time."""
MAX_DRIFTS = 500
"""Objects on a page of drifts."""


Side: TypeAlias = Literal["ours", "theirs"]
"""Of a merge: what is in the cluster, or what the draft says."""


class Tag(msgspec.Struct, kw_only=True):
    """A name for one version; `drifted` is the version that departed from it, where an alert was asked for."""

    id: str
    name: str
    version: int
    branch: str
    note: str
    alert: bool
    created_at: str
    created_by: str
    drifted: int = 0


class ListTags(msgspec.Struct, kw_only=True):
    """The tags of one object."""

    id: str


class Tags(msgspec.Struct):
    """Tags by name."""

    items: list[Tag]


class PutTag(msgspec.Struct, kw_only=True):
    """Tag a version, the newest when none is named. With `move` a tag of that name goes from where it was."""

    id: str
    name: str
    version: int | None = None
    branch: str = MAIN
    note: str = ""
    alert: bool = False
    move: bool = False


class RemoveTag(msgspec.Struct, kw_only=True):
    """Take a tag from an object; its versions stay."""

    id: str
    name: str


class TagSnapshot(msgspec.Struct, kw_only=True):
    """Tag everything that a namespace held at a time (seconds since 1970) and that the caller may change."""

    cluster: str
    namespace: str
    at: float
    name: str
    note: str = ""
    alert: bool = False
    move: bool = False


class TaggedSnapshot(msgspec.Struct, kw_only=True):
    """How many objects were tagged, and how many were left as they are: they had the tag, or are not the caller's."""

    tagged: int
    kept: int = 0
    skipped: int = 0


class FindDrift(msgspec.Struct, kw_only=True):
    """A page of the objects whose newest version differs from the one with a tag; an empty namespace: all."""

    cluster: str
    tag: str
    namespace: str = ""
    after: str = ""
    limit: int = 100


class Drift(msgspec.Struct, kw_only=True):
    """One object that is not as it was tagged: `gone`, or in which fields."""

    id: str
    tag: str
    tagged_version: int
    version: Version
    gone: bool
    changes: list[FieldChange] = []


class DriftPage(msgspec.Struct):
    """Drifts, how many tags were compared on this page, and the `after` of the page behind; empty at the end."""

    items: list[Drift]
    compared: int = 0
    next: str = ""


class Branch(msgspec.Struct, kw_only=True):
    """A draft: where it was branched off, and how far it has come."""

    id: str
    name: str
    base_version: int
    base_commit: str
    version: int
    note: str
    created_at: str
    created_by: str
    behind: int = 0
    """How many versions the cluster has gone on since."""
    merged: int = 0
    """The version of the branch that was merged into the cluster last; 0 before."""


class ListBranches(msgspec.Struct, kw_only=True):
    """The drafts of one object."""

    id: str


class Branches(msgspec.Struct):
    """Drafts by name."""

    items: list[Branch]


class MakeBranch(msgspec.Struct, kw_only=True):
    """Branch off a version, the newest when none is named. It begins with version 1, which holds the same."""

    id: str
    name: str
    version: int | None = None
    note: str = ""


class RemoveBranch(msgspec.Struct, kw_only=True):
    """Delete a draft with its versions. Refused while one of them is tagged."""

    id: str
    name: str


class Record(msgspec.Struct, kw_only=True):
    """Record a version on a draft, which is branched off the newest when it is not there. Nothing is applied.

    `after` is the version it was edited from: Conflict when the branch has gone on.
    """

    id: str
    content: str
    change_log: str = ""
    branch: str = DRAFTS
    after: int | None = None


class UpdateBranch(msgspec.Struct, kw_only=True):
    """Bring into a draft what the cluster has become since it was branched off; its comments stay."""

    id: str
    branch: str
    resolve: dict[str, Side] = {}
    change_log: str = ""


class MergeConflict(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One place that both sides changed to something else; a side that does not have it is absent."""

    path: str
    base: Any = msgspec.UNSET
    ours: Any = msgspec.UNSET
    theirs: Any = msgspec.UNSET
    resolved: Literal["", "ours", "theirs"] = ""


class UpdatedBranch(msgspec.Struct, kw_only=True):
    """The draft as it is now; with conflicts that nothing resolves it stayed as it was."""

    branch: Branch
    conflicts: list[MergeConflict]
    changes: list[FieldChange]


class Merge(msgspec.Struct, kw_only=True):
    """Bring a draft into the cluster: what it changed since `base`, into what is live.

    Either `branch`, or `content` that was edited from the version `base` of main.
    `seen` is the `live` of a preview: Conflict when the object was changed since.
    """

    id: str
    branch: str = ""
    content: str = ""
    base: int | None = None
    resolve: dict[str, Side] = {}
    dry_run: bool = False
    reason: str = ""
    change_log: str = ""
    seen: str = ""


class Merged(msgspec.Struct, kw_only=True):
    """What a merge did, or would do. `result` is empty while conflicts are open: then nothing was written."""

    id: str
    base_version: int
    conflicts: list[MergeConflict]
    changes: list[FieldChange]
    diff_content: str
    result: str = ""
    operation: str = ""
    uid: str = ""
    rv: str = ""
    live: str = ""
    """Names what the object was meant to be before: give it as `seen` to carry out just what was shown."""
    dry_run: bool = False


class ValidateDraft(msgspec.Struct, kw_only=True):
    """Check a draft, or a content, against the cluster's schema and by a dry run there."""

    id: str
    branch: str = ""
    content: str = ""


class DraftProblem(msgspec.Struct, kw_only=True):
    """One thing that is wrong with a draft; `source` says whether schema or API server found it."""

    path: str
    message: str
    source: str
    suggestion: str = ""


class ValidatedDraft(msgspec.Struct, kw_only=True):
    """What is wrong with a draft, nothing when `valid`; `unchecked` says what could not be asked."""

    valid: bool
    problems: list[DraftProblem] = []
    unchecked: list[str] = []


TAGS = Endpoint(SERVICE, "tags", ListTags, Tags)
TAG = Endpoint(SERVICE, "tag", PutTag, Tag)
UNTAG = Endpoint(SERVICE, "untag", RemoveTag, Tag)
TAG_SNAPSHOT = Endpoint(SERVICE, "tag-snapshot", TagSnapshot, TaggedSnapshot, deadline_s=60.0)
BRANCHES = Endpoint(SERVICE, "branches", ListBranches, Branches)
BRANCH = Endpoint(SERVICE, "branch", MakeBranch, Branch)
UNBRANCH = Endpoint(SERVICE, "unbranch", RemoveBranch, Branch, deadline_s=15.0)
RECORD = Endpoint(SERVICE, "record", Record, Version)
UPDATE = Endpoint(SERVICE, "update", UpdateBranch, UpdatedBranch)
VALIDATE_DRAFT = Endpoint(SERVICE, "validate", ValidateDraft, ValidatedDraft, deadline_s=45.0)
MERGE = Endpoint(SERVICE, "merge", Merge, Merged, deadline_s=60.0)
DRIFT = Endpoint(SERVICE, "drift", FindDrift, DriftPage, deadline_s=15.0)

ENDPOINTS = (
    TAGS,
    TAG,
    UNTAG,
    TAG_SNAPSHOT,
    BRANCHES,
    BRANCH,
    UNBRANCH,
    RECORD,
    UPDATE,
    VALIDATE_DRAFT,
    MERGE,
    DRIFT,
)
