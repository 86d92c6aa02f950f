"""The content of an upload as it comes: the raw body or the file of a form, in frames, with what was said of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from fastapi import Request

from kubelore.common.contracts.transfers import CONTENT, FRAME_BYTES, Account
from kubelore.common.errors import BadRequest
from kubelore.gateway.form_data import FilePart

TRAILER_BYTES = 64
_HASH = re.compile(rb"[0-9a-f]{64}")


class UploadBody:
    """The body of one request. With `trailer` its last 64 bytes are the hash of those before them."""

    def __init__(self, request: Request, *, sha256: str, trailer: bool) -> None:
        content_type = request.headers.get("content-type", "")
        self._form = FilePart(content_type) if content_type.startswith("multipart/form-data") else None
        self._chunks = request.stream()
        self._trailer = trailer
        self._sha256 = sha256
        self._size = 0
        self._held = bytearray()

    async def name(self) -> str:
        """The name that a form gives its file; empty for a raw body. Raises BadRequest."""
        if self._form is None:
            return ""
        async for chunk in self._chunks:
            self._held += self._form.feed(chunk)
            if self._form.begun:
                return self._form.name
        self._form.finish()
        return self._form.name

    async def frames(self) -> AsyncIterator[bytes]:
        """The content, each frame with its first byte. Raises BadRequest when a form breaks off."""
        kept = TRAILER_BYTES if self._trailer else 0
        room = FRAME_BYTES - len(CONTENT)
        held, self._held = self._held, bytearray()
        async for chunk in self._chunks:
            held += chunk if self._form is None else self._form.feed(chunk)
            while len(held) >= room + kept:
                self._size += room
                yield CONTENT + held[:room]
                del held[:room]
        if self._form is not None:
            self._form.finish()
        if self._trailer:
            self._sha256 = _hash_of(bytes(held[-kept:]))
            del held[-kept:]
        if held:
            self._size += len(held)
            yield CONTENT + bytes(held)

    def account(self) -> Account:
        """What was sent, once all of it was."""
        return Account(size=self._size, sha256=self._sha256)


def _hash_of(trailer: bytes) -> str:
    if not _HASH.fullmatch(trailer):
        raise BadRequest("the body does not end with the SHA-256 that `trailer` announces, in hexadecimal")
    return trailer.decode()
