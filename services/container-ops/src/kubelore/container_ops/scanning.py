"""What was written of a container's log by now, from a position on, over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import DeadlineExceeded, Unavailable, UpstreamError
from kubelore.common.reach import Reached
from kubelore.container_ops.lines import Cursor, LineSplitter, LogLine, Seen

ATTEMPTS = 4
"""Times that a log is asked for without a line in between."""
ROUNDS = 3
"""A container that writes all the time is not waited for."""
_RETRY_S = 0.5


class Scan:
    """Iterate for batches of lines; `cursor` is the position after the last.

    `gap` says that the line at the first position is not kept any more. A
    kubelet that is killed ends a log like one that is read whole, so with `whole`
    the end is believed only when the log, read again, has nothing more. Raises what
    the API server refuses, Unavailable when it breaks off again and again.
    """

    def __init__(
        self,
        reached: Reached,
        target: ContainerId,
        cursor: Cursor,
        *,
        previous: bool = False,
        since_time: str | None = None,
        tail: int | None = None,
        whole: bool = False,
    ) -> None:
        self.cursor = cursor
        self.gap = False
        self._client = reached.client
        self._target = target
        self._previous = previous
        self._since_time = since_time
        self._tail = tail
        self._rounds = ROUNDS if whole else 1

    async def __aiter__(self) -> AsyncGenerator[list[LogLine]]:
        failures, rounds = 0, 0
        while rounds < self._rounds:
            new = False
            try:
                async with aclosing(self._once()) as batches:
                    async for lines in batches:
                        new, failures = True, 0
                        yield lines
            except (Unavailable, DeadlineExceeded, UpstreamError):
                failures += 1
                if failures >= ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_S * failures)
                continue
            rounds += 1
            if not new:
                return

    async def _once(self) -> AsyncGenerator[list[LogLine]]:
        splitter, seen = LineSplitter(), Seen(self.cursor)
        fresh = self.cursor.count == 0
        stream = self._client.logs(
            self._target.namespace,
            self._target.pod,
            self._target.container,
            previous=self._previous,
            timestamps=True,
            tail=self._tail if fresh else None,
            since_time=self._since_time if fresh else self.cursor.since_time,
        )
        async with aclosing(stream):
            async for chunk in stream:
                lines = seen.unseen(splitter.feed(chunk))
                if lines:
                    self._moved(seen, lines)
                    yield lines
        lines = seen.unseen(splitter.finish()) + seen.settle()
        if lines:
            self._moved(seen, lines)
            yield lines
        if splitter.said:
            raise UpstreamError(f"the kubelet says: {' '.join(splitter.said)[:500]}")

    def _moved(self, seen: Seen, lines: list[LogLine]) -> None:
        self.gap = self.gap or seen.missing
        self.cursor = self.cursor.moved(lines)
