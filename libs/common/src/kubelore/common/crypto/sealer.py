"""Sealing of many small values, such as continue tokens, under one key derived for their use.

Layout of version 1:

    "KLS" 0x01 | key id (8) | nonce (24) ciphertext + tag (16)

The key is derived from a key of the keyring by HKDF-SHA256 for the keyring's
purpose and the sealer's scope, so every replica with the keyring opens what
another sealed, also after a rotation. A value costs 52 bytes more, where an
envelope with a data key of its own costs 112.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kubelore.common.crypto import xaes
from kubelore.common.crypto.context import bound
from kubelore.common.crypto.envelope import KEY_ID_BYTES, KeyLookup
from kubelore.common.errors import IntegrityError

MAGIC = b"KLS"
VERSION = 1
_HEADER = len(MAGIC) + 1 + KEY_ID_BYTES
OVERHEAD_BYTES = _HEADER + xaes.NONCE_BYTES + xaes.TAG_BYTES


class Sealer:
    """Seals and opens values of one scope; made by `Keyring.sealer`."""

    def __init__(
        self, purpose: str, scope: str, active: Callable[[], tuple[str, bytes]], lookup: KeyLookup
    ) -> None:
        self._info = bound(b"kubelore sealer v1", purpose, scope)
        self._scope = scope
        self._active = active
        self._lookup = lookup
        self._derived: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Sealer({self._scope!r})"

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """The sealed value; it opens only under the same scope and context."""
        key_id, secret = self._active()
        header = MAGIC + bytes((VERSION,)) + bytes.fromhex(key_id)
        return header + xaes.encrypt(self._key(key_id, secret), plaintext, _aad(header, context))

    def open(self, sealed: bytes, context: str) -> bytes:
        """The plaintext. Raises IntegrityError on a value that is altered, foreign, or of a removed key."""
        if sealed[: len(MAGIC) + 1] != MAGIC + bytes((VERSION,)) or len(sealed) < OVERHEAD_BYTES:
            raise IntegrityError("This is not a sealed value of a version known here.")
        header = sealed[:_HEADER]
        key_id = header[-KEY_ID_BYTES:].hex()
        key = self._key(key_id, self._lookup(key_id))
        try:
            return xaes.decrypt(key, sealed[_HEADER:], _aad(header, context))
        except InvalidTag as error:
            raise IntegrityError(
                "The sealed value does not verify: altered, or made for another use."
            ) from error

    def _key(self, key_id: str, secret: bytes) -> bytes:
        if key_id not in self._derived:
            self._derived[key_id] = HKDF(SHA256(), 32, salt=None, info=self._info).derive(secret)
        return self._derived[key_id]


def _aad(header: bytes, context: str) -> bytes:
    return bound(b"kubelore sealed value v1", header, context)
