"""Backups as they are asked for and told of: made by `BackupJobs`, kept in the blob store, known in MongoDB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from kubelore.common.authz import Caller
from kubelore.common.backups import BackupReader, names
from kubelore.common.backups.sealing import MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES
from kubelore.common.bus import Bus, Leases
from kubelore.common.callers import current_caller
from kubelore.common.contracts import resources
from kubelore.common.contracts.backups import (
    ENDED,
    MAX_LISTED,
    MAX_NAME,
    MAX_REASON,
    MAX_RETENTION_DAYS,
    Backup,
    BackupFiles,
    BackupPage,
    BackupRef,
    ClusterProgress,
    CreateBackup,
    DeletedBackup,
    FileContent,
    ListBackups,
    ReadFile,
)
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.resources import ResolveTypes
from kubelore.common.errors import BadRequest, Conflict, KubeloreError, NotFound, TooManyRequests, Unavailable
from kubelore.common.kube.selectors import LabelSelector
from kubelore.common.mandates import Mandate
from kubelore.yaml_vcs.backup_jobs import BackupJobs
from kubelore.yaml_vcs.backup_repository import MAX_PAGE, BackupRepository, Job, no_such_backup, now
from kubelore.yaml_vcs.backup_rules import check_backup_right, may_read_all

MAX_WAITING = 100
_STATUSES = ("", "pending", "running", "completed", "failed", "cancelled")


class Backups:
    """Every question as a method. `reading` names a restore that needs a backup still, empty where none does."""

    def __init__(
        self,
        repository: BackupRepository,
        jobs: BackupJobs,
        bus: Bus,
        leases: Leases,
        reading: Callable[[str], Awaitable[str]],
    ) -> None:
        self._repository = repository
        self._jobs = jobs
        self._reading = reading
        self._bus = bus
        self._leases = leases

    async def create(self, asked: CreateBackup) -> Backup:
        """Begin a backup for the caller of this request. Raises as `begin` does."""
        return await self.begin(asked, current_caller(), Mandate.of_request())

    async def begin(
        self, asked: CreateBackup, caller: Caller, mandate: Mandate, backup_id: str = ""
    ) -> Backup:
        """Begin a backup on this replica; it goes on under the mandate.

        Raises NotFound, Forbidden without the right `backup` or without reading
        all of the scope, BadRequest, TooManyRequests; and, under a given id of
        `names.fresh_id`, AlreadyExists when it has begun before.
        """
        _check(asked)
        check_backup_right(caller, asked.clusters, asked.namespaces)
        if await self._repository.count_waiting() >= MAX_WAITING:
            raise TooManyRequests(
                f"{MAX_WAITING} backups are being made or waiting", remedy="Try again when some have ended."
            )
        types = await self._canonical(asked.clusters, asked.types)
        job = _job_of(asked, caller, types, self._bus.replica, backup_id)
        await self._repository.add(job)
        self._jobs.start(job, mandate)
        return shown(job)

    async def get(self, ref: BackupRef) -> Backup:
        """One backup. Raises NotFound for one whose scope the caller may not read, too."""
        return self._shown(await self.visible(ref.id))

    async def list(self, asked: ListBackups) -> BackupPage:
        """A page of those the caller may know of, newest first."""
        if not 1 <= asked.limit <= MAX_PAGE:
            raise BadRequest(f"limit {asked.limit} is not between 1 and {MAX_PAGE}")
        if asked.status not in _STATUSES:
            raise BadRequest(f"{asked.status[:20]!r} is no status of a backup")
        caller, before = current_caller(), asked.before
        found: list[Backup] = []
        while True:
            page = await self._repository.newest(before=before, status=asked.status, cluster=asked.cluster)
            for job in page:
                if not may_read_all(caller, job.clusters, job.namespaces):
                    continue
                if len(found) == asked.limit:
                    return BackupPage(found, found[-1].id)
                found.append(self._shown(job))
            if len(page) < MAX_PAGE:
                return BackupPage(found)
            before = page[-1].id

    async def cancel(self, ref: BackupRef) -> Backup:
        """Have its replica stop within seconds. Raises NotFound, Forbidden, Conflict when it has ended."""
        job = await self._may(ref.id)
        if job.status in ENDED:
            raise Conflict(f"the backup {job.id} has ended: it is {job.status}")
        job = await self._repository.ask_to_cancel(job)
        self._jobs.cancel(job.id)
        return shown(job)

    async def delete(self, ref: BackupRef) -> DeletedBackup:
        """Take it out of every list, and its files away. Raises NotFound, Forbidden, and Conflict as `remove` does."""
        job = await self._may(ref.id)
        await self.remove(job)
        return DeletedBackup(job.id)

    async def remove(self, job: Job) -> None:
        """As `delete`, on nobody's behalf: for retention. Raises Conflict while it is being made or restored."""
        if job.status not in ENDED:
            raise Conflict(f"the backup {job.id} is being made", remedy="Cancel it first.")
        if restore := await self._reading(job.id):
            raise Conflict(
                f"the backup {job.id} is being restored by {restore}",
                remedy="Wait until that has ended, or cancel it.",
            )
        await self._repository.mark_deleted(job)
        self._jobs.clean_soon()

    async def verify(self, ref: BackupRef) -> Backup:
        """Begin to read all of it. Raises NotFound, Forbidden, Conflict when it is not there whole, or being verified."""
        job = _completed(await self._may(ref.id))
        return self._shown(await self._jobs.start_verification(job))

    async def files(self, ref: BackupRef) -> BackupFiles:
        """The files of a completed backup. Raises NotFound, Forbidden, Conflict."""
        job = _completed(await self._may(ref.id))
        sizes = await self._jobs.blobs(job.id).sizes()
        if names.MANIFEST not in sizes:
            raise NotFound(f"the files of the backup {job.id} are gone from the blob store")
        return BackupFiles(sizes)

    async def file(self, asked: ReadFile) -> FileContent:
        """The sealed bytes of one file. Raises NotFound, Forbidden, Conflict."""
        job = _completed(await self._may(asked.id))
        if not names.is_ours(asked.name):
            raise NotFound(f"the backup {job.id} has no file of that name")
        most = max(MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES)
        return FileContent(await self._jobs.blobs(job.id).read(asked.name, max_bytes=most))

    async def open(self, backup_id: str) -> BackupReader:
        """A completed backup for whoever restores from it. Raises NotFound, Conflict, BackupFault."""
        job = _completed(await self.visible(backup_id))
        return await self._jobs.open(job.id)

    async def visible(self, backup_id: str) -> Job:
        """A backup that the current caller may know of. Raises NotFound."""
        job = await self._repository.get(backup_id)
        if not may_read_all(current_caller(), job.clusters, job.namespaces):
            raise no_such_backup(backup_id)
        return job

    def _shown(self, job: Job) -> Backup:
        return shown(job, self._jobs.unreadable(job))

    async def _may(self, backup_id: str) -> Job:
        job = await self.visible(backup_id)
        check_backup_right(current_caller(), job.clusters, job.namespaces)
        return job

    async def _canonical(self, clusters: Sequence[str], types: Sequence[str]) -> list[str]:
        """Types by their canonical names, as the clusters' observers know them. Raises BadRequest, Unavailable."""
        if not types:
            return []
        owners = await self._leases.holders("observer.")
        asked = {owners[key] for cluster in clusters if (key := f"observer.{cluster}") in owners}
        found: set[str] = set()
        failure: KubeloreError = Unavailable("no observer holds these clusters", remedy="Try again soon.")
        for name in types:
            known = False
            for owner in asked:
                try:
                    answer = await self._bus.request(resources.RESOLVE, ResolveTypes([name]), target=owner)
                except KubeloreError as error:
                    failure = error
                    continue
                found.update(answer.names)
                known = True
            if not known:
                raise failure
        return sorted(found)


