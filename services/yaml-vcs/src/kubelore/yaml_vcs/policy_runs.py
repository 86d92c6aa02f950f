"""Follows the schedules of all backup policies, for as long as this replica holds the lease.

A slot becomes a run by an insert that only one can make, the run begins by a
compare-and-set, and its backup by an id that the run was given before: whatever
dies in between, and even where two believe in the lease, a slot is backed up
once at most. What dies later is found by its successor: a run goes on being
waited for, an alert that was not told is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from kubelore.common.authz import Caller
from kubelore.common.backups import names
from kubelore.common.bus import Bus, Leases
from kubelore.common.callers import current_caller
from kubelore.common.contracts.backups import Backup, CreateBackup
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.backup_policies import check_right, late_slot, mandate_context, schedule_of
from kubelore.yaml_vcs.policy_alerts import failed, late
from kubelore.yaml_vcs.policy_repository import Policy, PolicyRepository, Run
from kubelore.yaml_vcs.scheduling import DAY_S, Kept, expired

log = get_logger(__name__)

LEASE = "backups.schedules"
TICK_S = 1.0
LOOK_EVERY_S = 60.0
"""How often it is looked at what is late, and what may go."""
PATIENCE_S = 600.0
"""A run that cannot begin, since something is away, is tried again for so long; then it has failed."""
RETRY_S = 10.0
AT_ONCE = 4
RUNS_KEPT_S = 90 * DAY_S
"""Runs are told of for so long after their backups are gone."""

_AWAY = (Unavailable, DeadlineExceeded, TooManyRequests)


class Making(Protocol):
    """What a schedule needs of backups."""

    async def begin(self, asked: CreateBackup, caller: Caller, mandate: Mandate, backup_id: str) -> Backup:
        """Begin a backup under an id. Raises AlreadyExists when it has begun before."""
        ...

    async def find(self, backup_id: str) -> Backup | None:
        """A backup, on nobody's behalf; None when it never was, or was deleted."""
        ...

    async def remove(self, backup_id: str) -> None:
        """Delete a backup, on nobody's behalf. Raises NotFound, Conflict while it is being made."""
        ...


