"""Streams of bytes between two parties on the bus, with flow control by credit.

The receiver says up to which frame the sender may go; a slow receiver slows
its own stream and nothing else, and neither side ever holds more than the
window (8 frames of 64 KB). Frames are numbered: one that is missing ends the
session with an error, never with a short file. Whoever stops early says so and
the other side stops working.

Frame: one byte kind, eight bytes number (big endian), payload. Numbers count
DATA and END; CREDIT carries the number of the first frame that may not be sent
yet, so that a lost credit is mended by the next.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Self

from nats.aio.msg import Msg

from kubelore.common.bus import wire
from kubelore.common.contracts.permissions import session_root
from kubelore.common.errors import BadRequest, IntegrityError, KubeloreError, TooLarge, Unavailable
from kubelore.common.telemetry import get_logger

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

    from kubelore.common.bus.connection import Bus

log = get_logger(__name__)

FRAME_BYTES = 64 * 1024
"""What a terminal's frames are limited to, so that a keystroke waits behind little."""
REPLY_FRAME_BYTES = 512 * 1024
"""A large reply has nothing to be interleaved with; 10,000 whole pods took 310 ms instead of 550."""
WINDOW = 8
LISTENS_S = 10.0
"""How long an error waits for the other side to listen."""
IDLE_S = 30.0
"""A peer that said nothing for so long is gone; both sides repeat their credit every third of it."""

_ID = re.compile(r"[-a-z0-9]+\.[-a-z0-9]+\.[0-9a-f]{32}\Z")
_HEAD = struct.Struct(">BQ")
_DATA, _END, _CREDIT, _ERROR, _CANCEL = range(5)


class SessionEnded(Unavailable):
    """The other side stopped, went silent, or a frame got lost."""

    reason = "SessionEnded"


def new_session_id(server: str, client: str) -> str:
    """An id nobody can guess, behind the names of both services: the bus lets no third one listen."""
    return f"{server}.{client}.{secrets.token_hex(16)}"


