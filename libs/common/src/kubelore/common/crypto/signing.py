"""Signatures that anybody with the public half can check: Ed25519 (RFC 8032), bound to what they are for.

A signature covers its context beside the message, so that what was signed for
one use proves nothing in another. The pair is derived from a keyring's lasting
secret: a rotation leaves it, since what was signed must stay verifiable.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kubelore.common.crypto.context import bound
from kubelore.common.crypto.files import KeyringError
from kubelore.common.errors import IntegrityError, Invalid

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_DOMAIN = b"kubelore signature v1"


class Verifier:
    """The public half of a keyring's signing pair. Raises Invalid when the bytes are none."""

    __slots__ = ("_key", "public_key")

    def __init__(self, public_key: bytes) -> None:
        if len(public_key) != KEY_BYTES:
            raise Invalid(f"An Ed25519 public key has {KEY_BYTES} bytes, not {len(public_key)}.")
        self.public_key = bytes(public_key)
        self._key = Ed25519PublicKey.from_public_bytes(self.public_key)

    @classmethod
    def load(cls, path: Path) -> Verifier:
        """The public half in the `.verify` file beside a keyring. Raises KeyringError when it holds none."""
        try:
            return cls(base64.b64decode(path.read_bytes().strip(), validate=True))
        except (OSError, ValueError, Invalid) as error:
            raise KeyringError(
                f"{path} holds no public key for signatures.",
                remedy="It lies beside the keyring, and is made with it.",
            ) from error

    def __repr__(self) -> str:
        return f"Verifier({self.public_key[:4].hex()})"

    def verify(self, message: bytes, signature: bytes, *, context: str) -> None:
        """Return when the signature is this key's for that message and context. Raises IntegrityError."""
        try:
            self._key.verify(signature, bound(_DOMAIN, context) + message)
        except InvalidSignature as error:
            raise IntegrityError(
                f"The signature for {context!r} does not verify: altered, or another key's."
            ) from error


class Signer:
    """A signing pair; made by `Keyring.signer`."""

    __slots__ = ("_key", "_secret", "verifier")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.verifier = Verifier(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"Signer({self.verifier.public_key[:4].hex()})"

    def sign(self, message: bytes, *, context: str) -> bytes:
        """64 bytes that prove that the holder of this key wrote the message for that context."""
        return self._key.sign(bound(_DOMAIN, context) + message)

    def jwk(self) -> dict[str, str | list[str]]:
        """The pair as a JSON Web Key (RFC 8037), for libraries that speak JOSE; secret."""
        return {**public_jwk(self.verifier), "d": _base64url(self._secret)}


def public_jwk(verifier: Verifier) -> dict[str, str | list[str]]:
    """The public half as a JSON Web Key (RFC 8037)."""
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(verifier.public_key)}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
