"""What a keyring file holds, and how it changes: plain values, no files."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kubelore.common.crypto.files import KeyringError
from kubelore.common.errors import Conflict, NotFound

FORMAT = "kubelore-keyring"
VERSION = 1

_PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,31}")


class _Secretive(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A structure whose repr shows nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Key(_Secretive, frozen=True):
    """One key. `active` seals and opens, `retired` opens, `removed` is only remembered by its id.

    The id is derived from the secret, so that a damaged key is found when the file is read.
    """

    id: str
    state: Literal["active", "retired", "removed"]
    created_at: str
    retired_at: str = ""
    removed_at: str = ""
    secret: bytes = b""


class Pair(_Secretive, frozen=True):
    """The X25519 pair that boxes are sealed to; rotations leave it, as its public half is known elsewhere."""

    created_at: str
    private_key: bytes


class Content(_Secretive, frozen=True):
    """The whole file. `hmac_secret` outlives rotations, so that equal values stay comparable."""

    purpose: str
    keys: tuple[Key, ...]
    recipient: Pair
    hmac_secret: bytes
    format: str = ""
    version: int = 0

    @property
    def active(self) -> Key:
        """The one key that seals."""
        return next(key for key in self.keys if key.state == "active")

    def find(self, key_id: str) -> Key | None:
        """The key with that id, in whatever state."""
        return next((key for key in self.keys if key.id == key_id), None)


def key_id_of(secret: bytes) -> str:
    """Eight bytes, in hex, that name a key and tell nothing about it."""
    return hmac.digest(secret, b"kubelore key id v1", hashlib.sha256)[:8].hex()


def fresh(purpose: str, now: str) -> Content:
    """A new keyring with one active key. Raises ValueError on a purpose that is no name."""
    if not _PURPOSE.fullmatch(purpose):
        raise ValueError(f"a purpose is a short lower-case name, not {purpose!r}")
    pair = Pair(created_at=now, private_key=X25519PrivateKey.generate().private_bytes_raw())
    return Content(
        purpose=purpose,
        keys=(_new_key(now),),
        recipient=pair,
        hmac_secret=os.urandom(32),
        format=FORMAT,
        version=VERSION,
    )


def rotated(content: Content, now: str) -> Content:
    """The same keyring with a new active key; the one before is retired."""
    older = tuple(
        msgspec.structs.replace(key, state="retired", retired_at=now) if key.state == "active" else key
        for key in content.keys
    )
    return msgspec.structs.replace(content, keys=(*older, _new_key(now)))


def without(content: Content, key_id: str, now: str) -> Content:
    """The same keyring with a retired key's secret gone. Raises NotFound, or Conflict for the active key."""
    found = content.find(key_id)
    if found is None or found.state == "removed":
        raise NotFound(f"The keyring {content.purpose!r} holds no key {key_id}.")
    if found.state == "active":
        raise Conflict(f"Key {key_id} is the active one.", remedy="Rotate first, then rewrap what it sealed.")
    gone = msgspec.structs.replace(found, state="removed", removed_at=now, secret=b"")
    return msgspec.structs.replace(content, keys=tuple(gone if key is found else key for key in content.keys))


def encode(content: Content) -> bytes:
    """The file's bytes: JSON, binary values in base64."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def decode(raw: bytes, origin: str) -> Content:
    """The keyring in a file's bytes; `origin` is named in the KeyringError when they hold none."""
    try:
        content = msgspec.json.decode(raw, type=Content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unusable(origin, "it is damaged, or not a keyring") from error
    if content.format != FORMAT:
        raise _unusable(origin, "it is not a keyring")
    if content.version != VERSION:
        raise _unusable(origin, f"it has version {content.version}, and this program knows version {VERSION}")
    if not _PURPOSE.fullmatch(content.purpose):
        raise _unusable(origin, "its purpose is not a name")
    if [key.state for key in content.keys].count("active") != 1:
        raise _unusable(origin, "it must have exactly one active key")
    for key in content.keys:
        if key.state != "removed" and (len(key.secret) != 32 or key_id_of(key.secret) != key.id):
            raise _unusable(origin, f"its key {key.id[:16]!r} is damaged")
    if len(content.recipient.private_key) != 32 or len(content.hmac_secret) != 32:
        raise _unusable(origin, "one of its secrets has the wrong length")
    return content


def encode_public(public_key: bytes) -> bytes:
    """What the `.pub` file beside the keyring holds: base64 and a newline."""
    return base64.b64encode(public_key) + b"\n"


def _new_key(now: str) -> Key:
    secret = os.urandom(32)
    return Key(id=key_id_of(secret), state="active", created_at=now, secret=secret)


def _unusable(origin: str, why: str) -> KeyringError:
    return KeyringError(
        f"The keyring {origin} cannot be used: {why}.",
        remedy="Bring it back from your backup of the keyrings.",
    )
