"""How long credentials last, when a token is renewed, and when to warn: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from kubelore.common.kube import ClusterAccess
from kubelore.common.kube.credentials import certificate_expiry, token_claims, token_expiry

Expiring = Literal["certificate", "token"]

RENEW_AT = 1 / 3
"""The share of a token's life that is left when it is renewed."""

THRESHOLDS_D = (30, 7, 1, 0)
"""Days before the end at which it is told; 0 is the end itself."""


class Lifetime(msgspec.Struct, frozen=True):
    """What ends first of some credentials, and when, in seconds since the epoch; None when nothing says."""

    what: Expiring | None = None
    expires_at: float | None = None
    renew_at: float | None = None
    """When the token is to be renewed; None for what is no service account's expiring token."""


def lifetime(access: ClusterAccess) -> Lifetime:
    """How long credentials last."""
    ends: list[tuple[float, Expiring]] = []
    certificate = certificate_expiry(access.client_cert_pem)
    if certificate is not None:
        ends.append((certificate.timestamp(), "certificate"))
    claims, token = token_claims(access.token), token_expiry(access.token)
    renew_at = None
    if claims is not None and token is not None:
        end = token.timestamp()
        ends.append((end, "token"))
        if claims.service_account is not None and claims.iat is not None and claims.iat < end:
            renew_at = end - (end - claims.iat) * RENEW_AT
    if not ends:
        return Lifetime()
    expires_at, what = min(ends)
    return Lifetime(what, expires_at, renew_at)


def expiry_of(access: ClusterAccess) -> str | None:
    """When credentials end, as it is shown."""
    ends = lifetime(access).expires_at
    return None if ends is None else iso_utc(ends)


def due_threshold(expires_at: float, now: float) -> int | None:
    """The last threshold that has passed, in days before the end; None while there is more time than that."""
    left = timedelta(seconds=expires_at - now)
    passed = [days for days in THRESHOLDS_D if left <= timedelta(days=days)]
    return min(passed, default=None)


def iso_utc(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
