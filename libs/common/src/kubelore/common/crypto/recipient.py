"""Boxes that anybody may seal and one keyring can open: HPKE (RFC 9180), single-shot, base mode.

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Layout of version 1:

    "KLB" 0x01 | recipient id (8, of SHA-256 of the public key) | HPKE enc (32) ciphertext + tag (16)

The header and the context go into HPKE's `info`, as RFC 9180 (8.1) advises for
single-shot use. A box says nothing about who sealed it.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from kubelore.common.crypto.context import bound
from kubelore.common.crypto.files import KeyringError
from kubelore.common.errors import IntegrityError, Invalid

MAGIC = b"KLB"
VERSION = 1
ID_BYTES = 8
_HEADER = len(MAGIC) + 1 + ID_BYTES
OVERHEAD_BYTES = _HEADER + 32 + 16

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Recipient:
    """The public half of a keyring's X25519 pair. Raises Invalid when it is not one."""

    __slots__ = ("_key", "public_key")

    def __init__(self, public_key: bytes) -> None:
        if len(public_key) != 32:
            raise Invalid(f"An X25519 public key has 32 bytes, not {len(public_key)}.")
        self.public_key = bytes(public_key)
        self._key = X25519PublicKey.from_public_bytes(self.public_key)

    @classmethod
    def load(cls, path: Path) -> Recipient:
        """The public half in the `.pub` file beside a keyring. Raises KeyringError when it holds none."""
        try:
            return cls(base64.b64decode(path.read_bytes().strip(), validate=True))
        except (OSError, ValueError, Invalid) as error:
            raise KeyringError(
                f"{path} holds no public key.", remedy="It lies beside the keyring, and is made with it."
            ) from error

    def __repr__(self) -> str:
        return f"Recipient({recipient_id(self.public_key).hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipient) and other.public_key == self.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)

    def seal(self, plaintext: bytes, *, context: str) -> bytes:
        """A box that only the holder of the private half can open, under the same context."""
        header = MAGIC + bytes((VERSION,)) + recipient_id(self.public_key)
        info = _info(header, context)
        try:
            return header + _SUITE.encrypt(plaintext, self._key, info=info)
        except ValueError as error:
            raise Invalid("The recipient's public key is not a usable X25519 key.") from error


def recipient_id(public_key: bytes) -> bytes:
    """Eight bytes that name a public key in a box's header."""
    return hashlib.sha256(public_key).digest()[:ID_BYTES]


def open_box(box: bytes, private_key: X25519PrivateKey, *, context: str) -> bytes:
    """The plaintext of a box sealed to `private_key`'s public half. Raises IntegrityError."""
    mine = recipient_id(private_key.public_key().public_bytes_raw())
    if box[: len(MAGIC)] != MAGIC:
        raise IntegrityError("This is not a sealed box.")
    if len(box) > len(MAGIC) and box[len(MAGIC)] != VERSION:
        raise IntegrityError(
            f"The sealed box has version {box[len(MAGIC)]}; this program knows version {VERSION}.",
            remedy="Open it with the newer program that wrote it.",
        )
    if len(box) < OVERHEAD_BYTES:
        raise IntegrityError(f"The sealed box is cut off: it has {len(box)} bytes.")
    header = box[:_HEADER]
    if header[-ID_BYTES:] != mine:
        raise IntegrityError(
            f"The box is sealed to recipient {header[-ID_BYTES:].hex()}; this keyring is {mine.hex()}.",
            remedy="Ask for the public key again, and seal to it.",
        )
    info = _info(header, context)
    try:
        return _SUITE.decrypt(box[_HEADER:], private_key, info=info)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError(
            f"The sealed box {context!r} does not verify: altered, or sealed for another use."
        ) from error


def _info(header: bytes, context: str) -> bytes:
    return bound(b"kubelore box v1", header, context)
