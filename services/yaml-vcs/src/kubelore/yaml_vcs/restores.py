"""Restores: asked for, told of, and run by whichever replica has the lease of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from kubelore.common.authz import Caller
from kubelore.common.backups import BackupReader, Scope
from kubelore.common.bus import Bus, Leases
from kubelore.common.callers import current_caller
from kubelore.common.contracts.restores import (
    ENDED,
    RESULTS,
    ListRestoreItems,
    ListRestores,
    Restore,
    RestoredItem,
    RestoredItems,
    RestoreEvent,
    RestorePage,
    RestoreRef,
    StartRestore,
    Why,
    restore_event_subject,
)
from kubelore.common.contracts.writes import MAX_REASON
from kubelore.common.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.operations import current_operation, is_operation_id, operating
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.restore_repository import MAX_PAGE, Job, Outcome, RestoreRepository
from kubelore.yaml_vcs.restore_rules import REASONS
from kubelore.yaml_vcs.restore_run import AWAY, Cancelled, Keys, Run
from kubelore.yaml_vcs.restoring import Selection

log = get_logger(__name__)

AT_ONCE = 2
"""Restores that one replica runs side by side."""
LOOK_EVERY_S = 2.0
GIVEN_UP_AFTER = timedelta(days=1)
MAX_WAITING = 50
"""Restores that have not ended: each replica looks at all of them, so that none is passed over."""
_EVENT_S = 0.5

OpenBackup = Callable[[str], Awaitable[BackupReader]]
Told = Callable[[Job], Awaitable[None]]


class Restores:
    """The questions, and the beginning. `open_backup` opens the manifest of a backup; `runner` is this replica's."""

    def __init__(
        self,
        repository: RestoreRepository,
        open_backup: OpenBackup,
        keys: Keys,
        runner: RestoreRunner,
    ) -> None:
        self._repository = repository
        self._open_backup = open_backup
        self._keys = keys
        self._runner = runner

    async def start(self, asked: StartRestore) -> Restore:
        """Keep what was asked for; a replica begins within seconds.

        Raises NotFound for a backup that is not there or not the caller's to see,
        Forbidden without the right `backup` on what is taken, BadRequest, Invalid and TooManyRequests.
        """
        operation = current_operation()
        if not operation:
            raise BadRequest("a restore belongs to an operation", remedy="Ask through the gateway.")
        if len(asked.reason) > MAX_REASON:
            raise BadRequest(f"a reason has at most {MAX_REASON} characters")
        Selection.of(asked).check()
        caller = current_caller()
        scope = (await self._open_backup(asked.backup_id)).manifest.scope
        check_source(caller, asked, scope)
        for cluster in sorted({cluster for cluster, _ in targets(asked, scope)}):
            caller.check_cluster(cluster)
        if await self._repository.count_unfinished() >= MAX_WAITING:
            raise TooManyRequests(
                f"{MAX_WAITING} restores are running or waiting", remedy="Try again when some have ended."
            )
        job = Job(
            id=operation,
            asked=asked,
            created_by=caller.subject,
            created_at=datetime.now(UTC),
            scope=[*sources(asked, scope), *targets(asked, scope)],
            mandate=Mandate.of_request().seal(self._keys.versions, context=_context(operation)),
        )
        await self._repository.add(job)
        self._runner.hurry()
        return _shown(job)

    async def get(self, ref: RestoreRef) -> Restore:
        """One restore. Raises NotFound for one whose scope the caller may not read, too."""
        return _shown(await self._visible(ref.id))

    async def list(self, asked: ListRestores) -> RestorePage:
        """A page of those the caller may know of, newest first."""
        limit, before = _limit(asked.limit), asked.before
        found: list[Restore] = []
        while True:
            page = await self._repository.newest(before, limit)
            for job in page:
                before = job.id
                if _may_see(current_caller(), job):
                    found.append(_shown(job))
                if len(found) == limit:
                    return RestorePage(found, before)
            if len(page) < limit:
                return RestorePage(found)

    async def items(self, asked: ListRestoreItems) -> RestoredItems:
        """A page of what became of each object, in the order of the backup."""
        await self._visible(asked.id)
        if asked.result not in ("", *RESULTS):
            raise BadRequest(f"{asked.result[:40]!r} is none of {', '.join(RESULTS)}")
        limit = _limit(asked.limit)
        page = await self._repository.page(asked.id, asked.result, asked.after, limit + 1)
        shown = [_item(one) for one in page[:limit]]
        return RestoredItems(shown, shown[-1].number if len(page) > limit else None)

    async def cancel(self, ref: RestoreRef) -> Restore:
        """Begin nothing more of it; what was restored stays. Raises Conflict when it has ended.

        Whoever began it may, and whoever has the right `backup` on all that it is about.
        """
        job = await self._visible(ref.id)
        caller = current_caller()
        if caller.subject != job.created_by:
            for cluster, namespace in job.scope:
                caller.check_right("backup", cluster, namespace)
        if job.state in ENDED:
            raise Conflict(f"the restore {job.id} has ended already: {job.state}")
        job = await self._repository.update(job.id, cancelling=True)
        self._runner.cancel(job.id)
        return _shown(job)

    async def _visible(self, id_: str) -> Job:
        job = None
        if is_operation_id(id_):
            with suppress(NotFound):
                job = await self._repository.get(id_)
        if job is None or not _may_see(current_caller(), job):
            raise NotFound(f"there is no restore {id_[:64]!r}", remedy="`kubelore restore list` shows them.")
        return job


