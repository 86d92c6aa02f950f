"""What happens to backups while nobody looks: they expire, and their data keys follow the keyring's rotations.

Each backup's data key is wrapped anew in a file of its own beside the old one,
which goes only once the new one has been read back and opens. Dying anywhere in
between leaves at least one that opens; the next look goes on from there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from kubelore.common.backups import BackupFault, names, rewrapped
from kubelore.common.backups.reader import MAX_KEY_BYTES
from kubelore.common.bus import Leases
from kubelore.common.callers import current_caller
from kubelore.common.contracts.backup_keys import MAX_UNREADABLE, AskKeys, KeysInUse, KeyUse
from kubelore.common.crypto import Keyring, envelope
from kubelore.common.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    KubeloreError,
    NotFound,
    TooLarge,
)
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.backup_blobs import BackupBlobs
from kubelore.yaml_vcs.backup_jobs import BackupJobs
from kubelore.yaml_vcs.backup_policies import mandate_context
from kubelore.yaml_vcs.backup_repository import BackupRepository, Job
from kubelore.yaml_vcs.backups import Backups
from kubelore.yaml_vcs.policy_repository import PolicyRepository

log = get_logger(__name__)

LEASE = "backups.upkeep"
EVERY_S = 30.0


class BackupUpkeep:
    """Looks after kept backups and policies, for as long as this replica holds the lease."""

    def __init__(
        self,
        repository: BackupRepository,
        backups: Backups,
        jobs: BackupJobs,
        policies: PolicyRepository,
        keyring: Keyring,
    ) -> None:
        self._repository = repository
        self._backups = backups
        self._jobs = jobs
        self._policies = policies
        self._keyring = keyring
        self._stuck: dict[str, frozenset[str]] = {}
        """Backups that no key opened, and the keys that there were then."""

    async def look(self) -> None:
        """One look: remove what has expired, re-wrap what an older key wraps. Raises Unavailable."""
        await self.expire(datetime.now(UTC))
        await self.rewrap()

    async def expire(self, now: datetime) -> int:
        """Delete the backups whose time is over; how many."""
        gone = 0
        for job in await self._repository.expired(now):
            with suppress(Conflict, NotFound):
                await self._backups.remove(job)
                gone += 1
        return gone

    async def rewrap(self) -> int:
        """Wrap with the active key what another one wraps; how many backups and policies were."""
        active, done = self._keyring.active_key_id, 0
        for policy in await self._policies.all():
            if envelope.split(policy.mandate).key_id != active:
                with suppress(IntegrityError):
                    context = mandate_context(policy.uid)
                    sealed = self._keyring.rewrap(policy.mandate, context=context)
                    done += await self._policies.reseal(policy, sealed)
        held = frozenset(key.id for key in self._keyring.keys if key.state != "removed")
        for job in await self._repository.wrapped_by_others(active):
            if self._stuck.get(job.id) == held:
                continue
            done += await self._follow(job, active, held)
        return done

    async def _follow(self, job: Job, active: str, held: frozenset[str]) -> int:
        blobs = self._jobs.blobs(job.id)
        try:
            wraps = {name for name in await blobs.sizes() if names.is_key(name)}
            if names.key_name(active) not in wraps:
                await _wrap(blobs, job.id, sorted(wraps), self._keyring)
            # Read back from where it lies: from here on it alone has to open.
            kept = await blobs.read(names.key_name(active), max_bytes=MAX_KEY_BYTES)
            rewrapped(kept, job.id, self._keyring)
            for name in sorted(wraps - {names.key_name(active)}):
                await blobs.delete(name)
            wraps = {names.key_name(active)}
        except (BackupFault, NotFound, TooLarge) as error:
            self._stuck[job.id] = held
            log.warning("data key of a backup not re-wrapped", backup=job.id, detail=error.detail)
            if wraps := {name for name in await blobs.sizes() if names.is_key(name)}:
                await self._repository.note_keys(job, [names.key_id(name) for name in wraps])
            return 0
        await self._repository.note_keys(job, [active])
        return 1

    async def keys(self, _: AskKeys) -> KeysInUse:
        """What each key is still needed for. Raises Forbidden for who does not administer everything."""
        current_caller().check_admin("see which keys are needed")
        keys = {
            key.id: KeyUse(id=key.id, state=key.state, created_at=key.created_at)
            for key in self._keyring.keys
        }
        live = {key.id for key in keys.values() if key.state != "removed"}
        told = KeysInUse(keys=list(keys.values()))
        for backup_id, wraps in await self._repository.keys_of_all():
            if not wraps:
                told.unlooked += 1
            elif not live & set(wraps) and len(told.unreadable) < MAX_UNREADABLE:
                told.unreadable.append(backup_id)
            # With two wraps, either will do: none of them alone is needed.
            if len(wraps) == 1 and wraps[0] in keys:
                keys[wraps[0]].backups += 1
        for policy in await self._policies.all():
            if (key_id := envelope.split(policy.mandate).key_id) in keys:
                keys[key_id].policies += 1
        return told


async def _wrap(blobs: BackupBlobs, backup_id: str, wraps: list[str], keyring: Keyring) -> None:
    """Wrap the data key with the active key, from whichever wrap opens. Raises what the last one that did not, raised."""
    refused: BackupFault | NotFound = NotFound(f"the backup {backup_id} has no wrapped data key")
    for name in wraps:
        try:
            sealed = await blobs.read(name, max_bytes=MAX_KEY_BYTES)
            key_id, fresh = rewrapped(sealed, backup_id, keyring)
        except BackupFault as error:
            refused = error
            continue
        with suppress(AlreadyExists):
            await blobs.create(names.key_name(key_id), fresh)
        return
    raise refused


async def keep_backups(leases: Leases, upkeep: BackupUpkeep, every_s: float = EVERY_S) -> None:
    """Look after backups whenever this replica holds the lease; until cancelled."""
    while True:
        lease = await leases.wait(LEASE)
        looking = asyncio.create_task(_look_again(upkeep, every_s))
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({looking, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            looking.cancel()
            (outcome,) = await asyncio.gather(looking, return_exceptions=True)
            if isinstance(outcome, Exception):
                log.error("backups are not looked after", exc_info=outcome)
            await lease.release()


async def _look_again(upkeep: BackupUpkeep, every_s: float) -> None:
    while True:
        try:
            await upkeep.look()
        except KubeloreError as error:
            log.warning("backups not looked after", reason=error.reason, detail=error.detail)
        await asyncio.sleep(every_s)
