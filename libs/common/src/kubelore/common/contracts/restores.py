"""What yaml-vcs restores from backups: started by one request, running on its own, told by item."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE

Existing: TypeAlias = Literal["skip", "update", "fail"]
State: TypeAlias = Literal["pending", "verifying", "running", "completed", "failed", "cancelled"]
Result: TypeAlias = Literal["created", "changed", "unchanged", "skipped", "failed"]
RESULTS: tuple[Result, ...] = ("created", "changed", "unchanged", "skipped", "failed")
ENDED: frozenset[State] = frozenset({"completed", "failed", "cancelled"})


class StartRestore(msgspec.Struct, kw_only=True):
    """What of a backup is restored, and to where; what is empty is everything.

    Objects of `source` (one cluster of the backup) go into `cluster`, or back to
    where they came from. `types` and `names` may be globs, `labels` is a selector.
    """

    backup_id: str
    source: str = ""
    cluster: str = ""
    namespaces: list[str] = []
    types: list[str] = []
    names: list[str] = []
    labels: str = ""
    namespace_map: dict[str, str] = {}
    existing: Existing = "skip"
    dry_run: bool = False
    reason: str = ""


class Restore(msgspec.Struct, kw_only=True):
    """A restore and how far it is. Times are ISO 8601 in UTC, empty for what has not happened.

    `total` is known once the backup has verified; `counts` is by result. The id
    is the operation under which its writes are on record.
    """

    id: str
    asked: StartRestore
    state: State
    created_by: str
    created_at: str
    started_at: str = ""
    finished_at: str = ""
    total: int = 0
    counts: dict[str, int] = {}
    error: str = ""
    remedy: str = ""
    cancelling: bool = False


class RestoreRef(msgspec.Struct):
    """One restore."""

    id: str


class ListRestores(msgspec.Struct, kw_only=True):
    """A page of restores, newest first, with ids below `before`."""

    before: str = ""
    limit: int = 50


class RestorePage(msgspec.Struct):
    """Restores, and the `before` of the page behind; empty at the end."""

    items: list[Restore]
    next: str = ""


class ListRestoreItems(msgspec.Struct, kw_only=True):
    """A page of what became of each object, numbered above `after`; all results, or one."""

    id: str
    result: str = ""
    after: int = -1
    limit: int = 100


class Why(msgspec.Struct):
    """A rule that decided something about an object, and its reason."""

    rule: str
    why: str


class RestoredItem(msgspec.Struct, kw_only=True):
    """What became of one object of the backup: `source` there, `id` where it goes.

    `reasons` say why it was left out, or what of it was not taken along.
    """

    number: int
    source: str
    id: str
    result: Result
    uid: str = ""
    reasons: list[Why] = []
    error: str = ""
    detail: str = ""


class RestoredItems(msgspec.Struct):
    """Items, and the `after` of the page behind; None at the end."""

    items: list[RestoredItem]
    next: int | None = None


class RestoreEvent(msgspec.Struct, kw_only=True):
    """How far a restore is, on `kubelore.v1.events.restore.<cluster>.<state>`, while it runs and when it ends.

    Best effort, once in half a second at most: what must not be missed is asked of GET.
    """

    id: str
    backup_id: str
    cluster: str
    state: State
    at: float
    """Seconds since the epoch, UTC."""
    created_by: str
    reason: str
    dry_run: bool
    total: int
    counts: dict[str, int]


def restore_event_subject(event: RestoreEvent) -> str:
    """The subject of an event; `_` stands for the clusters of the backup, where none is named."""
    return f"kubelore.v1.events.restore.{event.cluster or '_'}.{event.state}"


START = Endpoint(SERVICE, "restore-start", StartRestore, Restore, deadline_s=15.0)
GET = Endpoint(SERVICE, "restore-get", RestoreRef, Restore)
LIST = Endpoint(SERVICE, "restore-list", ListRestores, RestorePage)
ITEMS = Endpoint(SERVICE, "restore-items", ListRestoreItems, RestoredItems)
CANCEL = Endpoint(SERVICE, "restore-cancel", RestoreRef, Restore)

ENDPOINTS = (START, GET, LIST, ITEMS, CANCEL)
