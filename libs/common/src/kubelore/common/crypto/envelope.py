"""The sealed envelope: a fresh data key per object, wrapped by a key of the keyring.

Layout of version 1 (docs/keyring.md has it in full):

    "KLE" 0x01 | key id (8) | nonce (24) wrapped data key (32 + 16) | nonce (12) ciphertext + tag (16)

Both layers authenticate the purpose and the context, which says where the
record lies; the wrap also authenticates the header. Moving an envelope to
another record, or any part of it into another envelope, is found out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kubelore.common.crypto import xaes
from kubelore.common.crypto.context import bound
from kubelore.common.errors import IntegrityError, TooLarge

MAGIC = b"KLE"
VERSION = 1
KEY_ID_BYTES = 8
MAX_PLAINTEXT_BYTES = 1024**3
"""Larger things are sealed in parts, each with its number in its context."""

_HEADER = len(MAGIC) + 1 + KEY_ID_BYTES
_WRAP_END = _HEADER + xaes.NONCE_BYTES + 32 + xaes.TAG_BYTES
_NONCE_END = _WRAP_END + 12
OVERHEAD_BYTES = _NONCE_END + 16

KeyLookup = Callable[[str], bytes]
"""The key with an id, in hex. Raises IntegrityError that names the id when there is none."""


class Parts(NamedTuple):
    """An envelope taken apart; nothing is verified yet."""

    key_id: str
    header: bytes
    wrap: bytes
    nonce: bytes
    ciphertext: bytes


def seal(plaintext: bytes, *, key_id: str, key: bytes, purpose: str, context: str) -> bytes:
    """Encrypt under a fresh data key, and wrap that with `key`. Raises TooLarge over 1 GiB."""
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise TooLarge(
            f"{len(plaintext)} bytes are too many for one envelope (at most {MAX_PLAINTEXT_BYTES})."
        )
    data_key = os.urandom(32)
    nonce = os.urandom(12)
    ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, _payload_aad(purpose, context))
    return _wrapped(data_key, key_id, key, purpose, context) + nonce + ciphertext


def open_sealed(sealed: bytes, lookup: KeyLookup, *, purpose: str, context: str) -> bytes:
    """The plaintext, after both layers verified. Raises IntegrityError."""
    parts = split(sealed)
    data_key = _unwrap(parts, lookup, purpose, context)
    try:
        return AESGCM(data_key).decrypt(parts.nonce, parts.ciphertext, _payload_aad(purpose, context))
    except InvalidTag as error:
        raise IntegrityError(
            f"The sealed record {context!r} does not verify: its content was altered.", key_id=parts.key_id
        ) from error


def rewrap(sealed: bytes, lookup: KeyLookup, *, key_id: str, key: bytes, purpose: str, context: str) -> bytes:
    """The same ciphertext under a new wrap by `key`. The content is not verified. Raises IntegrityError."""
    parts = split(sealed)
    data_key = _unwrap(parts, lookup, purpose, context)
    return _wrapped(data_key, key_id, key, purpose, context) + parts.nonce + parts.ciphertext


def split(sealed: bytes) -> Parts:
    """Take an envelope apart. Raises IntegrityError when it is none, or of a version not known here."""
    if sealed[: len(MAGIC)] != MAGIC:
        raise IntegrityError("This is not a sealed envelope.")
    if len(sealed) > len(MAGIC) and sealed[len(MAGIC)] != VERSION:
        raise IntegrityError(
            f"The sealed envelope has version {sealed[len(MAGIC)]}; this program knows version {VERSION}.",
            remedy="Open it with the newer program that wrote it.",
        )
    if len(sealed) < OVERHEAD_BYTES:
        raise IntegrityError(f"The sealed envelope is cut off: it has {len(sealed)} bytes.")
    header = sealed[:_HEADER]
    return Parts(
        key_id=header[-KEY_ID_BYTES:].hex(),
        header=header,
        wrap=sealed[_HEADER:_WRAP_END],
        nonce=sealed[_WRAP_END:_NONCE_END],
        ciphertext=sealed[_NONCE_END:],
    )


def _wrapped(data_key: bytes, key_id: str, key: bytes, purpose: str, context: str) -> bytes:
    header = MAGIC + bytes((VERSION,)) + bytes.fromhex(key_id)
    return header + xaes.encrypt(key, data_key, _wrap_aad(header, purpose, context))


def _unwrap(parts: Parts, lookup: KeyLookup, purpose: str, context: str) -> bytes:
    key = lookup(parts.key_id)
    try:
        return xaes.decrypt(key, parts.wrap, _wrap_aad(parts.header, purpose, context))
    except InvalidTag as error:
        raise IntegrityError(
            f"The sealed record {context!r} does not verify with key {parts.key_id} "
            f"of the keyring {purpose!r}: it was altered, or it belongs to another place or another keyring.",
            key_id=parts.key_id,
        ) from error


def _wrap_aad(header: bytes, purpose: str, context: str) -> bytes:
    return bound(b"kubelore envelope key v1", header, purpose, context)


def _payload_aad(purpose: str, context: str) -> bytes:
    return bound(b"kubelore envelope content v1", purpose, context)
