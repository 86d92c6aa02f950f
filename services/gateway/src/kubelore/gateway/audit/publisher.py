"""Tells the bus what was written to the audit log: best effort, and nobody waits for it."""

from __future__ import annotations

import asyncio

from kubelore.common.bus import Bus
from kubelore.common.contracts.audit import AuditEvent, audit_event_subject
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.gateway.audit.entries import Entry

log = get_logger(__name__)

MAX_QUEUED = 1000
DEADLINE_S = 2.0


class AuditPublisher:
    """Publishes entries one after the other; when 1,000 wait, further ones are left out and counted in the log."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[AuditEvent] = asyncio.Queue(MAX_QUEUED)
        self._left_out = 0

    def tell(self, id_: str, entry: Entry) -> None:
        """Publish an entry soon; never waits."""
        event = AuditEvent(
            id=id_,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            resource=entry.resource,
            cluster=entry.cluster,
            outcome=entry.outcome,
            status=entry.status,
            reason=entry.reason,
            operation_id=entry.operation_id,
            count=entry.count,
        )
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._left_out += 1

    async def run(self) -> None:
        """Publish what is told, until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._bus.publish_event(audit_event_subject(event), event, deadline_s=DEADLINE_S)
            except KubeloreError:
                self._left_out += 1
            if self._left_out and self._queue.empty():
                log.warning("audit events were not published", count=self._left_out)
                self._left_out = 0
