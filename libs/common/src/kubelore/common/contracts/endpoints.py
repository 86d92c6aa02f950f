"""Every endpoint of every service: what the AsyncAPI document and the allow-lists of the bus are made from."""

from __future__ import annotations

from typing import Any

from kubelore.common.contracts import clusters, resources, versions, writes
from kubelore.common.contracts.endpoint import Endpoint

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    *clusters.ENDPOINTS,
    *resources.ENDPOINTS,
    *versions.ENDPOINTS,
    *writes.ENDPOINTS,
)
