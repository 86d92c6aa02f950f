"""Answers that last: events, a bounded number of streams at once, and files; each ends when its client is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from kubelore.common.errors import KubeloreError, TooManyRequests
from kubelore.common.mandates import ended_by
from kubelore.common.telemetry import get_logger
from kubelore.gateway.standing import Standing

log = get_logger(__name__)

STALLED_S = 60.0
"""A client that takes nothing for so long is gone, whatever its connection says."""


class Slots:
    """How many streams of a kind may be open at once.

    Nobody takes another when they hold more than are free: one holder has about
    half at most, two a third each, and there is always one for who has none.
    """

    def __init__(self, limit: int, what: str = "watches") -> None:
        self._limit = limit
        self._what = what
        self._held: Counter[str] = Counter()
        self.taken = 0

    def check(self, holder: str) -> None:
        """Raise TooManyRequests when there is none for this holder, the subject of a caller."""
        free, held = self._limit - self.taken, self._held[holder]
        if free <= 0 or held > free:
            whose = f", {held} of them by {holder}" if free > 0 else ""
            raise TooManyRequests(
                f"{self.taken} {self._what} are open already{whose}",
                remedy="Close some, or ask again later.",
                retry_after_s=10,
            )

    @contextmanager
    def take(self, holder: str) -> Iterator[None]:
        """Hold a slot for as long as the block runs. Raises TooManyRequests."""
        self.check(holder)
        self.taken += 1
        self._held[holder] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._held[holder] -= 1
            # Negative and empty counts go, so that who came once is not kept for ever.
            if not self._held[holder]:
                del self._held[holder]


class EventStream(StreamingResponse):
    """Sends chunks while its client reads them.

    It takes its slot when it begins to answer, and neither slot nor generator
    outlives the answer: a client may be gone before the first chunk.
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes], slots: Slots, holder: str) -> None:
        super().__init__(chunks, headers={"X-Accel-Buffering": "no"})
        self._chunks = chunks
        self._slots = slots
        self._holder = holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; raises TooManyRequests before anything is sent."""
        async with aclosing(self._chunks):
            with self._slots.take(self._holder):
                try:
                    await super().__call__(scope, receive, impatient(send))
                except StalledError:
                    log.info("a watcher reads no more", after_s=STALLED_S)


class Outflow(StreamingResponse):
    """What leaves for good: it goes on while its client reads it and its caller may have it, and is cut off else.

    `standing` is None where the service that sends the content ends it for who may not have it any more.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        standing: Standing | None,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
    ) -> None:
        super().__init__(content, status_code, headers, media_type)
        self._content = content
        self._standing = standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a connection that ends before the last chunk or the length has not brought all of it."""
        async with aclosing(self._content):
            try:
                async with self._while_it_stands():
                    await super().__call__(scope, receive, impatient(send))
            except StalledError:
                log.info("what leaves is read no more", after_s=STALLED_S)
            except KubeloreError as error:
                # The head is out: a body that does not end tells it.
                log.info("what leaves broke off", reason=error.reason, detail=error.detail)

    def _while_it_stands(self) -> AbstractAsyncContextManager[None]:
        if self._standing is None:
            return nullcontext()
        return ended_by(asyncio.create_task(self._standing.lapse()))


class StalledError(Exception):
    """A client takes nothing any more."""


def impatient(send: Send) -> Send:
    """`send` that raises StalledError when a client takes nothing for 60 s."""

    async def sending(message: Message) -> None:
        try:
            async with asyncio.timeout(STALLED_S):
                await send(message)
        except TimeoutError as error:
            raise StalledError from error

    return sending
