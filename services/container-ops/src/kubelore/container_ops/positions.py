"""Where a stream of many logs is: one cursor for each, in a text that fits into the header Last-Event-ID. Pure.

About 36 characters for each container, so that a thousand of them stay below
the 64 KB that a request's head may have. It opens nothing: whoever changes it
asks for other lines of what they may read anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

import msgspec

from kubelore.common.errors import BadRequest
from kubelore.container_ops.lines import Cursor

MAX_CONTAINERS = 1000
"""Containers of one stream."""
_MAX_TEXT = 64 * 1024
_VERSION = 1


class Positions(msgspec.Struct, array_like=True, frozen=True):
    """`since` is what the stream began with (ns since 1970, 0: everything there is).

    `cursors` are by `place_of` the container; None is one that was not opened yet.
    """

    version: int
    since: int
    cursors: dict[bytes, Cursor | None]


def place_of(cluster: str, pod_uid: str, container: str) -> bytes:
    """Eight bytes that stand for a container among the thousand of a stream."""
    return hashlib.blake2b(f"{cluster}/{pod_uid}/{container}".encode(), digest_size=8).digest()


def write_positions(since: int, cursors: Mapping[bytes, Cursor | None]) -> str:
    """The text of an event's id."""
    plain = msgspec.msgpack.encode(Positions(_VERSION, since, dict(cursors)))
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def read_positions(text: str) -> Positions:
    """What `write_positions` wrote. Raises BadRequest."""
    try:
        if len(text) > _MAX_TEXT:
            raise ValueError
        plain = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        found = msgspec.msgpack.decode(plain, type=Positions)
        if found.version != _VERSION or len(found.cursors) > 2 * MAX_CONTAINERS or found.since < 0:
            raise ValueError
        for cursor in found.cursors.values():
            # What cannot be a time cannot be asked for.
            if cursor is not None and not (
                0 <= cursor.at < 1 << 63 and cursor.count >= 0 and cursor.run >= 0
            ):
                raise ValueError
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadRequest(
            "that is no position in a stream of logs",
            remedy="Send the id of the last event as it came, or none to begin anew.",
        ) from error
    return found
