"""The work on backups that outlasts a request: making, verifying and clearing away, and what dead replicas left."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from kubelore.common.backups import BackupReader, Verified
from kubelore.common.bus import Bus, Leases
from kubelore.common.bus.events import publish_event
from kubelore.common.contracts.backups import BackupEvent, Happened, Verification, backup_subject
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Conflict, IntegrityError, KubeloreError, NotFound
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.store import BlobStore
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.backup_blobs import BackupBlobs
from kubelore.yaml_vcs.backup_repository import BackupRepository, Job, keeps_until, now
from kubelore.yaml_vcs.backup_run import BackupRun

log = get_logger(__name__)

AT_ONCE = 2
"""Backups that one replica makes side by side, and verifies; the others wait."""
BEAT_S = 2.0
SILENT = timedelta(seconds=30)
"""A replica that said nothing for so long is taken for dead."""
LOOK_EVERY_S = 5.0

Ended = Callable[[Job], Awaitable[None]]


class BackupJobs:
    """Runs them in this process. `run` looks after what others left; `ended` hears of each that ends."""

    def __init__(
        self, repository: BackupRepository, blobs: BlobStore, keyring: Keyring, bus: Bus, leases: Leases
    ) -> None:
        self._repository = repository
        self._blobs = blobs
        self._keyring = keyring
        self._bus = bus
        self._leases = leases
        self._making = asyncio.Semaphore(AT_ONCE)
        self._verifying = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hurry = asyncio.Event()
        self.ended: list[Ended] = []

    def blobs(self, backup_id: str) -> BackupBlobs:
        """The files of a backup."""
        return BackupBlobs(self._blobs, backup_id)

    def unreadable(self, job: Job) -> str:
        """Why a completed backup can no longer be read, by its keys; empty while one of them is held, or none is known."""
        held = {key.id: key for key in self._keyring.keys}
        wraps = [one for one in job.keys.split(",") if one]
        if not wraps or any(one in held and held[one].state != "removed" for one in wraps):
            return ""
        gone = held.get(wraps[0])
        how = f"was removed at {gone.removed_at}" if gone else "is not held"
        return f"The key {wraps[0]}, which it was sealed with, {how}."

    async def open(self, backup_id: str) -> BackupReader:
        """The reader of a backup. Raises BackupFault."""
        return await BackupReader.open(self.blobs(backup_id), self._keyring, backup_id)

    async def run(self) -> None:
        """Look after what ended without being told, until cancelled; then what runs here ends too."""
        try:
            while True:
                try:
                    await self._look()
                except KubeloreError as error:
                    log.info("backups not looked after", reason=error.reason, detail=error.detail)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), LOOK_EVERY_S)
                self._hurry.clear()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def clean_soon(self) -> None:
        """Let `run` remove files now rather than a little later."""
        self._hurry.set()

    def start(self, job: Job, mandate: Mandate) -> None:
        """Make a backup in the background."""
        self._spawn(job.id, self._make(job, mandate))

    def cancel(self, backup_id: str) -> None:
        """Stop making it, if it is made here."""
        if (task := self._tasks.get(backup_id)) is not None:
            task.cancel()

    async def start_verification(self, job: Job) -> Job:
        """Begin to verify in the background. Raises Conflict while it is being verified."""
        if job.verifier:
            raise Conflict(f"the backup {job.id} is being verified", remedy="Wait until that has ended.")
        told = Verification(state="running", started_at=_iso(now()))
        job = await self._repository.verifying(job, self._bus.replica, told)
        self._spawn(f"verify/{job.id}", self._verify(job, told))
        return job

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _make(self, job: Job, mandate: Mandate) -> None:
        run = BackupRun(self._bus, self._leases, self._keyring, job)
        watch = asyncio.create_task(self._keep_telling(job, run, asyncio.current_task()))
        try:
            async with self._making:
                job = await self._repository.beat(job, status="running", started_at=now())
                await self._tell(job, "started", run)
                async with acting_under(self._bus, mandate):
                    manifest = await run.make(self.blobs(job.id), lambda: self._still_mine(job, run))
            completed = now()
            size = sum(chunk.size for chunk in manifest.chunks)
            job = await self._repository.end(
                job,
                "completed",
                completed_at=completed,
                expires_at=keeps_until(job, completed),
                size=size,
                keys=manifest.key_id,
                **_figures(run),
            )
            await self._ended(job, "completed", run)
        except asyncio.CancelledError:
            await asyncio.shield(self._fail(job, run, None))
            raise
        except KubeloreError as error:
            await self._fail(job, run, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the backup must not look as if it went on
            log.error("backup failed", backup=job.id, error=type(error).__name__)
            await self._fail(job, run, KubeloreError("An unexpected error ended it; the log has its kind."))
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _still_mine(self, job: Job, run: BackupRun) -> None:
        await self._repository.beat(job, **_figures(run))

    async def _fail(self, job: Job, run: BackupRun, error: KubeloreError | None) -> None:
        """Say that it failed or, without an error, that it was cancelled; then clear away."""
        try:
            asked = (await self._repository.get(job.id)).cancelling
            cancelled = error is None and asked
            why = error.detail if error else "" if cancelled else "The service was stopped while it was made."
            job = await self._repository.end(
                job,
                "cancelled" if cancelled else "failed",
                completed_at=now(),
                error=why,
                cleaned=False,
                **_figures(run),
            )
        except (Conflict, NotFound):
            # Another replica has taken this one for dead, and said so.
            with contextlib.suppress(KubeloreError):
                await self.blobs(job.id).remove()
            return
        except KubeloreError as trouble:
            log.warning("end of a backup not kept", backup=job.id, reason=trouble.reason)
            return
        await self._ended(job, "cancelled" if job.status == "cancelled" else "failed", run)
        self._hurry.set()

    async def _keep_telling(self, job: Job, run: BackupRun, work: asyncio.Task[None] | None) -> None:
        """A sign of life every 2 s, and an event where it went on; ends the work when it is not wanted any more."""
        told = -1
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                kept = await self._repository.beat(job, **_figures(run))
            except (Conflict, NotFound):
                kept = None
            except KubeloreError as error:
                log.info("no sign of life given", backup=job.id, reason=error.reason)
                continue
            if kept is None or kept.cancelling:
                if work is not None:
                    work.cancel()
                return
            if run.objects != told:
                told = run.objects
                await self._tell(job, "progressed", run)

    async def _verify(self, job: Job, told: Verification) -> None:
        seen = Verified()
        beat = asyncio.create_task(self._keep_verifying(job, told, seen))
        try:
            async with self._verifying:
                reader = await self.open(job.id)
                await reader.verify(lambda now_seen: _copy(now_seen, seen))
            state, reason, error = "passed", "", ""
        except asyncio.CancelledError:
            state, reason, error = "failed", "Cancelled", "The service was stopped while it verified."
        except IntegrityError as fault:
            state, reason, error = "failed", fault.reason, fault.detail
        except KubeloreError as trouble:
            state, reason, error = "failed", trouble.reason, f"It could not be read: {trouble.detail}"
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
        told = Verification(
            state="passed" if state == "passed" else "failed",
            started_at=told.started_at,
            finished_at=_iso(now()),
            objects=seen.objects,
            reason=reason,
            error=error,
        )
        with contextlib.suppress(KubeloreError):
            await self._repository.end_verification(job, told)
        await self._publish(
            job.id, "verified", objects=seen.objects, bytes=seen.bytes, expected=job.objects, error=error
        )

    async def _keep_verifying(self, job: Job, told: Verification, seen: Verified) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            told.objects = seen.objects
            with contextlib.suppress(KubeloreError):
                await self._repository.verifying(job, self._bus.replica, told)

    async def _look(self) -> None:
        since = datetime.now(UTC) - SILENT
        for job in await self._repository.silent(since):
            given_up = await self._repository.give_up(job, "The replica that made it ended.")
            if given_up is not None:
                await self._publish(job.id, "failed", error=given_up.error)
                for hear in self.ended:
                    await hear(given_up)
        for job in await self._repository.silent_verifications(since):
            told = Verification(
                state="failed",
                started_at=job.verification.started_at if job.verification else "",
                finished_at=_iso(now()),
                error="The replica that verified it ended.",
            )
            with contextlib.suppress(Conflict):
                await self._repository.end_verification(job, told)
        for job in await self._repository.unclean():
            await self.blobs(job.id).remove()
            await self._repository.cleaned(job)
            if job.deleted:
                await self._publish(job.id, "deleted")

    async def _ended(self, job: Job, happened: Happened, run: BackupRun) -> None:
        await self._tell(job, happened, run)
        for hear in self.ended:
            await hear(job)

    async def _tell(self, job: Job, happened: Happened, run: BackupRun) -> None:
        expected = sum(one.expected for one in run.progress.values())
        await self._publish(
            job.id, happened, objects=run.objects, bytes=run.bytes, expected=expected, error=job.error
        )

    async def _publish(self, backup_id: str, happened: Happened, **more: Any) -> None:
        event = BackupEvent(id=backup_id, happened=happened, at=time.time(), **more)
        try:
            await publish_event(self._bus, backup_subject(backup_id, happened), event, deadline_s=2.0)
        except KubeloreError as error:
            # The backup itself is what counts; its document says the same.
            log.info("event of a backup not published", backup=backup_id, reason=error.reason)


def _figures(run: BackupRun) -> dict[str, Any]:
    return {
        "progress": list(run.progress.values()),
        "missing": run.missing,
        "objects": run.objects,
        "bytes": run.bytes,
    }


def _copy(now_seen: Verified, seen: Verified) -> None:
    seen.objects, seen.bytes, seen.chunks = now_seen.objects, now_seen.bytes, now_seen.chunks


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
