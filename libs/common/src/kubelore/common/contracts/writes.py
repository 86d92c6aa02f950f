"""What resource-ops changes in clusters: one object a request, or many for a restore, answered by any replica.

A write is sent to the API server once. The operation under way
(`kubelore.common.operations`) and the write's `item` are the key under which its
intent is recorded before the effect, so that a request that arrives twice is
carried out once, and what became of one whose answer got lost can be asked for
(OPERATIONS). With `dry_run` the API server does all but store it, and nothing
is recorded.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.resources import SERVICE

Action: TypeAlias = Literal["apply", "patch", "delete", "scale", "restart", "label", "replace"]
PatchType: TypeAlias = Literal["merge", "json", "strategic"]
Propagation: TypeAlias = Literal["Orphan", "Background", "Foreground"]
Result: TypeAlias = Literal["created", "changed", "unchanged", "deleted"]
ReplaceMode: TypeAlias = Literal["replace", "create", "either"]
OnExisting: TypeAlias = Literal["skip", "update", "fail"]
ManyOutcome: TypeAlias = Literal["created", "changed", "unchanged", "skipped", "failed"]

MAX_MANIFEST = 3 * 1024 * 1024
"""Bytes, as much as the API server takes."""
MAX_REASON = 500
MAX_CHANGE_LOG = 10_000
MAX_MANY = 500
MAX_MANY_BYTES = 4 * 1024 * 1024
"""Of all manifests of one request together."""


class _Write(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What every write says: which one of its operation, why, and whether only to try.

    With `uid` or `rv` only that very object, in that very state, is changed;
    Conflict otherwise.
    """

    item: int = 0
    """Its number, where an operation consists of several."""
    reason: str = ""
    change_log: str = ""
    dry_run: bool = False
    uid: str = ""
    rv: str = ""


class _ById(_Write, kw_only=True, omit_defaults=True):
    """A write to an object named by its resource id, which is there already but where a write says otherwise."""

    id: str


class Apply(_Write, kw_only=True, omit_defaults=True):
    """Server-side apply of one manifest (JSON) under the field manager `kubelore`.

    `namespace` is where a manifest goes that names none. Without `force` a field
    that another manager owns with another value is a Conflict, whose `conflicts`
    name each owner: manager, operation, fields.
    """

    cluster: str
    manifest: bytes
    namespace: str = "default"
    force: bool = False


class Patch(_ById, kw_only=True, omit_defaults=True):
    """A merge, JSON or strategic merge patch (JSON)."""

    patch: bytes
    type: PatchType = "merge"


class Delete(_ById, kw_only=True, omit_defaults=True):
    """Delete an object; what is not said about propagation and grace is the type's own default."""

    propagation: Propagation | None = None
    grace_period_s: int | None = None


class Scale(_ById, kw_only=True, omit_defaults=True):
    """Set the number of replicas through the scale subresource."""

    replicas: int


class Restart(_ById, kw_only=True, omit_defaults=True):
    """Replace the pods of a Deployment, StatefulSet or DaemonSet, as `kubectl rollout restart` does."""


class Label(_ById, kw_only=True, omit_defaults=True):
    """Set labels and annotations; None removes one. Without `overwrite` one that has another value is a Conflict."""

    labels: dict[str, str | None] = {}
    annotations: dict[str, str | None] = {}
    overwrite: bool = True


class Replace(_ById, kw_only=True, omit_defaults=True):
    """Make an object what one manifest (JSON) says, and nothing else: PUT, not an apply.

    The manifest names the object of `id`, or leaves its name and namespace out.
    What the API server itself writes into metadata (uid, resourceVersion,
    managedFields and the like) is left out of it. `sealed` is the manifest in a
    box for the public half of the keyring `clusters` (`clusters.pub`), under
    `replace_context(id)`, for what must not pass the bus in the open: Secrets.

    With `mode` `replace` the object must be there (NotFound otherwise), with
    `create` it must not be (AlreadyExists), `either` takes both. Without `rv`
    it is written over what is there when the write is carried out; Conflict
    when somebody changed it since `rv`, or in that very moment. A field that
    cannot be changed is Invalid, with their paths in `fields`.
    """

    manifest: bytes = b""
    sealed: bytes = b""
    mode: ReplaceMode = "replace"


def replace_context(id_: str) -> str:
    """What a sealed manifest is bound to: the object that it is for."""
    return f"replace/{id_}"


Write: TypeAlias = Apply | Patch | Delete | Scale | Restart | Label | Replace


