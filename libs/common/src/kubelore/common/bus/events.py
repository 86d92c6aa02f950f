"""Cluster, alert and audit events: kept for days in EVENTS, read from now on or where a durable left off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec
import nats.errors

from kubelore.common.bus.pull import OrderedReader, PullReader, open_ordered
from kubelore.common.bus.streams import EVENTS
from kubelore.common.contracts.alerts import CONTENT_TYPE, CloudEvent
from kubelore.common.errors import DeadlineExceeded, Unavailable
from kubelore.common.telemetry import get_logger, inject

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from kubelore.common.bus.connection import Bus

log = get_logger(__name__)

E = TypeVar("E")

_RETRY_S = 0.5
_POLL_S = 10.0


async def publish_event(bus: Bus, subject: str, event: msgspec.Struct, *, deadline_s: float = 5.0) -> int:
    """Store one event once; returns its sequence in EVENTS.

    Tried again while the bus is away, under one id, until `deadline_s` has
    passed: then Unavailable or DeadlineExceeded, and the caller decides.
    """
    headers = {"Nats-Msg-Id": bus.client.new_inbox().rsplit(".", 1)[-1]}
    return await _store(bus, subject, msgspec.msgpack.encode(event), headers, deadline_s)


async def publish_alert(bus: Bus, subject: str, alert: CloudEvent, *, deadline_s: float = 5.0) -> int:
    """As `publish_event`, in the JSON that CloudEvents are for subscribers of any make.

    Its own id tells one that is published twice: the second is not stored within two minutes.
    """
    headers = {"Nats-Msg-Id": f"{alert.source}:{alert.id}", "Content-Type": CONTENT_TYPE}
    return await _store(bus, subject, msgspec.json.encode(alert), headers, deadline_s)


async def _store(bus: Bus, subject: str, payload: bytes, headers: dict[str, str], deadline_s: float) -> int:
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    inject(headers)
    while True:
        try:
            return await bus.store(subject, payload, headers, deadline_s=min(2.0, deadline_s))
        except (Unavailable, DeadlineExceeded):
            if loop.time() + _RETRY_S >= until:
                raise
            await asyncio.sleep(_RETRY_S)


async def subscribe_events(
    bus: Bus, pattern: str, kind: type[E], *, durable: str | None = None
) -> AsyncGenerator[E]:
    """Events whose subject matches, for ever, across losses of the connection.

    Without `durable`: those stored after the iteration began. With it: from
    where the last reader of that name stopped, each acknowledged when the next
    one is asked for, so that an event may come twice and none is left out. One
    that does not decode is logged and passed over.
    """
    msgpack, json = msgspec.msgpack.Decoder(kind), msgspec.json.Decoder(kind)
    messages = _from_now(bus, pattern) if durable is None else _durable(bus, pattern, durable)
    async with aclosing(messages):
        async for message in messages:
            try:
                written = json if (message.headers or {}).get("Content-Type") == CONTENT_TYPE else msgpack
                event = written.decode(message.data)
            except msgspec.MsgspecError as error:
                log.error("malformed event", subject=message.subject, error=str(error))
                continue
            yield event


async def _from_now(bus: Bus, pattern: str) -> AsyncGenerator[Msg]:
    following: int | None = None
    while True:
        try:
            if following is None:
                following = (await bus.jetstream(f"STREAM.INFO.{EVENTS}"))["state"]["last_seq"] + 1
            consumer, _ = await open_ordered(
                bus,
                EVENTS,
                filter_subject=pattern,
                deliver_policy="by_start_sequence",
                opt_start_seq=following,
            )
            async with OrderedReader(bus, EVENTS, consumer) as reader:
                while True:
                    for message in await reader.read(_POLL_S):
                        following = message.metadata.sequence.stream + 1
                        yield message
        except (Unavailable, DeadlineExceeded) as error:
            log.info("reading events again", pattern=pattern, error=error.detail)
            await asyncio.sleep(_RETRY_S)


async def _durable(bus: Bus, pattern: str, name: str) -> AsyncGenerator[Msg]:
    config = {
        "durable_name": name,
        "name": name,
        "filter_subject": pattern,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "max_ack_pending": 256,
    }
    while True:
        try:
            await bus.jetstream(
                f"CONSUMER.CREATE.{EVENTS}.{name}.{pattern}", {"stream_name": EVENTS, "config": config}
            )
            async with PullReader(bus, EVENTS, name) as reader:
                while True:
                    for message in await reader.read(_POLL_S):
                        yield message
                        with suppress(nats.errors.Error, OSError):
                            await message.ack()
        except (Unavailable, DeadlineExceeded) as error:
            log.info("reading events again", pattern=pattern, error=error.detail)
            await asyncio.sleep(_RETRY_S)
