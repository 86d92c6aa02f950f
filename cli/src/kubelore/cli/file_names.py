"""File names for what Kubernetes lets be longer: an object's name may have 253 characters, a file's 255 bytes in all."""

from __future__ import annotations

import hashlib

MAX_FILE_NAME = 255
"""Bytes of a file's name that file systems take."""


def file_name(encoded: str, ending: str = "") -> str:
    """A name with its ending; one that is too long is cut, and told from others by a hash of all of it."""
    if len(encoded) + len(ending) > MAX_FILE_NAME:
        digest = hashlib.sha256(encoded.encode()).hexdigest()[:32]
        encoded = f"{encoded[: MAX_FILE_NAME - len(digest) - len(ending) - 1]}~{digest}"
    return encoded + ending
