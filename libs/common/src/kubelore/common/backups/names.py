"""The files of a backup, and the ids of backups."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from kubelore.common.errors import BadRequest

MANIFEST = "manifest"
MAX_CHUNKS = 99_999_999

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{6,61})[a-z0-9]\Z")
_KEY = re.compile(r"key-[0-9a-f]{16}\Z")
_CHUNK = re.compile(r"chunks/([0-9]{8})\Z")


def fresh_id(now: float) -> str:
    """A new id: the time in UTC, to sort and to say aloud, and 48 random bits."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


def checked_id(backup_id: str) -> str:
    """The id, when it is one. Raises BadRequest."""
    if not _ID.match(backup_id):
        raise BadRequest(f"{backup_id[:64]!r} is not the id of a backup")
    return backup_id


def key_name(key_id: str) -> str:
    """The file that holds the data key, wrapped with a key of the keyring."""
    return f"key-{key_id}"


def key_id(name: str) -> str:
    """The id of the key that a file of `key_name` is wrapped with."""
    return name.removeprefix("key-")


def chunk_name(number: int) -> str:
    """The file of a chunk."""
    return f"chunks/{number:08d}"


def is_key(name: str) -> bool:
    """Whether a file holds a wrapped data key."""
    return _KEY.match(name) is not None


def is_chunk(name: str) -> bool:
    """Whether a file is a chunk."""
    return _CHUNK.match(name) is not None


def is_ours(name: str) -> bool:
    """Whether a backup may hold a file of this name."""
    return name == MANIFEST or is_key(name) or is_chunk(name)
