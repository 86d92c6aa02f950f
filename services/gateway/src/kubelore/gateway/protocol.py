"""HTTP/1.1 connections whose heads are bounded, in size and in time.

httptools takes a head of any length, and uvicorn waits for its end for ever:
anybody who can connect could fill the memory, or hold every connection, without
a token. Nor does uvicorn end a connection on which bytes come after an answer
that are no request, and it takes the trailers of a body for headers, of which
httptools keeps even one in the making. Bodies are bounded elsewhere (`limits`),
where the caller is known.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kubelore.gateway.problems import status_problem

MAX_HEAD_BYTES = 64 * 1024
HEAD_DEADLINE_S = 15.0


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's own protocol, which closes a connection whose head is too long or too late."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_bytes = 0
        self._head_open = True
        self._beside_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A connection: its first head is due."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        self._head_done()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_done()
        self._beside_bytes = 0
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. Those behind a body are dropped: whoever reads headers has read them by then."""
        if self._head_open:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._beside_bytes = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, a body, or both, or of what is neither: trailers and the like."""
        self._beside_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.transport.get_protocol() is not self:
            # It is a WebSocket's now.
            self._head_done()
        elif self._head_open:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too long"
                )
        elif self._beside_bytes > MAX_HEAD_BYTES:
            # Not refused in words: an answer may be on its way.
            self.transport.close()
        elif self._timer is None and self.cycle.response_complete:
            # A body that nobody reads, and for which uvicorn has ended its timer of idle connections.
            self._timer = self.loop.call_later(HEAD_DEADLINE_S, self.transport.close)

    def _expect_head(self) -> None:
        self._head_done()
        self._head_open, self._head_bytes = True, 0
        self._timer = self.loop.call_later(
            HEAD_DEADLINE_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, "the head of the request is too late"
        )

    def _head_done(self) -> None:
        self._head_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is told as every other error is."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._head_done()
        if self.transport.is_closing():
            return
        answer = status_problem(status, detail)
        head = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), b"connection: close"]
        head += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + bytes(answer.body))
        self.transport.close()
