"""The newest changes, as the server says them to whoever listens at the moment it has stored them.

CHANGES is republished (`streams`): each message once it is on disk, with its
sequence, on plain NATS. Nobody keeps anything for a listener, so that it holds
nothing back, and one that was slow or away misses messages. Their sequences are
consecutive: whoever listens sees what is missing, and reads it (`feed`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import nats.errors
from nats.aio.msg import Msg

from kubelore.common.bus.feed_window import WINDOW_BYTES, Batch
from kubelore.common.contracts.flows import STORED_SUBJECTS
from kubelore.common.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

    from kubelore.common.bus.connection import Bus

_SUBJECT, _SEQUENCE = "Nats-Subject", "Nats-Sequence"


class Newest:
    """What is stored in CHANGES from now on, as an async context manager; at most `max_bytes` wait here."""

    def __init__(self, bus: Bus, *, max_bytes: int = WINDOW_BYTES) -> None:
        self._bus = bus
        self._max_bytes = max_bytes
        self._subscription: Subscription | None = None
        self._waiting: list[Batch] = []
        self._bytes = 0
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Listen. Whatever is asked of JetStream afterwards is answered later than the server has heard of it."""
        try:
            self._subscription = await self._bus.client.subscribe(STORED_SUBJECTS, cb=self._on_message)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("listening for changes: not connected to the bus") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            with suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._subscription.unsubscribe()

    async def read(self, wait_s: float) -> list[Batch]:
        """What has arrived, at least one batch, or an empty list after `wait_s`."""
        if not self._waiting:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
        batches, self._waiting, self._bytes = self._waiting, [], 0
        return batches

    async def _on_message(self, message: Msg) -> None:
        if self._bytes >= self._max_bytes:
            return
        headers = message.headers or {}
        self._waiting.append(Batch.of(headers[_SUBJECT], int(headers[_SEQUENCE]), message.data))
        self._bytes += len(message.data)
        self._arrived.set()
