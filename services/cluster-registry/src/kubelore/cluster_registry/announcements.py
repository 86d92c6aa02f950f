"""What happened to clusters, told on the bus."""

from __future__ import annotations

import time

from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts.clusters import (
    ClusterConnection,
    ClusterEvent,
    Happened,
    cluster_event_subject,
)
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

ANNOUNCE_S = 2.0
"""Less than what is left of any request's deadline: what happened has happened, heard or not."""

REGISTRY = "cluster-registry"
"""The actor of what nobody asked for: renewals, recoveries."""


class Announcements:
    """Tells who waits; whoever does not hear it reads the list again within seconds."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def tell(
        self, cluster: ClusterConnection, happened: Happened, *, detail: str = "", actor: str | None = None
    ) -> None:
        """Publish an event; `actor` is the current caller when not given."""
        event = ClusterEvent(
            cluster=cluster.id,
            happened=happened,
            at=time.time(),
            actor=current_caller().subject if actor is None else actor,
            generation=cluster.generation,
            detail=detail,
        )
        try:
            await self._bus.publish_event(cluster_event_subject(event), event, deadline_s=ANNOUNCE_S)
        except KubeloreError as error:
            log.warning("event not published", cluster=cluster.id, happened=happened, detail=error.detail)
