"""What yaml-vcs keeps apart from the clusters: encrypted backups, made in the background, verified and handed out.

A backup is seen by whoever may read all of its scope; making, verifying,
fetching and deleting one needs the right `backup` there as well. Its progress
goes to `kubelore.v1.events.backup.<id>.<what happened>`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE

Status: TypeAlias = Literal["pending", "running", "completed", "failed", "cancelled"]
ClusterStatus: TypeAlias = Literal["pending", "running", "completed", "failed"]
Happened: TypeAlias = Literal[
    "started", "progressed", "completed", "failed", "cancelled", "verified", "deleted"
]

ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
MAX_NAME = 100
MAX_REASON = 500
MAX_LISTED = 500
"""Clusters, namespaces or types that one backup names."""
MAX_RETENTION_DAYS = 3650
MAX_SHORTFALLS = 500


class CreateBackup(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is to be kept. Empty lists of namespaces and types mean all that anybody restores.

    `types` are as people write them; `labels` is a selector. `retention_days`
    of 0 keeps it until somebody deletes it.
    """

    clusters: list[str]
    namespaces: list[str] = []
    types: list[str] = []
    labels: str = ""
    name: str = ""
    retention_days: int = 30
    reason: str = ""
    policy: str = ""
    """The schedule that asked for it; empty for a person."""


class ClusterProgress(msgspec.Struct, kw_only=True):
    """How far one cluster is. `expected` is what the read model knew at the start, 0 where that says nothing."""

    cluster: str
    status: ClusterStatus = "pending"
    objects: int = 0
    bytes: int = 0
    expected: int = 0
    types: int = 0
    types_done: int = 0


class Missing(msgspec.Struct, kw_only=True):
    """Something that was asked for and is not in the backup, and why."""

    cluster: str
    type: str = ""
    namespace: str = ""
    error: str = ""


class Verification(msgspec.Struct, kw_only=True):
    """The last time that all of a backup was read and compared. `reason` names the fault that was found."""

    state: Literal["running", "passed", "failed"]
    started_at: str
    finished_at: str = ""
    objects: int = 0
    reason: str = ""
    error: str = ""


class Backup(msgspec.Struct, kw_only=True):
    """A backup and how far it is. Times are ISO 8601 in UTC, empty for what has not happened.

    `bytes` are those of the objects' JSON, `size` those of the sealed files. A
    completed one is `partial` when something that was asked for is not in it.
    """

    id: str
    name: str
    status: Status
    partial: bool
    clusters: list[ClusterProgress]
    namespaces: list[str]
    types: list[str]
    labels: str
    created_by: str
    reason: str
    policy: str
    created_at: str
    started_at: str = ""
    completed_at: str = ""
    expires_at: str = ""
    objects: int = 0
    bytes: int = 0
    size: int = 0
    missing: list[Missing] = []
    error: str = ""
    verification: Verification | None = None
    key_ids: list[str] = []
    """The keys of the keyring any of which opens it."""
    unreadable: str = ""
    """Why it cannot be read any more: its keys are gone."""


class BackupRef(msgspec.Struct):
    """One backup."""

    id: str


class ListBackups(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A page of backups, newest first, with ids below `before`."""

    status: str = ""
    cluster: str = ""
    before: str = ""
    limit: int = 50


class BackupPage(msgspec.Struct):
    """Backups, and the `before` of the page behind; empty at the end."""

    items: list[Backup]
    next: str = ""


class DeletedBackup(msgspec.Struct):
    """The backup is gone from every list; its files go with it within seconds."""

    id: str


class BackupFiles(msgspec.Struct):
    """Every file of a completed backup with its size in bytes, as docs/backup-format.md names them."""

    sizes: dict[str, int]


class ReadFile(msgspec.Struct):
    """One file of a backup."""

    id: str
    name: str


class FileContent(msgspec.Struct):
    """The sealed bytes of a file."""

    content: bytes


class BackupEvent(msgspec.Struct, kw_only=True):
    """Something happened to a backup; `error` says why where it failed."""

    id: str
    happened: Happened
    at: float
    objects: int = 0
    bytes: int = 0
    expected: int = 0
    error: str = ""


def backup_subject(backup_id: str, happened: Happened) -> str:
    """Where an event of a backup is published; the id is of letters, digits and `-`."""
    return f"kubelore.v1.events.backup.{backup_id}.{happened}"


CREATE = Endpoint(SERVICE, "backup-create", CreateBackup, Backup)
LIST_BACKUPS = Endpoint(SERVICE, "backup-list", ListBackups, BackupPage)
GET_BACKUP = Endpoint(SERVICE, "backup-get", BackupRef, Backup)
CANCEL = Endpoint(SERVICE, "backup-cancel", BackupRef, Backup)
DELETE = Endpoint(SERVICE, "backup-delete", BackupRef, DeletedBackup)
VERIFY_BACKUP = Endpoint(SERVICE, "backup-verify", BackupRef, Backup)
FILES = Endpoint(SERVICE, "backup-files", BackupRef, BackupFiles, deadline_s=30.0)
FILE = Endpoint(SERVICE, "backup-file", ReadFile, FileContent, deadline_s=60.0)

ENDPOINTS = (CREATE, LIST_BACKUPS, GET_BACKUP, CANCEL, DELETE, VERIFY_BACKUP, FILES, FILE)
