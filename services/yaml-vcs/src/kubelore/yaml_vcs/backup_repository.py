"""The only place with queries about backups: one document each, and who works on it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kubelore.common.contracts.backups import (
    ClusterProgress,
    Missing,
    Status,
    Verification,
)
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.store import Database, gt, lt, lte, ne, one_of

MAX_PAGE = 500
WORKING: tuple[Status, ...] = ("pending", "running")


class Job(msgspec.Struct, kw_only=True):
    """A backup as it is kept. `beat` is when its replica last gave a sign of life, while there is work on it."""

    id: str
    name: str
    status: Status = "pending"
    clusters: list[str]
    namespaces: list[str]
    types: list[str]
    labels: str
    created_by: str
    reason: str
    policy: str = ""
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    retention_days: int
    replica: str
    beat: datetime
    progress: list[ClusterProgress] = []
    missing: list[Missing] = []
    objects: int = 0
    bytes: int = 0
    size: int = 0
    error: str = ""
    cancelling: bool = False
    cleaned: bool = True
    """False while files may lie about that are no backup: they are to be removed."""
    deleted: bool = False
    keys: str = ""
    """The ids of the keys that wrap its data key, joined by commas; empty until somebody has looked."""
    verification: Verification | None = None
    verifier: str = ""
    verifier_beat: datetime | None = None


def now() -> datetime:
    """The time, in the whole milliseconds that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class BackupRepository:
    """Everything that is known of backups besides their files."""

    def __init__(self, database: Database) -> None:
        self._jobs = database.collection("backups")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._jobs.ensure_index([("status", 1), ("beat", 1)])
        await self._jobs.ensure_index([("clusters", 1)])
        await self._jobs.ensure_index([("expires_at", 1)])

    async def add(self, job: Job) -> None:
        """Keep a new one. Raises AlreadyExists."""
        await self._jobs.insert(_document(job))

    async def known(self, backup_ids: Iterable[str]) -> set[str]:
        """Which of at most 1,000 there are, deleted ones whose files have yet to go among them."""
        where = {"_id": one_of(backup_ids)}
        return {found["_id"] async for found in self._jobs.scan(where, fields=("status",))}

    async def get(self, backup_id: str) -> Job:
        """One that is not deleted. Raises NotFound."""
        found = await self._jobs.find_one({"_id": backup_id, "deleted": False})
        if found is None:
            raise no_such_backup(backup_id)
        return _job(found)

    async def newest(
        self, *, before: str = "", status: str = "", cluster: str = "", limit: int = MAX_PAGE
    ) -> list[Job]:
        """A page, newest first: an id begins with its time."""
        where: dict[str, Any] = {"deleted": False}
        if before:
            where["_id"] = lt(before)
        if status:
            where["status"] = status
        if cluster:
            where["clusters"] = cluster
        return [_job(found) for found in await self._jobs.find(where, sort=[("_id", -1)], limit=limit)]

    async def count_waiting(self) -> int:
        """How many have not ended, at most 1,000."""
        return await self._jobs.count({"status": one_of(WORKING)}, limit=1000)

    async def beat(self, job: Job, **changes: Any) -> Job:
        """Give a sign of life, with what is new. Raises Conflict when it is no longer this replica's to work on."""
        made = {"beat": now(), **_builtins(changes)}
        mine = {"replica": job.replica, "status": one_of(WORKING), "deleted": False}
        return _job(await self._jobs.update(job.id, made, expect=mine))

    async def end(self, job: Job, status: Status, **changes: Any) -> Job:
        """Say how it ended. Raises Conflict when somebody else said so before."""
        made = {"status": status, **_builtins(changes)}
        mine = {"replica": job.replica, "status": one_of(WORKING), "deleted": False}
        return _job(await self._jobs.update(job.id, made, expect=mine))

    async def ask_to_cancel(self, job: Job) -> Job:
        """Let its replica know. Raises Conflict when it has ended."""
        return _job(await self._jobs.update(job.id, {"cancelling": True}, expect={"status": one_of(WORKING)}))

    async def silent(self, since: datetime) -> list[Job]:
        """Those whose replica has given no sign of life since."""
        where = {"status": one_of(WORKING), "beat": lt(since)}
        return [_job(found) for found in await self._jobs.find(where, limit=MAX_PAGE)]

    async def give_up(self, job: Job, error: str) -> Job | None:
        """Mark one whose replica is silent as failed; None when it spoke meanwhile."""
        made = {"status": "failed", "error": error, "completed_at": now(), "cleaned": False}
        try:
            return _job(
                await self._jobs.update(job.id, made, expect={"beat": job.beat, "status": one_of(WORKING)})
            )
        except Conflict:
            return None

    async def mark_deleted(self, job: Job) -> None:
        """Take it out of every list; its files are then to be removed. Raises Conflict for one being made."""
        await self._jobs.update(
            job.id,
            {"deleted": True, "cleaned": False},
            expect={"status": one_of(("completed", "failed", "cancelled"))},
        )

    async def unclean(self) -> list[Job]:
        """Those whose files are to be removed."""
        return [_job(found) for found in await self._jobs.find({"cleaned": False}, limit=MAX_PAGE)]

    async def cleaned(self, job: Job) -> None:
        """The files are gone; so is the document of a deleted one."""
        if job.deleted:
            await self._jobs.delete(job.id)
        else:
            await self._jobs.update(job.id, {"cleaned": True})

    async def expired(self, at: datetime) -> list[Job]:
        """Completed ones that need not be kept any longer."""
        where = {"deleted": False, "status": "completed", "expires_at": lte(at)}
        return [_job(found) for found in await self._jobs.find(where, limit=MAX_PAGE)]

    async def wrapped_by_others(self, key_id: str) -> list[Job]:
        """Completed ones whose data key is not wrapped by this key alone, or nobody knows."""
        where = {"deleted": False, "status": "completed", "keys": ne(key_id)}
        return [_job(found) for found in await self._jobs.find(where, limit=MAX_PAGE)]

    async def note_keys(self, job: Job, key_ids: Iterable[str]) -> None:
        """Say which keys wrap the data key of one."""
        with suppress(NotFound):
            await self._jobs.update(job.id, {"keys": ",".join(sorted(key_ids))})

    async def keys_of_all(self) -> list[tuple[str, list[str]]]:
        """The ids of completed ones, newest first, each with the keys that wrap its data key."""
        where = {"deleted": False, "status": "completed"}
        return [
            (found["_id"], [one for one in found.get("keys", "").split(",") if one])
            async for found in self._jobs.scan(where, sort=[("_id", -1)], fields=("keys",))
        ]

    async def verifying(self, job: Job, replica: str, told: Verification) -> Job:
        """Take up, or go on with, a verification. Raises Conflict while another replica is at it."""
        made = {"verification": told, "verifier": replica, "verifier_beat": now()}
        expect = {"verifier": job.verifier, "deleted": False, "status": "completed"}
        return _job(await self._jobs.update(job.id, _builtins(made), expect=expect))

    async def silent_verifications(self, since: datetime) -> list[Job]:
        """Those that a silent replica was verifying."""
        where = {"verifier": gt(""), "verifier_beat": lt(since)}
        return [_job(found) for found in await self._jobs.find(where, limit=MAX_PAGE)]

    async def end_verification(self, job: Job, told: Verification) -> None:
        """Say how a verification ended. Raises Conflict when it is another replica's by now."""
        made = _builtins({"verification": told, "verifier": ""})
        await self._jobs.update(job.id, made, expect={"verifier": job.verifier})


def no_such_backup(backup_id: str) -> NotFound:
    """What is said of one that does not exist, and of one that is not for the caller: the same."""
    return NotFound(
        f"there is no backup {backup_id[:64]!r}", remedy="`kubelore backup list` shows their ids."
    )


def keeps_until(job: Job, completed: datetime) -> datetime | None:
    """When a backup may go; None for never."""
    return completed + timedelta(days=job.retention_days) if job.retention_days else None


def _builtins(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: msgspec.to_builtins(value, builtin_types=(datetime,)) for name, value in changes.items()}


def _document(job: Job) -> dict[str, Any]:
    made = msgspec.to_builtins(job, builtin_types=(datetime,))
    made["_id"] = made.pop("id")
    return made


def _job(document: dict[str, Any]) -> Job:
    return msgspec.convert({**document, "id": document["_id"]}, Job)
