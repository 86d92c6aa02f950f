"""Prunes histories by the retention of their clusters: one replica, a bounded piece at a time.

What is pruned was verified first, and a history that does not verify is left as
it is, since it is evidence. The version behind a hole is made whole and gets a
signed checkpoint before anything is removed; a round that was killed in between
is finished by the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from kubelore.common.bus import Leases
from kubelore.common.contracts.keeping import Retention
from kubelore.common.crypto import Signer
from kubelore.common.errors import IntegrityError, KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs import packing, retention
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.history import MAIN, NO_COMMIT, Checkpoint, Entry, first_broken
from kubelore.yaml_vcs.keeping_repository import KeepingRepository
from kubelore.yaml_vcs.repository import Outline, Resource, VersionRepository
from kubelore.yaml_vcs.statements import Statements, checkpoint_bytes

log = get_logger(__name__)

LEASE = "keeping.prune"
OBJECTS = 500
"""Histories looked at in one round."""
RUN = 500
"""Versions removed behind one checkpoint."""
PAUSE_S = 10.0
IDLE_S = 600.0
"""Between the end of one pass over everything and the next."""


class Retentions(Protocol):
    """Knows how long each cluster's versions are kept."""

    def retention(self, cluster: str) -> Retention:
        """What holds for a cluster now."""
        ...


class Pruned(msgspec.Struct, kw_only=True):
    """What one round did; `ended` when it came to the last history."""

    objects: int = 0
    versions: int = 0
    broken: int = 0
    ended: bool = False


class Pruner:
    """Prunes. Every method may raise Unavailable and DeadlineExceeded."""

    def __init__(
        self,
        repository: VersionRepository,
        policies: KeepingRepository,
        histories: Histories,
        retentions: Retentions,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._policies = policies
        self._histories = histories
        self._retentions = retentions
        self._signer = signer
        self._clock = clock

    async def round(self, objects: int = OBJECTS) -> Pruned:
        """Look at the next histories, and prune them; the place is remembered across replicas."""
        done = Pruned()
        found = await self._repository.some_resources(await self._policies.pruned_to(), objects)
        for key, resource in found:
            done.objects += 1
            try:
                await self._prune(key, resource, done)
            except IntegrityError as error:
                done.broken += 1
                log.error("a history does not verify, and is not pruned", id=resource.id, error=error.detail)
        done.ended = len(found) < objects
        await self._policies.prune_from(None if done.ended else found[-1][0])
        if done.versions or done.broken:
            log.info("versions pruned", **msgspec.to_builtins(done))
        return done

    async def _prune(self, key: bytes, resource: Resource, done: Pruned) -> None:
        rules = self._retentions.retention(resource.cluster)
        versions = await self._repository.outline(key, sizes=rules.max_bytes > 0)
        if len(versions) < 2:
            return
        needed = await self._repository.needed(key)
        stay = retention.kept(versions, int(self._clock() * 1000), rules, needed)
        for before, behind in holes(versions, stay):
            done.versions += await self._remove(key, resource, before, behind)
        await self._repository.marks.prune(resource.id, min(one.at for one in versions if one.number in stay))

    async def _remove(self, key: bytes, resource: Resource, before: int, behind: int) -> int:
        """Remove the versions between two that stay; `before` is 0 where there is none. Raises IntegrityError."""
        found = await self._repository.between(key, max(before, 1), behind)
        parent = found[0].commit if found and found[0].number == before else NO_COMMIT
        run = [one for one in found if one.number > before]
        statements = Statements(self._signer.verifier, key)
        last = run[-1]
        said = last.checkpoint
        if said is None or said.before != before or not statements.checkpoint(last, parent):
            await self._vouch(key, resource, before, parent, run)
        return await self._repository.prune(key, before, behind)

    async def _vouch(
        self, key: bytes, resource: Resource, before: int, parent: bytes, run: Sequence[Entry]
    ) -> None:
        """Verify a run, make its last version whole, and sign that those before it are gone."""
        contents = await self._histories.contents(run, resource.id)
        statements = Statements(self._signer.verifier, key)
        broken = first_broken(run, contents, parent, after=before, vouching=statements)
        if broken is not None:
            raise IntegrityError(f"version {broken} does not follow")
        last, gone = run[-1], run[-2].commit
        if last.checkpoint is not None and last.number > run[-2].number + 1:
            # There was a hole before it already: what it names stands in its checkpoint.
            gone = last.checkpoint.parent
        said = Checkpoint(before, gone, int(self._clock() * 1000))
        body = checkpoint_bytes(key, MAIN, last.number, parent, said)
        signature = self._signer.sign(body, context="checkpoint")
        frame = packing.pack(contents[-1], None) if last.frame else b""
        await self._repository.make_whole(
            key, MAIN, last.number, frame, Checkpoint(said.before, said.parent, said.at, signature)
        )


def holes(versions: Sequence[Outline], stay: set[int]) -> list[tuple[int, int]]:
    """Between which versions that stay others go; long runs are cut, and joined by a later round."""
    found: list[tuple[int, int]] = []
    before, gone = 0, 0
    for one in versions:
        if one.number not in stay and gone < RUN:
            gone += 1
            continue
        if gone:
            found.append((before, one.number))
        before, gone = one.number, 0
    return found


async def prune_under_lease(leases: Leases, pruner: Pruner) -> None:
    """Prune whenever this replica holds the lease; until cancelled."""
    await under_lease(leases, LEASE, lambda: _rounds(pruner))


async def under_lease(leases: Leases, key: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do what one replica does, for as long as this one holds the lease; until cancelled."""
    while True:
        lease = await leases.wait(key, retry_s=15.0)
        working = asyncio.ensure_future(work())
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({working, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, lost):
                task.cancel()
            (outcome, _) = await asyncio.gather(working, lost, return_exceptions=True)
            if isinstance(outcome, Exception):
                log.error("work under a lease failed", lease=key, exc_info=outcome)
            await lease.release()


async def _rounds(pruner: Pruner) -> None:
    while True:
        ended = False
        with suppress(KubeloreError):
            ended = (await pruner.round()).ended
        await asyncio.sleep(IDLE_S if ended else PAUSE_S)
