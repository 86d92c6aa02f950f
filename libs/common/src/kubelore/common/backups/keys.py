"""The data key of a backup: drawn once, wrapped by the keyring, and never used as it is."""

from __future__ import annotations

import os
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kubelore.common.backups.faults import FormatUnknown, KeyRefused, KeyUnknown
from kubelore.common.crypto import Keyring, envelope
from kubelore.common.crypto.context import bound
from kubelore.common.errors import IntegrityError

PURPOSE = "versions"
"""The keyring that wraps the data keys of backups."""
DATA_KEY_BYTES = 32


class DataKeys(NamedTuple):
    """The two ciphers that a backup's data key gives, one for each use."""

    chunks: AESGCM
    manifest: AESGCM


def wrapped_context(backup_id: str) -> str:
    """Where a wrapped data key lies."""
    return f"backup/{backup_id}"


def drawn() -> bytes:
    """A fresh data key."""
    return os.urandom(DATA_KEY_BYTES)


def derived(data_key: bytes, backup_id: str) -> DataKeys:
    """The ciphers of a backup; another id gives others."""

    def cipher(label: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=bound(label, backup_id)).derive(data_key))

    return DataKeys(cipher(b"kubelore backup chunks v1"), cipher(b"kubelore backup manifest v1"))


def wrapped(data_key: bytes, backup_id: str, keyring: Keyring) -> tuple[str, bytes]:
    """The id of the key that wraps, and the wrapped data key."""
    sealed = keyring.seal(data_key, context=wrapped_context(backup_id))
    return envelope.split(sealed).key_id, sealed


def unwrapped(sealed: bytes, backup_id: str, keyring: Keyring) -> bytes:
    """The data key of a backup. Raises KeyUnknown, KeyRefused, FormatUnknown."""
    if sealed[: len(envelope.MAGIC)] == envelope.MAGIC and sealed[len(envelope.MAGIC) :][:1] != b"\x01":
        raise FormatUnknown(
            "The data key of the backup is wrapped in a way that this program does not know.",
            remedy="Read the backup with the newer program that wrote it.",
        )
    try:
        data_key = keyring.open(sealed, context=wrapped_context(backup_id))
    except IntegrityError as error:
        raise _refusal(error, backup_id, keyring) from error
    if len(data_key) != DATA_KEY_BYTES:
        raise KeyRefused(f"The data key of the backup {backup_id} is none.")
    return data_key


def rewrapped(sealed: bytes, backup_id: str, keyring: Keyring) -> tuple[str, bytes]:
    """The same data key, wrapped with the keyring's active key; what it sealed stays as it is.

    It goes into a file of its own (`names.key_name`), and the file before it may
    be removed then. Raises KeyUnknown, KeyRefused, FormatUnknown.
    """
    return wrapped(unwrapped(sealed, backup_id, keyring), backup_id, keyring)


def _refusal(error: IntegrityError, backup_id: str, keyring: Keyring) -> KeyUnknown | KeyRefused:
    key_id = str(error.extra.get("key_id", ""))
    held = {key.id for key in keyring.keys if key.state != "removed"}
    if key_id and key_id not in held:
        return KeyUnknown(error.detail, remedy=error.remedy, key_id=key_id)
    return KeyRefused(
        f"The data key of the backup {backup_id} does not verify: altered, or another backup's.",
        remedy="Bring the backup's files back from another copy.",
    )
