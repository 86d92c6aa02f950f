"""A key-value bucket by compare-and-set: every write names the revision it replaces.

nats-py's own bucket can neither renew a key with a time to live nor re-create
one that the server expired (it does not know the server's markers), hence this
thin one over the same streams; `nats kv` reads them alike.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from kubelore.common.bus import wire
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.streams import bucket_stream
from kubelore.common.errors import BadRequest, Conflict

_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*\Z")
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest value of a key; None when it was deleted or has expired."""

    revision: int
    value: bytes | None


class Bucket:
    """One bucket of the bus."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self.stream = bucket_stream(name)
        self.prefix = f"$KV.{name}."

    def subject(self, key: str) -> str:
        """The subject of a key; raises BadRequest for one that NATS could take for a pattern."""
        if not _KEY.match(key):
            raise BadRequest(f"{key[:80]!r} is no key")
        return self.prefix + key

    async def get(self, key: str) -> Entry:
        """The newest entry, read from the stream's leader; revision 0 when the key never was."""
        try:
            reply = await self._bus.jetstream(
                f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self.subject(key)}
            )
        except wire.JetStreamRefused as error:
            if error.code != wire.MESSAGE_NOT_FOUND:
                raise
            return Entry(0, None)
        message = reply["message"]
        headers = base64.b64decode(message.get("hdrs", ""))
        gone = b"KV-Operation:" in headers or b"Nats-Marker-Reason:" in headers
        return Entry(message["seq"], None if gone else base64.b64decode(message.get("data", "")))

    async def put(
        self, key: str, value: bytes, *, expected: int, ttl_s: int | None = None, deadline_s: float = 5.0
    ) -> int:
        """Write over revision `expected` (0: the key is not there); returns the new revision.

        Raises Conflict when the newest revision is another one. `ttl_s` (whole
        seconds) lets the server remove the key when it is not written again.
        """
        headers = {_EXPECTED: str(expected)}
        if ttl_s is not None:
            headers["Nats-TTL"] = f"{ttl_s}s"
        try:
            return await self._bus.store(self.subject(key), value, headers, deadline_s=deadline_s)
        except wire.JetStreamRefused as error:
            if error.code in wire.WRONG_LAST_SEQUENCE:
                raise Conflict(f"{key}: written by another") from error
            raise

    async def delete(self, key: str, *, expected: int) -> None:
        """Delete revision `expected`; raises Conflict when the newest is another. Its mark lasts 5 s."""
        headers = {_EXPECTED: str(expected), "KV-Operation": "DEL", "Nats-TTL": "5s"}
        try:
            await self._bus.store(self.subject(key), b"", headers)
        except wire.JetStreamRefused as error:
            if error.code in wire.WRONG_LAST_SEQUENCE:
                raise Conflict(f"{key}: written by another") from error
            raise