class PolicyRuns:
    """The one that runs policies. `clock` tells seconds since 1970."""

    def __init__(
        self,
        repository: PolicyRepository,
        making: Making,
        keyring: Keyring,
        bus: Bus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._making = making
        self._keyring = keyring
        self._bus = bus
        self._clock = clock
        self._beginning: dict[str, asyncio.Task[None]] = {}
        self._looked_at = 0.0
        self._quiet: dict[str, tuple[int, float, float]] = {}
        """Until when nothing is due, by policy, its revision and what was considered."""

    async def run(self) -> None:
        """Look every second at what is due, until cancelled; what is beginning then is left to a successor."""
        try:
            while True:
                try:
                    await self.tick()
                except KubeloreError as error:
                    log.warning("backup policies not looked after", reason=error.reason, detail=error.detail)
                await asyncio.sleep(TICK_S)
        finally:
            for task in self._beginning.values():
                task.cancel()
            await asyncio.gather(*self._beginning.values(), return_exceptions=True)

    async def tick(self) -> None:
        """One look: what is due becomes runs, runs go on, what has to be told is told, what may go goes."""
        policies = await self._repository.all()
        now = self._clock()
        by_uid = {policy.uid: policy for policy in policies}
        self._quiet = {uid: quiet for uid, quiet in self._quiet.items() if uid in by_uid}
        for run in await self._repository.in_state("running"):
            if run.id not in self._beginning:
                await self._follow(run, by_uid.get(run.policy), now)
        for policy in policies:
            await self._schedule(policy, now)
        for run in await self._repository.in_state("pending"):
            if run.not_before <= now and run.id not in self._beginning and len(self._beginning) < AT_ONCE:
                self._spawn(run, by_uid.get(run.policy))
        await self._tell_failures(by_uid, now)
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            for policy in await self._repository.all():
                await self._tell_late(policy, now)
                await self._retain(policy, now)

    async def settled(self) -> None:
        """Wait until nothing is beginning; for tests and an orderly end."""
        while self._beginning:
            await asyncio.gather(*self._beginning.values(), return_exceptions=True)

    # what is due

    async def _schedule(self, policy: Policy, now: float) -> None:
        revision, considered, until = self._quiet.get(policy.uid, (0, 0.0, 0.0))
        if policy.spec.paused or (
            (revision, considered) == (policy.revision, policy.considered) and now < until
        ):
            return
        schedule = schedule_of(policy)
        slot = schedule.latest(now, policy.considered)
        if slot is None:
            coming = schedule.coming(now, 1)
            self._quiet[policy.uid] = (policy.revision, policy.considered, coming[0] if coming else now)
            return
        overlaps = await self._repository.going(policy)
        run = Run(
            id=f"{policy.uid}:{slot}",
            policy=policy.uid,
            name=policy.name,
            state="skipped" if overlaps else "pending",
            slot=slot,
            due=schedule.due(slot),
            caught_up=next(schedule.slots(policy.considered)) != slot,
            ended=now if overlaps else 0.0,
            error="the run before it was still going" if overlaps else "",
        )
        if await self._repository.begin(run) and overlaps:
            log.warning("backup skipped: the run before it is still going", policy=policy.name)
        await self._repository.advance(policy, "considered", slot)

    # runs

    def _spawn(self, run: Run, policy: Policy | None) -> None:
        task = asyncio.create_task(self._begin(run, policy))
        self._beginning[run.id] = task
        task.add_done_callback(lambda _: self._beginning.pop(run.id, None))

    async def _begin(self, run: Run, policy: Policy | None) -> None:
        now = self._clock()
        if not run.backup_id:
            run.backup_id = names.fresh_id(now)
        try:
            if not await self._repository.claim(run, now):
                return
            if policy is None:
                await self._fail(run, NotFound(f"the policy {run.name} was deleted"))
                return
            await self._make(run, policy)
        except _AWAY as error:
            if self._clock() < run.due + PATIENCE_S:
                with suppress(KubeloreError):
                    await self._repository.postpone(run, self._clock() + RETRY_S)
            else:
                await self._fail(run, error)
        except KubeloreError as error:
            await self._fail(run, error)
        except Exception as error:
            log.error("backup by policy not begun", policy=run.name, exc_info=error)
            await self._fail(run, KubeloreError("an unexpected error; the service's log has it"))

    async def _make(self, run: Run, policy: Policy) -> None:
        spec = policy.spec
        asked = CreateBackup(
            clusters=spec.clusters,
            namespaces=spec.namespaces,
            types=spec.types,
            labels=spec.labels,
            name=policy.name,
            retention_days=0,
            reason=f"by the policy {policy.name}",
            policy=policy.name,
        )
        mandate = Mandate.open(self._keyring, policy.mandate, context=mandate_context(policy.uid))
        async with acting_under(self._bus, mandate):
            check_right(current_caller(), spec)
            with suppress(AlreadyExists):
                await self._making.begin(asked, current_caller(), Mandate.of_request(), run.backup_id)

    async def _follow(self, run: Run, policy: Policy | None, now: float) -> None:
        """See how the backup of a run is; one that was claimed and never begun is begun again."""
        backup = await self._making.find(run.backup_id)
        if backup is None:
            # Its replica died, or the backup was deleted under it: the id is the run's own, so it cannot begin twice.
            if now - run.started < RETRY_S:
                return
            if now < run.due + PATIENCE_S:
                await self._repository.postpone(run, now)
            else:
                await self._fail(run, Unavailable("it was interrupted before the backup began"))
        elif backup.status == "completed":
            if policy is not None:
                await self._repository.advance(policy, "last_success", run.started)
            await self._repository.finish(run, "completed", now)
        elif backup.status in ("failed", "cancelled"):
            why = backup.error or f"the backup was {backup.status}"
            await self._repository.finish(run, "failed", now, why)

    async def _fail(self, run: Run, error: KubeloreError) -> None:
        log.warning("backup by policy failed", policy=run.name, reason=error.reason, detail=error.detail)
        with suppress(KubeloreError):
            await self._repository.finish(run, "failed", self._clock(), error.detail, error.remedy or "")

    # what is told

    async def _tell_failures(self, policies: dict[str, Policy], now: float) -> None:
        for run in await self._repository.untold():
            policy = policies.get(run.policy)
            if policy is not None:
                for subject, alert in failed(policy, run, now):
                    await self._bus.publish_alert(subject, alert)
            await self._repository.told(run)

    async def _tell_late(self, policy: Policy, now: float) -> None:
        slot = late_slot(policy, now)
        if slot is None or slot <= policy.late_told:
            return
        for subject, alert in late(policy, slot, now):
            await self._bus.publish_alert(subject, alert)
        await self._repository.advance(policy, "late_told", slot)
        log.warning("backup by policy is late", policy=policy.name)

    # what goes

    async def _retain(self, policy: Policy, now: float) -> None:
        runs = {run.backup_id: run for run in await self._repository.with_backups(policy)}
        kept = [Kept(run.backup_id, run.started, run.state == "completed") for run in runs.values()]
        for backup_id in expired(kept, now, policy.spec.keep_count, policy.spec.keep_days):
            try:
                await self._making.remove(backup_id)
            except NotFound:
                pass
            except Conflict:
                continue
            await self._repository.forget_backup(runs[backup_id])
        await self._repository.drop_old(policy, now - RUNS_KEPT_S)


async def follow_schedules(leases: Leases, runs: PolicyRuns) -> None:
    """Run the policies whenever this replica holds the lease; until cancelled."""
    while True:
        lease = await leases.wait(LEASE)
        running = asyncio.create_task(runs.run())
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            running.cancel()
            (outcome,) = await asyncio.gather(running, return_exceptions=True)
            if isinstance(outcome, Exception):
                log.error("backup policies are not followed", exc_info=outcome)
            await lease.release()
