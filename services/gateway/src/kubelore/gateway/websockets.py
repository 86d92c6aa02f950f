"""WebSockets as the gateway takes them: who may open one, how much it may send, and when it ends.

A token comes in the Authorization header or, from a browser that can set none,
as a subprotocol, as Kubernetes has it; never in the URL. What is refused is
refused before the handshake, with a problem document. An accepted socket ends
when its caller's credential no longer stands, and when its peer reads nothing
for a minute; the reason is in its close frame (docs/decisions/0110).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from kubelore.common.errors import BadRequest, KubeloreError
from kubelore.common.mandates import ended_by
from kubelore.common.telemetry import get_logger
from kubelore.gateway.event_stream import STALLED_S, Slots
from kubelore.gateway.standing import Standing

log = get_logger(__name__)

BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
"""A subprotocol that begins so carries the token, encoded as base64url without padding."""
MAX_MESSAGE = 1024 * 1024
"""Bytes of a message that a client may send; a longer paste comes in several."""
MAX_FRAGMENTS = 1024
MAX_UNSENT = 1024 * 1024
"""Bytes of answers to pings that a client may leave unread."""
PING_EVERY_S = 20.0

NORMAL, GOING_AWAY, ABNORMAL, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1000, 1001, 1006, 1008, 1009, 1011
TRY_AGAIN = 1013
_UNREADABLE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_CODES = {400: POLICY_VIOLATION, 401: POLICY_VIOLATION, 403: POLICY_VIOLATION, 404: POLICY_VIOLATION}
_CODES |= {429: TRY_AGAIN, 503: TRY_AGAIN, 504: TRY_AGAIN}
_MAX_REASON = 123
"""Bytes of a reason that fit into a close frame (RFC 6455, 5.5)."""


class SocketClosed(Exception):
    """The peer is gone, or reads no more. `code` is its word for why; 1006 for none."""

    def __init__(self, code: int = ABNORMAL) -> None:
        super().__init__(code)
        self.code = code


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's own protocol, which bounds what `max_size` does not: empty fragments, and pings never read."""

    def data_received(self, data: bytes) -> None:
        """Bytes of a handshake or of frames; a handshake that cannot be read is answered, and over."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            answer = b"".join(self.conn.data_to_send())
            self.transport.write(answer or _UNREADABLE)
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """A message of the application; a refusal that is out is a handshake that is over."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def handle_cont(self, event: Frame) -> None:
        """One more fragment of a message."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(TOO_BIG, "a message in too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer a ping, unless the answers to those before pile up."""
        if self.transport.get_write_buffer_size() > MAX_UNSENT:
            self.transport.abort()
            return
        super().handle_ping()


def options() -> dict[str, Any]:
    """What uvicorn's configuration says of WebSockets. Without compression: it costs memory and tells lengths."""
    return {
        "ws": BoundedWebSocket,
        "ws_max_size": MAX_MESSAGE,
        "ws_per_message_deflate": False,
        "ws_ping_interval": PING_EVERY_S,
        "ws_ping_timeout": PING_EVERY_S,
    }


def take_token(scope: Scope) -> str | None:
    """The token among the subprotocols that a client offers, which is taken out of them; None for none.

    Raises BadRequest for one that cannot be read, and for two.
    """
    offered: list[str] = scope.get("subprotocols", [])
    tokens = [one for one in offered if one.startswith(BEARER_PROTOCOL)]
    if not tokens:
        return None
    scope["subprotocols"] = [one for one in offered if one not in tokens]
    encoded = tokens[0].removeprefix(BEARER_PROTOCOL)
    try:
        if len(tokens) > 1:
            raise ValueError
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        # Not chained: the error may quote what it could not decode.
        raise BadRequest(
            "the subprotocol that carries the token cannot be read",
            remedy=f"Offer {BEARER_PROTOCOL}<the token as base64url without padding> once.",
        ) from None


class Socket:
    """An accepted WebSocket, made by `accepted`."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.protocol = ""
        """The subprotocol that was agreed on; empty for none."""

    async def receive(self) -> bytes | str:
        """The next message of the client. Raises SocketClosed."""
        message = await self._websocket.receive()
        if message["type"] != "websocket.receive":
            raise SocketClosed(message.get("code", ABNORMAL))
        data = message.get("bytes")
        return data if data is not None else message.get("text") or ""

    async def send(self, message: bytes | str) -> None:
        """Send a message; returns when the client has room for more.

        Raises SocketClosed when the client is gone, or has read nothing for a minute.
        """
        try:
            async with asyncio.timeout(STALLED_S):
                if isinstance(message, str):
                    await self._websocket.send_text(message)
                else:
                    await self._websocket.send_bytes(message)
        except TimeoutError as error:
            log.info("a client reads no more", after_s=STALLED_S)
            raise SocketClosed from error
        except (WebSocketDisconnect, RuntimeError) as error:
            raise SocketClosed from error

    async def close(self, code: int, reason: str = "") -> None:
        """Say that nothing follows, and why."""
        said = reason.encode()[:_MAX_REASON].decode(errors="ignore")
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(1.0):
                await self._websocket.close(code, said)


@asynccontextmanager
async def accepted(
    websocket: WebSocket,
    standing: Standing,
    slots: Slots,
    protocols: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[Socket]:
    """Accept a WebSocket for as long as the block runs; a typed error in it is told in the close frame.

    The client must offer one of `protocols`, the first of which it prefers is
    taken; with none, it need not offer any. `headers` go out with the handshake.
    Raises BadRequest and TooManyRequests before it accepts. The block is
    cancelled when the credential no longer stands.
    """
    protocol = agreed(websocket, protocols)
    with slots.take(standing.caller.subject):
        said = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        await websocket.accept(protocol or None, said)
        socket = Socket(websocket)
        socket.protocol = protocol
        try:
            async with ended_by(asyncio.create_task(standing.lapse())):
                yield socket
        except SocketClosed:
            await socket.close(GOING_AWAY)
        except KubeloreError as error:
            log.info("websocket ended", reason=error.reason, detail=error.detail)
            await socket.close(
                _CODES.get(error.status, INTERNAL_ERROR), f"{error.reason}: {_sentence(error)}"
            )
        except Exception as error:
            error_id = secrets.token_hex(8)
            log.error("unexpected error", error_id=error_id, exc_info=error)
            await socket.close(INTERNAL_ERROR, f"unexpected error {error_id}")
        else:
            await socket.close(NORMAL)


def agreed(websocket: WebSocket, known: Sequence[str]) -> str:
    """The subprotocol that a client offers first of those that are known, if any are. Raises BadRequest."""
    if not known:
        return ""
    for one in websocket.scope["subprotocols"]:
        if one in known:
            return one
    raise BadRequest(
        "none of the subprotocols that are offered is spoken here",
        remedy=f"Offer {' or '.join(known)} in Sec-WebSocket-Protocol.",
    )


def _sentence(error: KubeloreError) -> str:
    return f"{error.detail}. {error.remedy}" if error.remedy else error.detail
