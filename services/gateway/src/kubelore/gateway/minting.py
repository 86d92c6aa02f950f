"""Secrets that are handed out once, and what is kept of them.

A secret is 256 random bits. So a plain SHA-256 of it is enough to keep: there
is nothing to guess, and a slow hash (which passwords need, since people choose
them) would only cost every request. The id stands in the text, `klt_<id>_<secret>`,
so that the record is found by id and only then compared, in constant time. The
prefix lets scanners of repositories and logs recognise a token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["klt", "kls"]
FOR_API: Kind = "klt"
FOR_BROWSER: Kind = "kls"

_FORM = re.compile(r"(klt|kls)_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Presented:
    """A secret that somebody shows: whose it says it is, and its hash."""

    id: str
    digest: bytes = field(repr=False)

    def proves(self, digest: bytes) -> bool:
        """Whether it is the secret whose hash was kept."""
        return hmac.compare_digest(self.digest, digest)


def mint(kind: Kind) -> tuple[str, Presented]:
    """A new secret as text, and what to keep of it."""
    text = f"{kind}_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    presented = read(kind, text)
    if presented is None:
        raise ValueError(f"{kind!r} is no kind of secret")
    return text, presented


def read(kind: Kind, text: str) -> Presented | None:
    """What a text shows; None when it has not the form of this kind."""
    found = _FORM.fullmatch(text)
    if found is None or found[1] != kind:
        return None
    return Presented(found[2], digest(text))


def digest(text: str) -> bytes:
    """What is kept of a random secret."""
    return hashlib.sha256(text.encode()).digest()