class Session:
    """One side of a session; `server` is whoever made the id. Use as an async context manager.

    Raises BadRequest for what is no id.

    `send` waits for credit; iterating yields what the other side sent until it
    finished. Leaving the context before both ends are through cancels the rest.
    """

    def __init__(
        self,
        bus: Bus,
        session: str,
        side: Literal["server", "client"],
        *,
        idle_s: float = IDLE_S,
        frame_bytes: int = FRAME_BYTES,
    ) -> None:
        self.id = session
        self._frame_bytes = frame_bytes
        self._bus = bus
        if not _ID.match(session):
            raise BadRequest("that is no id of a session")
        server, client, secret = session.split(".")
        subject = f"{session_root(server, client)}.{secret}"
        self._outgoing = f"{subject}.{'out' if side == 'server' else 'in'}"
        self._incoming = f"{subject}.{'in' if side == 'server' else 'out'}"
        self._idle_s = idle_s
        self._subscription: Subscription | None = None
        self._keepalive: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._frames: deque[bytes] = deque()
        self._expected = 0
        self._consumed = 0
        self._granted = 0
        self._sent = 0
        self._allowed = 0
        self._peer_finished = False
        self._finished = False
        self._failure: KubeloreError | None = None
        self._heard_at = asyncio.get_running_loop().time()

    async def __aenter__(self) -> Self:
        self._subscription = await self._bus.client.subscribe(
            self._incoming,
            cb=self._on_frame,
            pending_msgs_limit=64,
            pending_bytes_limit=4 * WINDOW * self._frame_bytes,
        )
        await self._grant()
        self._keepalive = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
        with suppress(KubeloreError):
            if not (self._peer_finished or self._failure) or not (self._finished or self._sent == 0):
                await self._frame(_CANCEL, 0)
        if self._subscription is not None:
            with suppress(Exception):
                await self._subscription.unsubscribe()

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes of any length in order; raises SessionEnded when the other side has stopped."""
        view = memoryview(data)
        for start in range(0, len(view), self._frame_bytes):
            await self._wait(lambda: self._sent < self._allowed)
            await self._frame(_DATA, self._sent, view[start : start + self._frame_bytes])
            self._sent += 1

    async def finish(self) -> None:
        """Say that nothing follows, so that the other side's iteration ends. Raises SessionEnded."""
        if not self._allowed:
            await self._wait(lambda: self._allowed > 0)
        self._finished = True
        await self._frame(_END, self._sent)

    async def fail(self, error: KubeloreError) -> None:
        """End the session with an error, which the other side's iteration raises."""
        with suppress(KubeloreError, TimeoutError):
            # Said to nobody it would be lost, and the other side, once there, would wait for a frame.
            async with asyncio.timeout(LISTENS_S):
                await self._wait(lambda: self._allowed > 0)
        self._failure = self._failure or error
        await self._frame(_ERROR, self._sent, wire.error_body(error))

    async def until_peer_done(self) -> None:
        """Wait until the other side has finished or cancelled; what it sends meanwhile is dropped."""
        with suppress(SessionEnded):
            async for _ in self:
                pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await self._wait(lambda: bool(self._frames) or self._peer_finished)
            if not self._frames:
                return
            frame = self._frames.popleft()
            self._consumed += 1
            if self._granted - self._consumed <= WINDOW // 2:
                await self._grant()
            yield frame

    async def _wait(self, ready: object) -> None:
        assert callable(ready)
        while True:
            if self._failure is not None and not self._frames:
                raise self._failure
            if ready():
                return
            self._changed.clear()
            await self._changed.wait()

    async def _grant(self) -> None:
        self._granted = self._consumed + WINDOW
        await self._frame(_CREDIT, self._granted)

    async def _frame(self, kind: int, number: int, payload: bytes | memoryview = b"") -> None:
        await self._bus.send(self._outgoing, b"".join((_HEAD.pack(kind, number), payload)))

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._idle_s / 3)
            if loop.time() - self._heard_at > self._idle_s:
                self._end(SessionEnded(f"session {self.id[-8:]}: the other side went silent"))
                return
            with suppress(KubeloreError):
                await self._frame(_CREDIT, self._granted)

    async def _on_frame(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if len(message.data) < _HEAD.size:
            self._end(SessionEnded(f"session {self.id[-8:]}: malformed frame"))
            return
        kind, number = _HEAD.unpack_from(message.data)
        if kind == _CREDIT:
            first = self._allowed == 0
            self._allowed = max(self._allowed, number)
            if first:
                # The peer's credit may have been sent before this side listened, and ours before that.
                with suppress(KubeloreError):
                    await self._frame(_CREDIT, self._granted)
        elif kind == _CANCEL:
            self._end(SessionEnded(f"session {self.id[-8:]}: cancelled by the other side"))
        elif kind == _ERROR:
            body = message.data[_HEAD.size :]
            self._end(
                wire.error_of_reply({wire.ERROR: "session failed"}, body) or SessionEnded("session failed")
            )
        else:
            self._on_numbered(kind, number, message.data)
        self._changed.set()

    def _on_numbered(self, kind: int, number: int, data: bytes) -> None:
        if number != self._expected:
            self._end(
                SessionEnded(f"session {self.id[-8:]}: frame {self._expected} is missing, {number} came")
            )
        elif kind == _END:
            self._expected += 1
            self._peer_finished = True
        elif number >= self._granted:
            self._end(SessionEnded(f"session {self.id[-8:]}: the other side sent beyond its credit"))
        else:
            self._expected += 1
            self._frames.append(data[_HEAD.size :])

    def _end(self, failure: KubeloreError) -> None:
        if self._failure is None and not (self._peer_finished and self._finished):
            self._failure = failure
        self._changed.set()


async def send_reply(session: Session, data: bytes) -> None:
    """The sending half of a reply too large for one message; returns when it was taken or given up."""
    await session.send(data)
    await session.finish()
    await session.until_peer_done()


async def receive_reply(bus: Bus, session: str, size: int) -> bytes:
    """The receiving half; raises IntegrityError when other than `size` bytes came."""
    if size > wire.MAX_REPLY_BYTES:
        raise TooLarge(f"a reply of {size} bytes, at most {wire.MAX_REPLY_BYTES} are taken")
    whole = bytearray()
    async with Session(bus, session, "client", frame_bytes=REPLY_FRAME_BYTES) as stream:
        async for frame in stream:
            whole += frame
            if len(whole) > size:
                break
        else:
            await stream.finish()
    if len(whole) != size:
        raise IntegrityError(f"a reply of {size} bytes came as {len(whole)}")
    return bytes(whole)
