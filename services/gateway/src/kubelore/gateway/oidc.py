"""OpenID Connect: tokens of a provider (JWT, RFC 7519), checked by its published keys, mapped to grants."""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwt import JWTClaimsRegistry

from kubelore.common.authz import Caller, Grant
from kubelore.common.errors import Unauthenticated
from kubelore.gateway.jwks import Jwks
from kubelore.gateway.minting import digest

CREDENTIAL = "oidc"
"""How callers of a provider are said to have proved who they are."""
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Signatures by a private key. Never `none`, and no HS*: its key would be the public one."""
SKEW_S = 60
KEPT = 1024
KEPT_S = 60.0
"""A token that was checked is taken for so long without checking its signature again."""
MAX_SUBJECT = 200
_MAX_TOKEN = 16 * 1024


@dataclass(frozen=True)
class Rule:
    """Whoever has this value in this claim (or in the list there) has these grants."""

    claim: str
    value: str
    grants: tuple[Grant, ...]

    def fits(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token's claims say so."""
        said = claims.get(self.claim)
        return self.value in said if isinstance(said, list) else said == self.value


@dataclass(frozen=True)
class Provider:
    """Whose tokens are taken, and how they are read."""

    issuer: str
    audience: str
    rules: Sequence[Rule]
    subject_claim: str = "sub"
    subject_prefix: str = "oidc:"
    algorithms: frozenset[str] = ALGORITHMS


@dataclass(frozen=True)
class Identity:
    """Whom a token names, and until when (seconds since 1970)."""

    caller: Caller
    expires: float


class Oidc:
    """Checks tokens of one provider. `clock` tells seconds since 1970."""

    def __init__(self, provider: Provider, keys: Jwks, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._keys = keys
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()

    def known(self, text: str) -> bool:
        """Whether this very token was found good a moment ago."""
        return self._remembered(digest(text)) is not None

    async def identity(self, text: str) -> Identity:
        """Whom a token names. Raises Unauthenticated, saying which rule it breaks, and Unavailable."""
        name = digest(text)
        found = self._remembered(name)
        if found is None:
            found = self._read(await self._claims(text))
            self._kept[name] = (found, self._clock())
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _remembered(self, name: bytes) -> Identity | None:
        kept = self._kept.get(name)
        now = self._clock()
        good = kept is not None and now - kept[1] < KEPT_S and now < kept[0].expires + SKEW_S
        return kept[0] if kept is not None and good else None

    async def _claims(self, text: str) -> dict[str, Any]:
        header = _header(text)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._provider.algorithms:
            raise _refused(f"the token's algorithm {str(algorithm)[:20]!r} is not allowed")
        key = await self._keys.key(kid if isinstance(kid, str) else None)
        if key.alg not in (None, algorithm):
            raise _refused("the token's algorithm is not that of its key")
        try:
            return jwt.decode(text, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError) as error:
            raise _refused("the token's signature does not verify") from error

    def _read(self, claims: dict[str, Any]) -> Identity:
        provider = self._provider
        registry = JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=SKEW_S,
            iss={"essential": True, "value": provider.issuer},
            aud={"essential": True, "value": provider.audience},
            exp={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError as error:
            raise _refused("the token has expired") from error
        except (InvalidClaimError, MissingClaimError) as error:
            raise _refused(f"the token's claim {error.claim!r} is not as it must be") from error
        except (JoseError, ValueError, TypeError) as error:
            raise _refused("the token's claims cannot be read") from error
        subject = claims.get(provider.subject_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
            raise _refused(f"the token names nobody in its claim {provider.subject_claim!r}")
        grants = dict.fromkeys(grant for rule in provider.rules if rule.fits(claims) for grant in rule.grants)
        caller = Caller(
            subject=provider.subject_prefix + subject, grants=tuple(grants), credential=CREDENTIAL
        )
        return Identity(caller, float(claims["exp"]))


def looks_like_jwt(text: str) -> bool:
    """Whether a bearer token could be one of an OpenID provider."""
    return text.count(".") == 2 and len(text) <= _MAX_TOKEN


def expiry(identity: Identity) -> datetime:
    """When a token stops being taken."""
    return datetime.fromtimestamp(identity.expires, UTC)


def _header(text: str) -> dict[str, Any]:
    encoded = text.partition(".")[0]
    try:
        raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise _refused("the token cannot be read") from error


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, remedy="Get a new token from the OpenID provider.")
