"""Who is attached to a terminal: one who types, and others who watch.

Each has a queue of a few frames. The terminal waits for whoever types, as a
terminal does; it never waits for those who watch: one that falls behind is let go.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn

from kubelore.common.bus import Session, SessionEnded
from kubelore.common.contracts.terminals import MAX_PAYLOAD, STDOUT
from kubelore.common.errors import KubeloreError, TooManyRequests

QUEUED = 16
WATCHED = 256
END_S = 10.0


class Attachment:
    """One client's side of a terminal, over an open session."""

    def __init__(self, session: Session, *, watching: bool, scrollback: bytes = b"") -> None:
        self.session = session
        self.watching = watching
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(WATCHED if watching else QUEUED)
        self._scrollback = scrollback
        self._sending = asyncio.create_task(self._send())

    async def put(self, frame: bytes) -> None:
        """Give it a frame. Raises SessionEnded when it is gone."""
        if self._sending.done():
            self._gone()
        if not self.watching:
            await self._put_or_gone(frame)
            return
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            slow = TooManyRequests("you read too slowly to watch this terminal", remedy="Attach again.")
            await self.fail(slow)
            self._gone()

    async def finish(self) -> None:
        """Nothing follows; returns when what was given has been taken, or after ten seconds."""
        with suppress(SessionEnded, TimeoutError):
            async with asyncio.timeout(END_S):
                await self._put_or_gone(None)
                await self._sending
                await self.session.finish()

    async def fail(self, error: KubeloreError) -> None:
        """End it with an error, which its client is told."""
        self._sending.cancel()
        with suppress(KubeloreError):
            await self.session.fail(error)

    async def close(self) -> None:
        """End what runs for it."""
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)

    async def _put_or_gone(self, frame: bytes | None) -> None:
        if not self._frames.full():
            self._frames.put_nowait(frame)
            return
        putting = asyncio.ensure_future(self._frames.put(frame))
        try:
            await asyncio.wait({putting, self._sending}, return_when=asyncio.FIRST_COMPLETED)
            if not putting.done():
                self._gone()
        finally:
            putting.cancel()

    async def _send(self) -> None:
        shown = self._scrollback
        for start in range(0, len(shown), MAX_PAYLOAD):
            await self.session.send(bytes([STDOUT]) + shown[start : start + MAX_PAYLOAD])
        while (frame := await self._frames.get()) is not None:
            await self.session.send(frame)

    def _gone(self) -> NoReturn:
        raise SessionEnded("whoever was attached is gone")
