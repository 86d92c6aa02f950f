"""Keys of blobs: safe as an S3 object name and as a path in a folder, and the same on both."""

from __future__ import annotations

import hashlib
import re

from kubelore.common.errors import BadRequest

MAX_KEY_BYTES = 900
MAX_SEGMENT_BYTES = 200

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
_SEGMENT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]{0,199}")


def blob_key(*parts: str) -> str:
    """A key from any texts, one segment each, whatever they hold; different texts give different keys.

    A byte that is no letter, digit, `_`, `-` or inner `.` becomes `=` and two
    hex digits. A segment that grows too long ends in its hash instead.
    """
    return checked_key("/".join(_segment(part) for part in parts))


def checked_key(key: str) -> str:
    """The key, when it is one: segments of letters, digits and `_-.=` that do not begin with a dot.

    Raises BadRequest; that covers `..`, a leading `/`, empty segments, NUL and everything encoded.
    """
    if len(key) > MAX_KEY_BYTES or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise BadRequest(f"{key[:80]!r} cannot be the key of a blob.")
    return key


def _segment(text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    encoded = "".join(
        chr(byte) if byte in _PLAIN and not (byte == 0x2E and index == 0) else f"={byte:02X}"
        for index, byte in enumerate(raw)
    )
    if len(encoded) > MAX_SEGMENT_BYTES:
        # `==` comes from no encoding, so this clashes with no short text.
        return f"{encoded[:140]}=={hashlib.sha256(raw).hexdigest()[:40]}"
    return encoded or "="
