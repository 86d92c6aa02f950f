"""Watching a bucket: its values under a pattern, whole, at once and after every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from nats.aio.msg import Msg

from kubelore.common.bus.bucket import Bucket
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.pull import OrderedReader, open_ordered
from kubelore.common.bus.streams import MARK_S
from kubelore.common.errors import Unavailable
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

_RETRY_S = 0.5
_POLL_S = 10.0


async def watch_bucket(bus: Bus, bucket: Bucket, pattern: str) -> AsyncGenerator[dict[str, bytes]]:
    """Yield the values by key; for ever, across losses of the connection.

    After a loss, and after some seconds in which nothing was read, everything is
    read again: a key may have expired and its mark with it. Rewriting a value as it was yields nothing.
    """
    shown: dict[str, bytes] | None = None
    while True:
        try:
            async with aclosing(_watch_once(bus, bucket, pattern)) as changes:
                async for values in changes:
                    if values != shown:
                        shown = dict(values)
                        yield dict(values)
        except Unavailable as error:
            log.info("watching a bucket again", bucket=bucket.stream, error=error.detail)
            await asyncio.sleep(_RETRY_S)


async def _watch_once(bus: Bus, bucket: Bucket, pattern: str) -> AsyncGenerator[dict[str, bytes]]:
    values: dict[str, bytes] = {}
    consumer, waiting = await open_ordered(
        bus, bucket.stream, filter_subject=bucket.prefix + pattern, deliver_policy="last_per_subject"
    )
    async with OrderedReader(bus, bucket.stream, consumer, longest_silence_s=MARK_S - 1.0) as reader:
        if waiting == 0:
            yield values
        while True:
            messages = await reader.read(_POLL_S)
            for message in messages:
                _apply(values, bucket, message)
                waiting -= 1
            if messages and waiting <= 0:
                yield values


def _apply(values: dict[str, bytes], bucket: Bucket, message: Msg) -> None:
    key = message.subject.removeprefix(bucket.prefix)
    headers = message.headers or {}
    if "KV-Operation" in headers or "Nats-Marker-Reason" in headers:
        values.pop(key, None)
    else:
        values[key] = message.data
