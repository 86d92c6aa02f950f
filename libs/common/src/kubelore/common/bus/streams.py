"""The streams, consumers and buckets of the bus, and how each is kept.

CHANGES   interest retention: a batch stays until every durable has it. Full
          means that publishers wait (`discard new`), nothing is dropped. The
          server says what it has stored to who listens at that moment, too.
FEED      the last 15 minutes of CHANGES for SSE, sourced by the server through
          the durable `feed` (ADR-60), the oldest dropped first.
EVENTS    cluster, alert and audit events, seven days.
PARKED    changes that a consumer could not take, until replayed or 30 days old.
LEASES, CHECKPOINTS  key-value buckets.

The consumer `fences` never reads: it holds the last fence of each cluster in
CHANGES, so that publishers can be checked against it (decision 0005).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubelore.common.contracts.changes import PARTITIONS
from kubelore.common.contracts.flows import (
    CHANGES,
    CHECKPOINTS,
    EVENT_SUBJECTS,
    EVENTS,
    FEED,
    FEED_DELIVERY,
    FENCE_SUBJECTS,
    LEASES,
    PARKED,
    PARKED_SUBJECTS,
    RESOURCE_SUBJECTS,
    STORED_SUBJECTS,
    bucket_stream,
    partition_consumer,
    partition_filter,
)
from kubelore.common.contracts.permissions import streams_of
from kubelore.common.errors import DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from kubelore.common.bus.connection import Bus

_S = 10**9
_LOOK_AGAIN_S = 0.1
_MIB = 2**20
MARK_S = 5
"""How long the mark of a key that expired or was deleted is there for those who watch its bucket."""


@dataclass(frozen=True)
class StreamLimits:
    """How much each stream may hold on disk, and on how many servers of a NATS cluster."""

    changes_bytes: int = 1024 * _MIB
    feed_bytes: int = 256 * _MIB
    feed_age_s: int = 15 * 60
    events_bytes: int = 256 * _MIB
    events_age_s: int = 7 * 24 * 3600
    parked_bytes: int = 256 * _MIB
    parked_age_s: int = 30 * 24 * 3600
    replicas: int = 1


async def ensure_streams(bus: Bus, limits: StreamLimits | None = None) -> None:
    """Create or adjust every stream, bucket and the two consumers of CHANGES.

    For the bus's operator (`prepare`): no service may. Safe to call at every start
    and at the same time, since all calls carry the same configuration. Raises
    JetStreamRefused when the server has no room for it.
    """
    limits = limits or StreamLimits()
    await _stream(bus, _changes(limits))
    await _consumer(bus, CHANGES, _feed_consumer())
    await _consumer(bus, CHANGES, _fence_consumer())
    for config in (_feed(limits), _events(limits), _parked(limits)):
        await _stream(bus, config)
    for bucket in (LEASES, CHECKPOINTS):
        await _stream(bus, _bucket(bucket, limits))


async def until_prepared(bus: Bus, *, deadline_s: float = 60.0) -> None:
    """Wait until the streams that this service works with have been made.

    Raises Unavailable when one still is not there after `deadline_s`.
    """
    missing = list(streams_of(bus.name))
    until = asyncio.get_running_loop().time() + deadline_s
    while missing:
        try:
            await bus.jetstream(f"STREAM.INFO.{missing[0]}", deadline_s=2.0)
        except (Unavailable, DeadlineExceeded) as error:
            if asyncio.get_running_loop().time() > until:
                raise Unavailable(
                    f"the stream {missing[0]} is not there: {error.detail}",
                    remedy="Run `python -m kubelore.common.bus.prepare` as the operator of the bus.",
                ) from error
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            missing.pop(0)


async def create_durables(bus: Bus, service: str) -> None:
    """Create a service's durable for every partition: from now on nothing it has not acknowledged is dropped.

    To be called before any observer publishes, hence at the first start of the
    stack; idempotent.
    """
    for partition in range(PARTITIONS):
        config = {
            "durable_name": partition_consumer(service, partition),
            "filter_subject": partition_filter(partition),
            "ack_policy": "all",
            "deliver_policy": "all",
            "ack_wait": 60 * _S,
            "max_ack_pending": 256,
            "max_waiting": 8,
        }
        await _consumer(bus, CHANGES, config)


async def delete_durables(bus: Bus, service: str) -> None:
    """Forget a service for good: what it has not consumed is no longer kept for it."""
    for partition in range(PARTITIONS):
        await bus.jetstream(f"CONSUMER.DELETE.{CHANGES}.{partition_consumer(service, partition)}")


async def _stream(bus: Bus, config: dict[str, Any]) -> None:
    name = config["name"]
    names = await bus.jetstream(
        "STREAM.NAMES", {"subject": config["subjects"][0]} if "subjects" in config else None
    )
    exists = name in (names.get("streams") or [])
    await bus.jetstream(f"STREAM.{'UPDATE' if exists else 'CREATE'}.{name}", config)


async def _consumer(bus: Bus, stream: str, config: dict[str, Any]) -> None:
    name = config["durable_name"]
    body = {"stream_name": stream, "config": {**config, "name": name}}
    # With the filter in the subject, a user's allow-list can bind the consumer to it.
    bound = f".{config['filter_subject']}" if "filter_subject" in config else ""
    await bus.jetstream(f"CONSUMER.CREATE.{stream}.{name}{bound}", body)


def _file(name: str, limits: StreamLimits, **more: Any) -> dict[str, Any]:
    return {"name": name, "storage": "file", "num_replicas": limits.replicas, "allow_direct": True, **more}


def _changes(limits: StreamLimits) -> dict[str, Any]:
    return _file(
        CHANGES,
        limits,
        subjects=[RESOURCE_SUBJECTS, FENCE_SUBJECTS],
        retention="interest",
        discard="new",
        max_bytes=limits.changes_bytes,
        duplicate_window=120 * _S,
        allow_rollup_hdrs=True,
        republish={"src": ">", "dest": STORED_SUBJECTS},
    )


def _feed_consumer() -> dict[str, Any]:
    return {
        "durable_name": "feed",
        "ack_policy": "flow_control",
        "deliver_policy": "all",
        "deliver_subject": FEED_DELIVERY,
        "flow_control": True,
        "idle_heartbeat": _S,
        "max_ack_pending": 1024,
    }


def _fence_consumer() -> dict[str, Any]:
    return {
        "durable_name": "fences",
        "filter_subject": FENCE_SUBJECTS,
        "ack_policy": "explicit",
        "deliver_policy": "all",
    }


def _feed(limits: StreamLimits) -> dict[str, Any]:
    return _file(
        FEED,
        limits,
        retention="limits",
        discard="old",
        max_bytes=limits.feed_bytes,
        max_age=limits.feed_age_s * _S,
        sources=[{"name": CHANGES, "consumer": {"name": "feed", "deliver_subject": FEED_DELIVERY}}],
    )


def _events(limits: StreamLimits) -> dict[str, Any]:
    return _file(
        EVENTS,
        limits,
        subjects=list(EVENT_SUBJECTS),
        retention="limits",
        discard="old",
        max_bytes=limits.events_bytes,
        max_age=limits.events_age_s * _S,
        duplicate_window=120 * _S,
    )


def _parked(limits: StreamLimits) -> dict[str, Any]:
    return _file(
        PARKED,
        limits,
        subjects=[PARKED_SUBJECTS],
        retention="limits",
        discard="new",
        max_bytes=limits.parked_bytes,
        max_age=limits.parked_age_s * _S,
    )


def _bucket(bucket: str, limits: StreamLimits) -> dict[str, Any]:
    return _file(
        bucket_stream(bucket),
        limits,
        subjects=[f"$KV.{bucket}.>"],
        max_msgs_per_subject=1,
        discard="new",
        max_bytes=64 * _MIB,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_msg_ttl=True,
        subject_delete_marker_ttl=MARK_S * _S,
    )
