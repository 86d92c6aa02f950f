"""The feed: every change of the last 15 minutes, for readers that come and go, such as SSE.

An event id is `<stream epoch>.<sequence>.<index>`: the sequence in CHANGES
(FEED may be made anew, CHANGES may not) and how many records of that message
have been read, so that it is valid at every gateway. The id of a message's last
record points behind it.

The server notes on each message of FEED the sequence it had in CHANGES, and
those are consecutive: one that is left out is a hole, and is said, never hidden.

All readers of a process share a window in memory. The newest changes come into
it from the server as it stores them, and FEED is read for what did not come.
Only a reader that starts further back than the window reads FEED by itself until
it has caught up. FEED lags behind CHANGES, by up to seconds now and then; what it
has not got yet CHANGES still holds, since FEED is one of its consumers, and is
read from there.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

from nats.aio.msg import Msg

from kubelore.common.bus import wire
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.feed_newest import Newest
from kubelore.common.bus.feed_window import Batch, FeedReset, Passed, Position, Window, in_order
from kubelore.common.bus.pull import OrderedReader, open_ordered
from kubelore.common.bus.streams import CHANGES, FEED
from kubelore.common.contracts.changes import Record
from kubelore.common.errors import DeadlineExceeded, Gone, Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

_SOURCE = "Nats-Stream-Source"
_RETRY_S = 0.5
_STILL_S = 0.25
"""How long FEED may say nothing before CHANGES is asked for what FEED has not got yet."""
_UNFED = 64
_UNFED_BYTES = 1024 * 1024
"""How many messages are taken from CHANGES at a time, each by a request of its own, and how large before the last."""
_LOOK_S = 1.0
"""How often is asked what is stored: a message not heard, with none after it, is noticed within twice as long."""


class Feed:
    """The feed as one process reads it; any number of followers share it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._window: Window | None = None
        self._epoch = 0
        self._followers = 0
        self._tail: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._joining = asyncio.Lock()
        self._known: tuple[str, float] | None = None
        """The last position that the server told, and when it was asked for."""

    async def position(self, *, max_age_s: float = 0.0) -> str:
        """An event id behind everything acknowledged before this call.

        With `max_age_s` it may be behind what was acknowledged so many seconds
        earlier: somebody who reads on from there sees that much again, and misses
        nothing. It then costs a question to the server only once in that time.
        """
        loop = asyncio.get_running_loop()
        known = self._known
        if known is None or loop.time() - known[1] >= max_age_s:
            asked_at = loop.time()
            known = self._known = str(Position(*await self._head())), asked_at
        return known[0]

    async def follow(
        self, position: str | None = None, clusters: Collection[str] | None = None
    ) -> AsyncGenerator[tuple[str, Record | FeedReset | Passed]]:
        """Records behind `position` (from now when None) with their event ids, for ever, in stream order.

        A FeedReset in between says that changes are missing there, and Passed that
        what lies there is of none of `clusters`: the id moves on with it, so that
        who resumes is not held to what the feed forgot meanwhile. Raises Gone when
        `position` lies outside the window, BadRequest when it is no event id, and
        Unavailable when the bus is away at the start; later losses of the
        connection are mended.
        """
        wanted = None if clusters is None else frozenset(clusters)
        at = Position.parse(position) if position else Position.parse(await self.position())
        self._followers += 1
        try:
            skip = at.index
            async with aclosing(self._batches(await self._join(at), at.sequence)) as batches:
                async for batch in batches:
                    for event in batch.events(at.epoch, skip, wanted):
                        yield event
                    skip = 0
        finally:
            self._followers -= 1
            if self._followers == 0:
                self._stop()
        if self._epoch != at.epoch:
            raise Gone("the stream of changes was made anew", remedy="List again.")
        raise Unavailable("the feed is not read any more")

    async def _head(self) -> tuple[int, int]:
        info = await self._bus.jetstream(f"STREAM.INFO.{CHANGES}")
        return _epoch_of(info), info["state"]["last_seq"] + 1

    async def _join(self, at: Position) -> Window:
        """Start the shared reader if nobody has, and check that `at` is of this stream."""
        async with self._joining:
            epoch, following = await self._head()
            if at.epoch != epoch or at.sequence > following:
                raise Gone("the event id belongs to another stream of changes", remedy="List again.")
            if self._window is None or self._epoch != epoch:
                self._stop()
                self._epoch = epoch
                self._window = Window(following)
                self._tail = asyncio.create_task(self._keep_reading(self._window), name="feed")
                self._tail.add_done_callback(self._on_ended)
            return self._window

    def _stop(self) -> None:
        if self._tail is not None:
            self._tail.cancel()
        self._tail = self._window = None
        self._tell()

    def _on_ended(self, tail: asyncio.Task[None]) -> None:
        if not tail.cancelled() and (error := tail.exception()) is not None:
            log.error("reading the feed failed", exc_info=error)
            self._stop()

    async def _batches(self, window: Window, sequence: int) -> AsyncGenerator[Batch]:
        """Batches from `sequence` on; ends when the window is no longer filled."""
        while self._window is window:
            if not window.holds(sequence):
                async with aclosing(self._catch_up(window, sequence)) as missed:
                    async for batch in missed:
                        yield batch
                        sequence = batch.following
            elif (batch := window.get(sequence)) is not None:
                yield batch
                sequence = batch.following
            else:
                await self._news.wait()

    async def _catch_up(self, window: Window, sequence: int) -> AsyncGenerator[Batch]:
        """Batches from `sequence` on until the window holds what follows; a reader that is lost is replaced."""
        while self._window is window:
            try:
                async with aclosing(self._stored_from(sequence)) as stored:
                    async for found in stored:
                        for batch in (taken for one in found for taken in in_order(sequence, one)):
                            yield batch
                            sequence = batch.following
                        if window.holds(sequence):
                            return
            except (Unavailable, DeadlineExceeded) as error:
                log.info("catching up with the feed again", error=error.detail)
                await asyncio.sleep(_RETRY_S)

    async def _keep_reading(self, window: Window) -> None:
        """Fill the window while it is read; what cannot be read any more becomes a hole in it."""
        while self._window is window:
            try:
                async with Newest(self._bus) as newest:
                    await self._listen(newest, window)
            except Gone:
                window.append(await self._lost_until_now(window))
                self._tell()
            except (Unavailable, DeadlineExceeded) as error:
                log.info("reading the feed again", error=error.detail)
                await asyncio.sleep(_RETRY_S)

    async def _listen(self, newest: Newest, window: Window) -> None:
        """Take in what is stored, and read from FEED what was stored before or did not come."""
        loop = asyncio.get_running_loop()
        stored = await self._stored()
        while self._window is window:
            # What was stored a look ago has come by now, or will not.
            await self._read_up_to(stored, window)
            stored, until = await self._stored(), loop.time() + _LOOK_S
            while (remaining := until - loop.time()) > 0:
                for batch in await newest.read(remaining):
                    await self._read_up_to(batch.sequence, window)
                    window.append(batch)
                self._tell()

    async def _read_up_to(self, sequence: int, window: Window) -> None:
        """Fill the window from FEED until `sequence` is due in it; nothing where it is already."""
        if window.following >= sequence:
            return
        async with aclosing(self._stored_from(window.following)) as stored:
            async for found in stored:
                for batch in found:
                    window.append(batch)
                self._tell()
                if window.following >= sequence:
                    return

    async def _stored_from(self, sequence: int) -> AsyncGenerator[list[Batch]]:
        """What is stored from `sequence` on, for ever, some of it twice; an empty list when there is nothing new."""
        async with OrderedReader(self._bus, FEED, await self._open(sequence)) as reader:
            while True:
                found = [_batch_of(message) for message in await reader.read(_STILL_S)]
                found = found or await self._not_in_feed_yet(sequence)
                sequence = max(sequence, found[-1].following) if found else sequence
                yield found

    async def _not_in_feed_yet(self, sequence: int, most: int = _UNFED) -> list[Batch]:
        """What CHANGES holds from `sequence` on, without a hole."""
        found: list[Batch] = []
        size = 0
        with suppress(_NotStored):
            while len(found) < most and size < _UNFED_BYTES:
                message = await self._message(CHANGES, seq=sequence)
                data = base64.b64decode(message.get("data", ""))
                found.append(Batch.of(message["subject"], sequence, data))
                size += len(data)
                sequence += 1
        return found

    async def _stored(self) -> int:
        """The sequence due next in CHANGES; raises Gone when it is another stream than the window's."""
        epoch, following = await self._head()
        if epoch != self._epoch:
            raise Gone("the stream of changes was made anew", remedy="List again.")
        return following

    async def _lost_until_now(self, window: Window) -> Batch:
        epoch, following = await self._head()
        if epoch != self._epoch:
            self._epoch = epoch
            self._window = None
        return Batch(window.following, max(following, window.following + 1), missing=True)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _open(self, sequence: int) -> str:
        """A consumer of FEED that starts at or before `sequence` of CHANGES; raises Gone outside the window."""
        start = await self._locate(sequence)
        consumer, _ = await open_ordered(
            self._bus, FEED, deliver_policy="by_start_sequence", opt_start_seq=start
        )
        return consumer

    async def _locate(self, sequence: int) -> int:
        """The sequence in FEED of what had `sequence` in CHANGES, or one before it.

        The two differ by a number that changes only where FEED has a hole; the
        smaller of its first and last value can only start too early.
        """
        feed = await self._fed(sequence)
        if feed["messages"] == 0:
            return feed["last_seq"] + 1
        # What was the first a moment ago may have expired since.
        first, first_source = await self._fed_message(seq=feed["first_seq"], next_by_subj=">")
        last, last_source = await self._fed_message(last_by_subj=">")
        if sequence < first_source:
            raise Gone("the event id is older than the feed", remedy="List again.")
        start = sequence + min(first - first_source, last - last_source)
        return min(max(start, first), last + 1)

    async def _fed(self, sequence: int) -> dict[str, Any]:
        """The state of FEED: with messages, or empty while what has `sequence` is still to come.

        Raises Gone when it was there and has expired.
        """
        # Twice: what CHANGES no longer holds had come to FEED by then.
        for _ in range(2):
            feed = (await self._bus.jetstream(f"STREAM.INFO.{FEED}"))["state"]
            if feed["messages"] > 0 or sequence >= await self._stored():
                return feed
            if await self._not_in_feed_yet(sequence, 1):
                return feed
        raise Gone("the event id is older than the feed", remedy="List again.")

    async def _fed_message(self, **which: Any) -> tuple[int, int]:
        """The sequences of one message of FEED: its own, and the one it had in CHANGES."""
        message = await self._message(FEED, **which)
        return message["seq"], _source_of(wire.stored_headers(message)[_SOURCE])

    async def _message(self, stream: str, **which: Any) -> dict[str, Any]:
        """One message of a stream; raises _NotStored when it is not there."""
        try:
            return (await self._bus.jetstream(f"STREAM.MSG.GET.{stream}", which))["message"]
        except wire.JetStreamRefused as error:
            if error.code != wire.MESSAGE_NOT_FOUND:
                raise
            raise _NotStored("the feed moved on meanwhile", remedy="List again.") from error


class _NotStored(Gone):
    """A stream does not hold the message any more, or never did."""


def _source_of(header: str) -> int:
    """The sequence in CHANGES, out of `<stream> <sequence> <filter> <transform> <subject>`."""
    return int(header.split(" ", 2)[1])


def _batch_of(message: Msg) -> Batch:
    return Batch.of(message.subject, _source_of((message.headers or {})[_SOURCE]), message.data)


def _epoch_of(info: dict[str, Any]) -> int:
    """When the stream was made, in milliseconds since the epoch."""
    return int(datetime.fromisoformat(info["created"][:23].rstrip("Z") + "+00:00").timestamp() * 1000)
