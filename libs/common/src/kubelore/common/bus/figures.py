"""What every replica of every service has done, asked of all at once (`$SRV.STATS` of ADR-32)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import nats.errors

from kubelore.common.errors import Unavailable
from kubelore.common.telemetry import get_logger

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from kubelore.common.bus.connection import Bus

log = get_logger(__name__)

WAIT_S = 0.5
MAX_REPLICAS = 200


class Counts(msgspec.Struct):
    """What one endpoint of one replica has done since its start, and is doing."""

    in_flight: int = 0
    served: int = 0
    failed: int = 0
    refused: int = 0


class EndpointFigures(msgspec.Struct):
    """One endpoint of one replica."""

    name: str
    data: Counts = msgspec.field(default_factory=Counts)


class ServiceFigures(msgspec.Struct):
    """One replica as it describes itself."""

    name: str
    metadata: dict[str, str]
    endpoints: list[EndpointFigures] = []

    @property
    def replica(self) -> str:
        """Its id on the bus."""
        return self.metadata.get("replica", "")


_DECODER = msgspec.json.Decoder(ServiceFigures)


async def service_figures(bus: Bus, *, wait_s: float = WAIT_S) -> list[ServiceFigures]:
    """What has answered within `wait_s`, at most 200 replicas. Raises Unavailable when the bus is away.

    Nobody knows how many there are, so it always takes that long.
    """
    found: list[ServiceFigures] = []

    async def take(message: Msg) -> None:
        with suppress(msgspec.MsgspecError):
            found.append(_DECODER.decode(message.data))

    inbox = bus.client.new_inbox()
    try:
        answers = await bus.client.subscribe(inbox, cb=take, pending_msgs_limit=MAX_REPLICAS)
        try:
            await bus.send("$SRV.STATS", b"", reply=inbox)
            await asyncio.sleep(wait_s)
        finally:
            await answers.unsubscribe()
    except (nats.errors.Error, OSError) as error:
        raise Unavailable("the services cannot be asked for their figures: the bus is away") from error
    return sorted(found[:MAX_REPLICAS], key=lambda one: (one.name, one.replica))
