"""Changes that a consumer could not take: kept with the reason, listed, and replayed when the cause is mended."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from kubelore.common.bus import wire
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.streams import PARKED
from kubelore.common.contracts.changes import Record
from kubelore.common.errors import NotFound

LIST_LIMIT = 1_000


class Parked(msgspec.Struct, kw_only=True):
    """One parked record. `raw` is its msgpack; a message that does not decode is parked whole, without `record`."""

    service: str
    partition: int
    sequence: int
    """Of the message in CHANGES."""
    index: int
    """Of the record in that message, from 0."""
    reason: str
    error_id: str
    """Look for it in the service's log."""
    at: float
    """Seconds since the epoch."""
    raw: bytes
    id: int = 0
    """What `replay` takes; set when it is read."""

    @property
    def record(self) -> Record | None:
        """The record, None when the message does not decode."""
        try:
            return msgspec.msgpack.decode(self.raw, type=Record)
        except msgspec.MsgspecError:
            return None


async def park(bus: Bus, parked: Parked) -> int:
    """Store a record aside; returns its id. Parking it again within two minutes returns the same."""
    subject = f"kubelore.v1.parked.{parked.service}.p{parked.partition:02d}"
    headers = {"Nats-Msg-Id": f"{parked.service}.{parked.sequence}.{parked.index}"}
    return await bus.store(subject, msgspec.msgpack.encode(parked), headers)


async def list_parked(bus: Bus, service: str, *, after: int = 0, limit: int = 100) -> list[Parked]:
    """What a service has parked, oldest first, behind the id `after`."""
    found: list[Parked] = []
    while len(found) < min(limit, LIST_LIMIT):
        body = {"seq": after + 1, "next_by_subj": f"kubelore.v1.parked.{service}.*"}
        message = await _message(bus, body)
        if message is None:
            break
        found.append(_parked(message))
        after = message["seq"]
    return found


async def get_parked(bus: Bus, parked_id: int) -> Parked:
    """One parked record; raises NotFound."""
    message = await _message(bus, {"seq": parked_id})
    if message is None:
        raise NotFound(f"nothing is parked under {parked_id}")
    return _parked(message)


async def forget_parked(bus: Bus, parked_id: int) -> None:
    """Drop a parked record, after its replay or for good."""
    try:
        await bus.jetstream(f"STREAM.MSG.DELETE.{PARKED}", {"seq": parked_id, "no_erase": True})
    except wire.JetStreamRefused as error:
        raise NotFound(f"nothing is parked under {parked_id}") from error


async def _message(bus: Bus, body: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return (await bus.jetstream(f"STREAM.MSG.GET.{PARKED}", body))["message"]
    except wire.JetStreamRefused as error:
        if error.code != wire.MESSAGE_NOT_FOUND:
            raise
        return None


def _parked(message: dict[str, Any]) -> Parked:
    parked = msgspec.msgpack.decode(base64.b64decode(message["data"]), type=Parked)
    parked.id = message["seq"]
    return parked
