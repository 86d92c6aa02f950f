"""Reading a JetStream consumer by pulling: bounded, in order, and aware of a server that went away.

Written over the pull protocol itself, since nats-py's `fetch` may return more
than asked after a timed-out pull and does not tell a silent server from an
empty stream.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import msgspec
import nats.errors
from nats.aio.msg import Msg

from kubelore.common.errors import KubeloreError, Unavailable

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

    from kubelore.common.bus.connection import Bus

_S = 10**9
_EXPIRES_S = 10
_HEARTBEAT_S = 1.0
_SILENT_S = 3.0
"""Nothing heard for so long although the server promised a heartbeat every second: the pull is dead."""
_HEARTBEAT, _NOT_FOUND, _TIMEOUT, _CONFLICT = "100", "404", "408", "409"


class ReaderLost(Unavailable):
    """The consumer is gone, or a message on its way got lost: open it anew."""

    reason = "ReaderLost"


class PullReader:
    """Messages of one consumer, as an async context manager; at most `batch` wait here at any time.

    Where messages do not stay in the stream for long, a time after which some may
    be missed is `longest_silence_s`: so long the server, which is heard each
    second while it is asked, said nothing, or was asked nothing.
    """

    def __init__(
        self, bus: Bus, stream: str, consumer: str, *, batch: int = 64, longest_silence_s: float = math.inf
    ) -> None:
        self._bus = bus
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._consumer = consumer
        self._batch = batch
        self._inbox = bus.client.new_inbox()
        self._subscription: Subscription | None = None
        self._queue: deque[Msg] = deque()
        self._arrived = asyncio.Event()
        self._outstanding = 0
        self._pulls = 0
        self._gone = False
        self._asked_at = 0.0
        self._heard_at = asyncio.get_running_loop().time()
        self._longest_silence_s = longest_silence_s

    async def __aenter__(self) -> Self:
        try:
            self._subscription = await self._bus.client.subscribe(f"{self._inbox}.*", cb=self._on_message)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"{self._consumer}: not connected to the bus") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            with suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._subscription.unsubscribe()

    async def read(self, wait_s: float) -> list[Msg]:
        """What has arrived, at least one message, or an empty list after `wait_s`.

        Raises ReaderLost when the server no longer knows the consumer, or after the longest silence.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while not self._queue:
            if self._gone:
                raise ReaderLost(
                    f"consumer {self._consumer} is gone, was not heard of for too long, or a message got lost"
                )
            remaining = until - loop.time()
            if remaining <= 0:
                return []
            await self._pull_when_needed(loop.time())
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, _HEARTBEAT_S)):
                    await self._arrived.wait()
        return self.arrived()

    def arrived(self) -> list[Msg]:
        """What has arrived since the last look, without waiting."""
        messages = list(self._queue)
        self._queue.clear()
        return messages

    async def _pull_when_needed(self, now: float) -> None:
        if self._outstanding > 0 and now - max(self._asked_at, self._heard_at) < _SILENT_S:
            return
        body = {
            "batch": self._batch,
            "max_bytes": self._bus.max_payload + 64 * 1024,
            "expires": _EXPIRES_S * _S,
            "idle_heartbeat": int(_HEARTBEAT_S * _S),
        }
        self._pulls += 1
        self._outstanding = self._batch
        self._asked_at = now
        with suppress(KubeloreError):
            await self._bus.send(self._next, msgspec.json.encode(body), reply=f"{self._inbox}.{self._pulls}")

    async def _on_message(self, message: Msg) -> None:
        now = asyncio.get_running_loop().time()
        self._gone = self._gone or now - self._heard_at > self._longest_silence_s
        self._heard_at = now
        current = message.subject.endswith(f".{self._pulls}")
        status = (message.headers or {}).get("Status")
        if status is None or message.reply:
            self._queue.append(message)
            if current:
                self._outstanding -= 1
        elif status == _HEARTBEAT:
            self._on_heartbeat(message.headers or {})
        elif current:
            self._on_status(status, (message.headers or {}).get("Description", ""))
        self._arrived.set()

    def _on_heartbeat(self, headers: Mapping[str, str]) -> None:
        """The server has nothing to deliver now; a heartbeat follows what was delivered before it."""

    def _on_status(self, status: str, description: str) -> None:
        """A pull has ended; 409 is also how the server says that the consumer was deleted."""
        self._outstanding = 0
        # 503 comes from the server itself: no such consumer, or JetStream is not up yet.
        ended = status in (_NOT_FOUND, _TIMEOUT) or (status == _CONFLICT and "eleted" not in description)
        self._gone = self._gone or not ended


async def open_ordered(bus: Bus, stream: str, **config: Any) -> tuple[str, int]:
    """Make a short-lived consumer without acknowledgements; its name, and how many messages wait for it."""
    name = f"{bus.replica}-{bus.client.new_inbox().rsplit('.', 1)[-1]}"
    body = {
        "stream_name": stream,
        "config": {
            "name": name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 60 * _S,
            **config,
        },
    }
    # With the filter in the subject, a user's allow-list can bind the consumer to it.
    bound = f".{config['filter_subject']}" if "filter_subject" in config else ""
    made = await bus.jetstream(f"CONSUMER.CREATE.{stream}.{name}{bound}", body)
    return name, made.get("num_pending", 0)


class NumberedReader(PullReader):
    """A reader of a consumer that begins now, which refuses to go on when a message got lost on its way here.

    What was in flight when the server or the connection died would otherwise
    come again only after newer messages, and acknowledging those would drop it.
    """

    _sequence = 0

    def arrived(self) -> list[Msg]:
        """As PullReader.arrived, and so for `read`; raises ReaderLost when the consumer's own numbering has a gap."""
        messages = super().arrived()
        for message in messages:
            number = message.metadata.sequence.consumer
            if number != self._sequence + 1:
                raise ReaderLost(f"message {self._sequence + 1} of {self._consumer} got lost, {number} came")
            self._sequence = number
        return messages

    def _on_heartbeat(self, headers: Mapping[str, str]) -> None:
        """Notice that the last message got lost, which no later one tells; it would come again after a minute."""
        delivered = int(headers.get("Nats-Last-Consumer", "0"))
        self._gone = self._gone or delivered > self._sequence + len(self._queue)


class OrderedReader(NumberedReader):
    """Reads a short-lived consumer (`open_ordered`), and removes it at the end."""

    def __init__(self, bus: Bus, stream: str, consumer: str, *, longest_silence_s: float = math.inf) -> None:
        super().__init__(bus, stream, consumer, batch=256, longest_silence_s=longest_silence_s)
        self._stream = stream

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)
        with suppress(KubeloreError):
            await self._bus.jetstream(f"CONSUMER.DELETE.{self._stream}.{self._consumer}", deadline_s=1.0)