class ReplaceMany(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Many objects of one cluster at once, in no order: for restores.

    At most 500 items and 4 MB of manifests, each item with a number of its own;
    ids name objects of `cluster`. An object that is not there is created, and
    `on_existing` says what becomes of one that is, whatever the item's `mode`;
    with `uid` or `rv` an item is written over that very object only. `reason`,
    `change_log` and `dry_run` count for all items, and theirs do not.

    Sent again under the same operation, an item that was concluded answers what
    it answered; one whose outcome nobody knows is looked for in the cluster
    before it is written again.
    """

    cluster: str
    items: list[Replace]
    on_existing: OnExisting = "fail"
    dry_run: bool = False
    reason: str = ""
    change_log: str = ""


class ManyResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of one item. `skipped`: it was there, and stays as it is.

    Of a `failed` one `error` is the reason (`Forbidden`, `Invalid`, ..) and
    `detail` what there is to say; with `unknown` nobody can tell whether it
    happened. `NotBegun` says that the time was over: send it again. `probable`
    says that nobody saw it happen, and that it was found in the cluster
    afterwards; `rv` is then empty where somebody else wrote since.
    """

    id: str
    item: int = 0
    result: ManyOutcome
    uid: str = ""
    rv: str = ""
    error: str = ""
    detail: str = ""
    fields: list[str] = []
    unknown: bool = False
    probable: bool = False


class ReplacedMany(msgspec.Struct):
    """One result for each item, in their order."""

    results: list[ManyResult]


NOT_BEGUN = "NotBegun"


class FieldChange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One place of an object before and after; a side that had none is left out.

    Where the value must not be shown (Secrets) or is too long, `hidden` says so,
    and each side that is there is null.
    """

    path: str
    old: Any = msgspec.UNSET
    new: Any = msgspec.UNSET
    hidden: bool = False


class Written(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a write did. `more` counts changes that are not listed.

    `rv` is the object's new resourceVersion (good for `at_least` of a get);
    empty when the object is gone.
    """

    operation: str
    id: str
    uid: str
    rv: str
    result: Result
    changes: list[FieldChange] = []
    more: int = 0
    dry_run: bool = False


OperationState: TypeAlias = Literal["intended", "done", "failed", "unknown", "probable"]


class OperationRecord(msgspec.Struct, kw_only=True):
    """One recorded write: what was intended, and what became of it.

    `intended` is under way (or its replica died a moment ago). `unknown` says
    that nobody can tell whether it happened, `probable` that it was found in the
    cluster afterwards by field manager and time. `at` is seconds since the epoch.
    """

    operation: str
    id: str
    action: Action
    actor: str
    at: float
    state: OperationState
    reason: str = ""
    change_log: str = ""
    uid: str = ""
    rv: str = ""
    result: str = ""
    error: str = ""


class OperationRef(msgspec.Struct):
    """An operation, with all the writes it consists of."""

    id: str


class OperationRecords(msgspec.Struct):
    """The writes of an operation that the caller may read, at most 1,000, in the order of their keys."""

    items: list[OperationRecord]


DEADLINE_S = 40.0
"""Longer than an API server takes for one write, so that it is rarely this end which gives up."""

_REMEMBERING = ("gateway", "yaml-vcs")
"""Rollbacks, merges and restores are written by the service that remembers."""

APPLY = Endpoint(SERVICE, "apply", Apply, Written, deadline_s=DEADLINE_S, callers=_REMEMBERING)
PATCH = Endpoint(SERVICE, "patch", Patch, Written, deadline_s=DEADLINE_S)
DELETE = Endpoint(SERVICE, "delete", Delete, Written, deadline_s=DEADLINE_S, callers=_REMEMBERING)
SCALE = Endpoint(SERVICE, "scale", Scale, Written, deadline_s=DEADLINE_S)
RESTART = Endpoint(SERVICE, "restart", Restart, Written, deadline_s=DEADLINE_S)
LABEL = Endpoint(SERVICE, "label", Label, Written, deadline_s=DEADLINE_S)
REPLACE = Endpoint(SERVICE, "replace", Replace, Written, deadline_s=DEADLINE_S, callers=_REMEMBERING)
REPLACE_MANY = Endpoint(
    SERVICE, "replace-many", ReplaceMany, ReplacedMany, deadline_s=DEADLINE_S, callers=("yaml-vcs",)
)
OPERATIONS = Endpoint(SERVICE, "operations", OperationRef, OperationRecords, callers=_REMEMBERING)

BY_ACTION: dict[Action, Endpoint[Any, Written]] = {
    "apply": APPLY,
    "patch": PATCH,
    "delete": DELETE,
    "scale": SCALE,
    "restart": RESTART,
    "label": LABEL,
    "replace": REPLACE,
}
ENDPOINTS = (*BY_ACTION.values(), REPLACE_MANY, OPERATIONS)
