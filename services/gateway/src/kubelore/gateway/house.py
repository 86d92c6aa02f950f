"""What every part of a gateway is built from."""

from __future__ import annotations

from dataclasses import dataclass

from kubelore.common.bus import Bus, Feed
from kubelore.common.crypto import Keyring
from kubelore.gateway.audit.log import AuditLog
from kubelore.gateway.audit.verification import Auditor
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.repository import AuditRepository
from kubelore.gateway.roster import Roster
from kubelore.gateway.settings import GatewaySettings
from kubelore.gateway.store import Store


@dataclass(frozen=True, slots=True)
class House:
    """The bus, who observes which cluster, the stores, the audit log and the keyring `gateway` of one replica."""

    settings: GatewaySettings
    bus: Bus
    roster: Roster
    feed: Feed
    continuation: Continuation
    store: Store
    audit_log: AuditLog
    audit_entries: AuditRepository
    auditor: Auditor
    keyring: Keyring
