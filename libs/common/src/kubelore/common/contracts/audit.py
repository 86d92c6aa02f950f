"""What the gateway says on the bus of what somebody did, or was refused to do."""

from __future__ import annotations

from typing import Literal

import msgspec


class AuditEvent(msgspec.Struct, kw_only=True):
    """An entry of the audit log: published on `kubelore.v1.events.audit.<cluster>.<action>` after it was written.

    Best effort: what must not be missed is asked of `GET /api/audit`, by `id`.
    """

    id: str
    at: float
    """Seconds since the epoch, UTC."""
    actor: str
    action: str
    resource: str
    cluster: str
    outcome: Literal["ok", "refused", "failed", "unknown"]
    status: int
    reason: str
    operation_id: str
    count: int = 1


def audit_event_subject(event: AuditEvent) -> str:
    """The subject of an event; `_` stands for the cluster where there is none. Actions are words joined by dots."""
    return f"kubelore.v1.events.audit.{event.cluster or '_'}.{event.action}"
