"""What yaml-vcs answers to who verifies many histories: whether any was changed, dropped or put in."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE


class VerifyMany(msgspec.Struct, kw_only=True):
    """A page of a verification of the histories of a cluster.

    Without a namespace (None) it is the whole cluster; an empty one is what lies in none.
    """

    cluster: str
    namespace: str | None = None
    after: str = ""
    limit: int = 200


class BrokenHistory(msgspec.Struct, kw_only=True):
    """A history that does not verify: `version` is the first that does not follow."""

    id: str
    version: int
    why: str


class VerifiedMany(msgspec.Struct, kw_only=True):
    """What a page has seen, what in it does not verify, and the `after` of the page behind; empty at the end."""

    objects: int = 0
    versions: int = 0
    broken: list[BrokenHistory] = []
    next: str = ""


VERIFY_MANY = Endpoint(SERVICE, "verify-many", VerifyMany, VerifiedMany, deadline_s=30.0)

ENDPOINTS = (VERIFY_MANY,)
