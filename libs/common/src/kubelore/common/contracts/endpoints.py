"""Every endpoint of every service: what the AsyncAPI document and the allow-lists of the bus are made from."""

from __future__ import annotations

from typing import Any

from kubelore.common.contracts import (
    backups,
    branches,
    clusters,
    exports,
    keeping,
    live,
    resources,
    restores,
    rollbacks,
    timelines,
    versions,
    vouching,
    writes,
)
from kubelore.common.contracts.endpoint import Endpoint

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    *backups.ENDPOINTS,
    *branches.ENDPOINTS,
    *clusters.ENDPOINTS,
    *keeping.ENDPOINTS,
    *resources.ENDPOINTS,
    *timelines.ENDPOINTS,
    *versions.ENDPOINTS,
    *vouching.ENDPOINTS,
    *writes.ENDPOINTS,
    *exports.ENDPOINTS,
    *restores.ENDPOINTS,
    *live.ENDPOINTS,
    *rollbacks.ENDPOINTS,
)
