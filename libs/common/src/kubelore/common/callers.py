"""On whose behalf something is done: the caller of the request at hand, and how it travels over the bus.

The gateway authenticates a caller and vouches for it to the services with a
token of its own: a JWT (RFC 7519) signed by Ed25519, good for 60 s, which goes
along with every request over the bus. A service that holds the gateway's public
key opens it and decides again, where the data is, what that caller may see; a
service that asks another one passes the token on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from kubelore.common.authz import Caller
from kubelore.common.crypto.signing import Signer, Verifier, public_jwk
from kubelore.common.errors import Unauthenticated

LIFETIME_S = 60
RENEW_S = 30
"""A token that is handed out lives at least this long."""
KEPT = 1024
VERIFY_FILE = "gateway.verify"

_ALGORITHM = "Ed25519"
"""RFC 9864's name for EdDSA with this very curve."""
_AUDIENCE = "kubelore-bus"

Clock = Callable[[], float]


class Acting(msgspec.Struct):
    """Whom this request is served for. One that lasts is renewed in place, for all its tasks at once."""

    caller: Caller
    token: str | None = None


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


def current_caller() -> Caller:
    """The caller of the request that is being served. Raises Unauthenticated outside of one."""
    acting = _acting.get()
    if acting is None:
        raise Unauthenticated("nobody is named for whom this is done")
    return acting.caller


def current_token() -> str:
    """The gateway's word for the caller of the request that is being served. Raises Unauthenticated outside of one."""
    acting = _acting.get()
    if acting is None or acting.token is None:
        raise Unauthenticated("nobody has vouched for whom this is done")
    return acting.token


@contextmanager
def acting_as(caller: Caller, token: str | None = None) -> Iterator[Acting]:
    """Serve a request of this caller: `current_caller` within the block, and in tasks started there.

    `token` is the gateway's word for the caller where it came over the bus, to be passed on.
    """
    acting = Acting(caller, token)
    before = _acting.set(acting)
    try:
        yield acting
    finally:
        _acting.reset(before)


class Word(NamedTuple):
    """What a token of the gateway says: who it is, and until when it is taken (seconds since 1970)."""

    caller: Caller
    expires: float


class CallerSigner:
    """Vouches for callers; only the gateway has one."""

    def __init__(self, signer: Signer, clock: Clock = time.time) -> None:
        self._key = OKPKey.import_key(signer.jwk())
        self._clock = clock
        self._kept: dict[Caller, tuple[str, float]] = {}

    def token(self, caller: Caller) -> str:
        """A token for a caller, the same one for as long as it lives on for 30 s."""
        now = self._clock()
        kept = self._kept.get(caller)
        if kept is not None and kept[1] - now >= RENEW_S:
            return kept[0]
        expires = now + LIFETIME_S
        claims: dict[str, Any] = {
            "aud": _AUDIENCE,
            "sub": caller.subject,
            "exp": int(expires),
            "crd": caller.credential,
            "grants": msgspec.to_builtins(caller.grants),
        }
        token = jwt.encode({"alg": _ALGORITHM}, claims, self._key, algorithms=[_ALGORITHM])
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[caller] = (token, expires)
        return token


class CallerVerifier:
    """Opens what the gateway vouched for; every service that answers on somebody's behalf has one."""

    def __init__(self, verifier: Verifier, clock: Clock = time.time) -> None:
        self._key = OKPKey.import_key(public_jwk(verifier))
        self._clock = clock
        self._kept: dict[str, Word] = {}

    @classmethod
    def load(cls, keyring_dir: Path) -> CallerVerifier:
        """From the public half beside the gateway's keyring. Raises KeyringError where there is none."""
        return cls(Verifier.load(keyring_dir / VERIFY_FILE))

    def caller(self, token: str) -> Caller:
        """The caller whom the gateway vouched for. Raises Unauthenticated for any other text, and when it is old."""
        word = self.word(token)
        if word.expires <= self._clock():
            self._kept.pop(token, None)
            raise Unauthenticated("the gateway's word for this caller has expired")
        return word.caller

    def word(self, token: str) -> Word:
        """What the gateway once said, expired or not: for asking it again. Raises Unauthenticated for any other text."""
        return self._kept.get(token) or self._opened(token)

    def seconds_left(self, token: str) -> float:
        """For how long a token will still be taken; below zero when it has expired. Raises Unauthenticated."""
        return self.word(token).expires - self._clock()

    def _opened(self, token: str) -> Word:
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
            if claims.get("aud") != _AUDIENCE:
                raise Unauthenticated("the caller's token is for another use")
            caller = msgspec.convert(
                {"subject": claims["sub"], "grants": claims["grants"], "credential": claims["crd"]}, Caller
            )
            opened = Word(caller, float(claims["exp"]))
        except (JoseError, msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
            raise Unauthenticated("the gateway does not vouch for this caller") from error
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[token] = opened
        return opened


def outgoing_token(signer: CallerSigner | None, default: Caller | None) -> str | None:
    """The token to send along with a request: the one that came in, or a fresh one where we may sign.

    `default` is whom to name when no request is being served; None when there is nobody to name.
    """
    acting = _acting.get()
    if acting is not None and acting.token is not None:
        return acting.token
    caller = acting.caller if acting is not None else default
    return signer.token(caller) if signer is not None and caller is not None else None
