"""Backups that lie in the blob store and that MongoDB no longer knows of: found again, a round at a time."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE

ROUND = 100
"""Folders that one round looks into, at most."""


class Rescan(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One round over the folders of the blob store in the order of their names, those behind `after`."""

    after: str = ""


class Refused(msgspec.Struct, kw_only=True):
    """A folder that is no backup of this installation, and why."""

    id: str
    reason: str
    error: str


class Rescanned(msgspec.Struct, kw_only=True):
    """What a round met: backups that are known again, how many were known before, and what is not to be believed.

    `next` is the `after` of the next round; empty when there is none.
    """

    found: list[str]
    known: int
    refused: list[Refused]
    next: str = ""


RESCAN = Endpoint(SERVICE, "backup-rescan", Rescan, Rescanned, deadline_s=60.0)

ENDPOINTS = (RESCAN,)
