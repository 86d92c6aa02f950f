"""Paths as text and as bytes. Pure.

A path that is not UTF-8 is written `base64:` and its bytes in base64, which no
absolute path begins with.
"""

from __future__ import annotations

import base64
import binascii
import posixpath

from kubelore.common.contracts.files import MAX_PATH
from kubelore.common.errors import BadRequest

FOREIGN = "base64:"
_MAX_NAME = 255


def path_bytes(text: str) -> bytes:
    """The bytes of an absolute path, without needless slashes. Raises BadRequest for what is no such path."""
    if text.startswith(FOREIGN):
        try:
            raw = base64.b64decode(text[len(FOREIGN) :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(
                f"{text[:80]!r} is no base64", remedy="Send a `path` of an answer as it is."
            ) from error
    else:
        raw = text.encode(errors="surrogatepass")
    if not raw.startswith(b"/"):
        raise BadRequest(f"{text[:80]!r} is no absolute path", remedy="Begin it with a slash.")
    if b"\0" in raw:
        raise BadRequest("a path has no NUL in it", remedy="No file's name can have one.")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if len(raw) > MAX_PATH or any(len(part) > _MAX_NAME for part in parts):
        raise BadRequest(
            f"a path has at most {MAX_PATH} bytes, and {_MAX_NAME} between slashes",
            remedy="Linux has no longer ones.",
        )
    return b"/" + b"/".join(parts)


def path_text(raw: bytes) -> str:
    """A path as `path_bytes` reads it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return FOREIGN + base64.b64encode(raw).decode()


def shown(raw: bytes) -> str:
    """A name for people: what is no UTF-8 as `\\xNN`."""
    return raw.decode(errors="backslashreplace")


def is_root(raw: bytes) -> bool:
    """Whether a path leads to the root directory by its words alone."""
    return posixpath.normpath(raw).strip(b"/") == b""