class RestoreRunner:
    """Runs what has not ended, under a lease each, so that any replica goes on with what another left."""

    def __init__(
        self,
        repository: RestoreRepository,
        open_backup: OpenBackup,
        keys: Keys,
        bus: Bus,
        told: Told,
    ) -> None:
        self._repository = repository
        self._open_backup = open_backup
        self._keys = keys
        self._bus = bus
        self._told = told
        self._leases = Leases(bus)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, Run] = {}
        self._tried: dict[str, float] = {}
        """When this replica tried each last, so that those that cannot go on let the others pass."""
        self._due = asyncio.Event()

    def hurry(self) -> None:
        """There is something to begin."""
        self._due.set()

    def cancel(self, id_: str) -> None:
        """End it at once where it runs here; elsewhere its replica sees it on record within a second."""
        if id_ in self._runs:
            self._runs[id_].cancel()

    async def run(self) -> None:
        """Look for restores until cancelled; those that run here end with it."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._due.wait()
                self._due.clear()
                try:
                    await self._take()
                except KubeloreError as error:
                    log.info("restores not looked for", error=error.reason)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _take(self) -> None:
        self._running = {id_: task for id_, task in self._running.items() if not task.done()}
        if len(self._running) >= AT_ONCE:
            return
        waiting = await self._repository.unfinished(MAX_WAITING)
        self._tried = {job.id: self._tried[job.id] for job in waiting if job.id in self._tried}
        for job in sorted(waiting, key=lambda job: self._tried.get(job.id, 0.0)):
            if len(self._running) < AT_ONCE and job.id not in self._running:
                self._tried[job.id] = time.monotonic()
                self._running[job.id] = asyncio.create_task(self._hold(job.id), name=f"restore {job.id}")

    async def _hold(self, id_: str) -> None:
        """Run one for as long as its lease is held here; nothing when another replica holds it."""
        try:
            lease = await self._leases.acquire(f"restore.{id_}")
        except KubeloreError:
            return
        if lease is None:
            return
        work = asyncio.create_task(self._one(id_))
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, lost):
                task.cancel()
            await asyncio.gather(work, lost, return_exceptions=True)
            await lease.release()

    async def _one(self, id_: str) -> None:
        try:
            # Read anew under the lease: another replica may have ended it meanwhile.
            job = await self._repository.get(id_)
            if job.state not in ENDED:
                await self._until_ended(job)
        except (*AWAY, Conflict) as error:
            log.info("restore left for later", restore=id_, error=error.reason, detail=error.detail)
        except Exception as error:
            log.error("restore failed unexpectedly", restore=id_, exc_info=error)
            with suppress(KubeloreError):
                await self._repository.end(
                    id_, "failed", error="an unexpected error; see the log of yaml-vcs"
                )

    async def _until_ended(self, job: Job) -> None:
        try:
            if datetime.now(UTC) - job.created_at > GIVEN_UP_AFTER:
                raise Conflict("it did not come to an end within a day", remedy="Restore what is left again.")
            mandate = Mandate.open(self._keys.versions, job.mandate, context=_context(job.id))
            async with acting_under(self._bus, mandate) as caller:
                with operating(job.id):
                    await self._carry_out(job, caller)
            await self._repository.end(job.id, "completed")
        except Cancelled:
            await self._repository.end(job.id, "cancelled")
        except AWAY:
            raise
        except KubeloreError as error:
            await self._repository.end(job.id, "failed", error=error.detail, remedy=error.remedy or "")
        with suppress(KubeloreError):
            await self._told(await self._repository.get(job.id))

    async def _carry_out(self, job: Job, caller: Caller) -> None:
        if job.cancelling:
            raise Cancelled
        if job.started_at is None:
            job = await self._repository.update(job.id, started_at=datetime.now(UTC))
        reader = await self._open_backup(job.asked.backup_id)
        check_source(caller, job.asked, reader.manifest.scope)
        run = Run(job, reader, self._repository, self._bus, self._keys, self._told)
        self._runs[job.id] = run
        try:
            await run.carry_out()
        finally:
            del self._runs[job.id]


def telling(bus: Bus) -> Told:
    """Says on the bus how far a restore is, as far as the bus is there."""

    async def tell(job: Job) -> None:
        event = RestoreEvent(
            id=job.id,
            backup_id=job.asked.backup_id,
            cluster=job.asked.cluster,
            state=job.state,
            at=datetime.now(UTC).timestamp(),
            created_by=job.created_by,
            reason=job.asked.reason,
            dry_run=job.asked.dry_run,
            total=job.total,
            counts=job.counts,
        )
        with suppress(Unavailable, DeadlineExceeded):
            await bus.publish_event(restore_event_subject(event), event, deadline_s=_EVENT_S)

    return tell


def sources(asked: StartRestore, scope: Scope) -> list[tuple[str, str]]:
    """What is taken out of a backup, as (cluster, namespace); an empty namespace is all of the cluster."""
    clusters = [asked.source] if asked.source else scope.clusters
    namespaces = asked.namespaces or scope.namespaces or [""]
    return [(cluster, namespace) for cluster in clusters for namespace in namespaces]


def targets(asked: StartRestore, scope: Scope) -> list[tuple[str, str]]:
    """Where it goes, in the same way."""
    return [
        (asked.cluster or cluster, asked.namespace_map.get(namespace, namespace))
        for cluster, namespace in sources(asked, scope)
    ]


def check_source(caller: Caller, asked: StartRestore, scope: Scope) -> None:
    """Raise NotFound unless the caller may read all of a backup, and Forbidden without `backup` on what is taken."""
    whole = [(cluster, namespace) for cluster in scope.clusters for namespace in scope.namespaces or [""]]
    if not _reads(caller, whole) or (asked.source and asked.source not in scope.clusters):
        raise NotFound(
            f"there is no backup {asked.backup_id[:64]!r}"
            + (f" of {asked.source}" if asked.source and _reads(caller, whole) else ""),
            remedy="`kubelore backup list` shows those that you may see.",
        )
    for cluster, namespace in sources(asked, scope):
        caller.check_right("backup", cluster, namespace)


def _reads(caller: Caller, scope: Iterable[tuple[str, str]]) -> bool:
    def reads(cluster: str, namespace: str) -> bool:
        granted = caller.namespaces(cluster)
        return granted.everything or (bool(namespace) and granted.matches(namespace))

    return all(reads(cluster, namespace) for cluster, namespace in scope)


def _may_see(caller: Caller, job: Job) -> bool:
    return _reads(caller, job.scope)


def _context(id_: str) -> str:
    return f"restore/{id_}"


def _shown(job: Job) -> Restore:
    return Restore(
        id=job.id,
        asked=job.asked,
        state=job.state,
        created_by=job.created_by,
        created_at=_iso(job.created_at),
        started_at=_iso(job.started_at),
        finished_at=_iso(job.finished_at),
        total=job.total,
        counts={result: job.counts.get(result, 0) for result in RESULTS},
        error=job.error,
        remedy=job.remedy,
        cancelling=job.cancelling,
    )


def _item(one: Outcome) -> RestoredItem:
    return RestoredItem(
        number=one.number,
        source=one.source,
        id=one.place,
        result=one.result,
        uid=one.uid,
        reasons=[Why(rule, REASONS.get(rule, "")) for rule in one.rules],
        error=one.error,
        detail=one.detail,
    )


def _iso(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _limit(asked: int) -> int:
    if not 1 <= asked < MAX_PAGE:
        raise BadRequest(f"limit {asked} is not between 1 and {MAX_PAGE - 1}")
    return asked
