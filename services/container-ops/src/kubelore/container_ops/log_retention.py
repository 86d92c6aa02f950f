"""What is kept of logs, no longer than their policies say: one replica looks after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from kubelore.common.bus import Leases
from kubelore.common.contracts.log_policies import LogsHeld
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.alert_counting import NS
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.log_rules import PolicyRule, iso
from kubelore.container_ops.segment_store import SegmentStore

log = get_logger(__name__)

EVERY_S = 60.0
DAY_S = 86_400


class LogRetention:
    """Enforces days and bytes, and says what each policy holds. `clock` tells seconds since 1970."""

    def __init__(
        self, repository: LogRuleRepository, store: SegmentStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._repository = repository
        self._store = store
        self._clock = clock

    async def run(self, leases: Leases) -> None:
        """Enforce once a minute, under a lease, until cancelled."""
        while True:
            lease = await leases.wait("logs.retention")
            try:
                while lease.held:
                    await self.enforce()
                    await asyncio.sleep(EVERY_S)
            finally:
                await lease.release()

    async def enforce(self) -> None:
        """Let go what is over the limits; what cannot be now is next time."""
        try:
            policies = [*await self._repository.policies.all(), *await self._repository.gone()]
        except KubeloreError as error:
            log.info("log policies not read", reason=error.reason)
            return
        for policy in policies:
            try:
                await self._enforce(policy)
            except KubeloreError as error:
                log.info("logs not let go", policy=policy.name, reason=error.reason, detail=error.detail)

    async def held(self, policy: str) -> LogsHeld:
        """How much a policy holds, by its uid."""
        held = await self._store.held(policy)
        return LogsHeld(
            lines=held.lines,
            raw_bytes=held.raw_bytes,
            stored_bytes=held.stored_bytes,
            oldest=iso(held.oldest // NS),
            newest=iso(held.newest // NS),
        )

    async def drop(self, policy: str) -> None:
        """Delete all that a policy holds."""
        await self._store.expire(policy, max_bytes=0)

    async def _enforce(self, policy: PolicyRule) -> None:
        before = int((self._clock() - policy.spec.days * DAY_S) * NS)
        gone = await self._store.expire(policy.uid, before=before, max_bytes=policy.spec.max_bytes or None)
        if gone.segments:
            log.info("logs let go", policy=policy.name, lines=gone.lines, stored_bytes=gone.stored_bytes)
        if policy.gone and not (await self._store.held(policy.uid)).lines:
            await self._repository.forget(policy)
