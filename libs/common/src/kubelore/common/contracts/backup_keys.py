"""What yaml-vcs answers about the keys that backups are sealed with."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE

MAX_UNREADABLE = 100


class AskKeys(msgspec.Struct):
    """Which key of the keyring `versions` is needed by what."""


class KeyUse(msgspec.Struct, kw_only=True):
    """One key. `backups` and `policies` cannot be read, or run, without it; both are 0 once all is re-wrapped."""

    id: str
    state: str
    created_at: str
    backups: int = 0
    policies: int = 0


class KeysInUse(msgspec.Struct, kw_only=True):
    """Every key, oldest first, and the newest backups whose keys are all gone. `unlooked` have yet to be looked at."""

    keys: list[KeyUse]
    unlooked: int = 0
    unreadable: list[str] = []


KEYS = Endpoint(SERVICE, "backup-keys", AskKeys, KeysInUse, deadline_s=15.0)

ENDPOINTS = (KEYS,)
"""Not about versions: what of them is sealed, is sealed to the keyring's recipient, which rotations leave."""