def shown(job: Job, unreadable: str = "") -> Backup:
    """What is told of a backup."""
    return Backup(
        id=job.id,
        name=job.name,
        status=job.status,
        partial=bool(job.missing),
        clusters=job.progress,
        namespaces=job.namespaces,
        types=job.types,
        labels=job.labels,
        created_by=job.created_by,
        reason=job.reason,
        policy=job.policy,
        created_at=_iso(job.created_at),
        started_at=_iso(job.started_at),
        completed_at=_iso(job.completed_at),
        expires_at=_iso(job.expires_at),
        objects=job.objects,
        bytes=job.bytes,
        size=job.size,
        missing=job.missing,
        error=job.error,
        verification=job.verification,
        key_ids=[one for one in job.keys.split(",") if one],
        unreadable=unreadable,
    )


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else ""


def _completed(job: Job) -> Job:
    if job.status != "completed":
        raise Conflict(f"the backup {job.id} is not complete: it is {job.status}")
    return job


def _check(asked: CreateBackup) -> None:
    for what, listed in (
        ("clusters", asked.clusters),
        ("namespaces", asked.namespaces),
        ("types", asked.types),
    ):
        if len(listed) > MAX_LISTED or not all(0 < len(one) <= 253 for one in listed):
            raise BadRequest(f"a backup names at most {MAX_LISTED} {what}, each of at most 253 characters")
    if not asked.clusters:
        raise BadRequest("a backup needs a cluster", remedy="Name one, or onboard one first.")
    for cluster in asked.clusters:
        check_cluster_name(cluster)
    LabelSelector.parse(asked.labels)
    if len(asked.name) > MAX_NAME or len(asked.reason) > MAX_REASON:
        raise BadRequest(f"a name has at most {MAX_NAME} characters, a reason {MAX_REASON}")
    if not 0 <= asked.retention_days <= MAX_RETENTION_DAYS:
        raise BadRequest(f"retention_days lies between 0 (for ever) and {MAX_RETENTION_DAYS}")


def _job_of(asked: CreateBackup, caller: Caller, types: list[str], replica: str, backup_id: str) -> Job:
    moment, clusters = now(), sorted(set(asked.clusters))
    return Job(
        id=backup_id or names.fresh_id(moment.timestamp()),
        name=asked.name,
        clusters=clusters,
        namespaces=sorted(set(asked.namespaces)),
        types=types,
        labels=asked.labels,
        created_by=caller.subject,
        reason=asked.reason,
        policy=asked.policy,
        created_at=moment,
        retention_days=asked.retention_days,
        replica=replica,
        beat=moment,
        progress=[ClusterProgress(cluster=name) for name in clusters],
    )
