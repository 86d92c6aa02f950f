"""The bytes of a streamed put, read on behalf of a writer that may leave in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable


class Source:
    """An async iterator of chunks that can be given up at any moment.

    A cancelled upload of obstore leaves the step that it waits for running, so
    each step is a task of ours, which `close` ends. `failure` is what the
    iterator itself raised, to tell it from a failure of the store.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._given_back = b""
        self._step: asyncio.Task[bytes] | None = None
        self.failure: BaseException | None = None

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> bytes:
        if self._given_back:
            chunk, self._given_back = self._given_back, b""
            return chunk
        self._step = asyncio.create_task(self._next())
        chunk = await self._step
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def gather(self, limit: int) -> tuple[bytes, bool]:
        """What comes until the end or until over `limit` bytes are there, and whether that was the end."""
        held = bytearray()
        async for chunk in self:
            held += chunk
            if len(held) > limit:
                return bytes(held), False
        return bytes(held), True

    def give_back(self, chunk: bytes) -> None:
        """Let `chunk` be the next one."""
        self._given_back = chunk

    async def close(self) -> None:
        """End the step under way, and let the iterator clean up."""
        if self._step is not None and not self._step.done():
            self._step.cancel()
            await asyncio.gather(self._step, return_exceptions=True)
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    async def _next(self) -> bytes:
        try:
            async for chunk in self._chunks:
                if chunk:
                    return bytes(chunk)
        except BaseException as error:
            self.failure = error
            raise
        return b""
