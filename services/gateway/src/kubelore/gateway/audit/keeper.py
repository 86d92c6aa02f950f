"""Keeps the audit log for as long as the settings say, and signs what writers that died could not.

One replica does it, under a lease. What is pruned was verified first, and a
signed checkpoint stands for it: a chain that does not verify is left as it is,
since it is evidence.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from kubelore.common.bus import Leases
from kubelore.common.crypto.chain import Head
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.gateway.audit.heads import HeadStore
from kubelore.gateway.audit.verification import Auditor
from kubelore.gateway.repository import MAX_LIMIT, AuditRepository

log = get_logger(__name__)

LEASE = "gateway.audit"
EVERY_S = 600.0
ORPHANED_S = 600.0
DAY_S = 86400.0


@dataclass(frozen=True)
class Retention:
    """What is kept: entries younger than `days`, and of those the newest `entries`; 0 is no bound."""

    days: float
    entries: int


class Keeper:
    """Signs and prunes. Every method may raise Unavailable and DeadlineExceeded."""

    def __init__(
        self,
        repository: AuditRepository,
        heads: HeadStore,
        retention: Retention,
        *,
        replica: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._heads = heads
        self._auditor = Auditor(repository, heads)
        self._retention = retention
        self._replica = replica
        self._clock = clock

    async def keep(self) -> None:
        """One round over every chain."""
        before = await self._kept_from()
        for chain in await self._auditor.chains():
            await self._sign_orphan(chain)
            if before > 0:
                await self._prune(chain, before)

    async def _kept_from(self) -> float:
        """What was made before this time is pruned."""
        now, retention = self._clock(), self._retention
        before = now - retention.days * DAY_S if retention.days else 0.0
        if retention.entries:
            excess = await self._repository.count() - retention.entries
            if excess > 0:
                # A round takes 10,000 at most.
                oldest = await self._repository.age_of(min(excess, MAX_LIMIT))
                before = max(before, math.nextafter(oldest, math.inf))
        return before

    async def _sign_orphan(self, chain: str) -> None:
        """Sign the tail of a chain that nobody has for ten minutes: its writer would have, within one."""
        newest = await self._repository.newest(chain)
        if newest is None or newest.content.get("at", math.inf) > self._clock() - ORPHANED_S:
            return
        head = await self._heads.newest(chain)
        if head is None or head.closed or head.number >= newest.link.number:
            return
        verification, _ = await self._auditor.along(chain, await self._heads.vouchers(chain))
        if verification.finish().ok:
            number, digest = verification.end
            await self._heads.put(
                Head(
                    chain=chain,
                    serial=head.serial + 1,
                    number=number,
                    hash=digest,
                    at=self._clock(),
                    writer=self._replica,
                )
            )

    async def _prune(self, chain: str, before: float) -> None:
        vouchers = await self._heads.vouchers(chain)
        kept = vouchers.checkpoint
        verification, _ = await self._auditor.along(chain, vouchers, before=before)
        if verification.fault is not None:
            log.error("a chain of the audit log does not verify", chain=chain, fault=verification.fault.kind)
            return
        if kept is None or verification.end.number > kept.number:
            if verification.end.number == 0:
                return
            kept = verification.checkpoint(self._clock())
            await self._heads.put(kept)
        # Also what a round that was killed between had left.
        if pruned := await self._repository.prune(chain, kept.number):
            log.info("audit entries pruned", chain=chain, entries=pruned)
        await self._heads.forget(kept)


async def keep_under_lease(leases: Leases, keeper: Keeper, every_s: float = EVERY_S) -> None:
    """Run a round every ten minutes whenever this replica holds the lease; until cancelled."""
    while True:
        lease = await leases.wait(LEASE, retry_s=15.0)
        keeping = asyncio.create_task(_rounds(keeper, every_s))
        lost = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({keeping, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (keeping, lost):
                task.cancel()
            (outcome, _) = await asyncio.gather(keeping, lost, return_exceptions=True)
            if isinstance(outcome, Exception):
                log.error("the audit log is not kept", exc_info=outcome)
            await lease.release()


async def _rounds(keeper: Keeper, every_s: float) -> None:
    while True:
        with suppress(KubeloreError):
            await keeper.keep()
        await asyncio.sleep(every_s)
