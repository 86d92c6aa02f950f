"""The bus endpoints of container-ops: one line to the domain each."""

from __future__ import annotations

from kubelore.common.bus import Bus, Service
from kubelore.common.contracts import containers
from kubelore.container_ops.pods import Pods

VERSION = "0.1.0"


def endpoints(bus: Bus, pods: Pods) -> Service:
    """The ADR-32 service: any replica answers."""
    service = Service(bus, containers.SERVICE, VERSION)
    service.serve(containers.CONTAINERS, pods.containers)
    return service
