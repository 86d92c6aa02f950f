"""Every endpoint of every service: what the AsyncAPI document and the allow-lists of the bus are made from."""

from __future__ import annotations

from typing import Any

from kubelore.common.contracts import (
    backup_keys,
    backup_policies,
    backups,
    branches,
    clusters,
    container_history,
    containers,
    exec_policies,
    execution,
    exports,
    files,
    keeping,
    live,
    log_policies,
    log_streams,
    rescans,
    resources,
    restores,
    rollbacks,
    timelines,
    transfers,
    validation,
    verifying,
    versions,
    vouching,
    writes,
)
from kubelore.common.contracts.endpoint import Endpoint

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    *backup_keys.ENDPOINTS,
    *backup_policies.ENDPOINTS,
    *backups.ENDPOINTS,
    *branches.ENDPOINTS,
    *clusters.ENDPOINTS,
    *container_history.ENDPOINTS,
    *containers.ENDPOINTS,
    *exec_policies.ENDPOINTS,
    *execution.ENDPOINTS,
    *exports.ENDPOINTS,
    *files.ENDPOINTS,
    *keeping.ENDPOINTS,
    *live.ENDPOINTS,
    *log_streams.ENDPOINTS,
    *log_policies.ENDPOINTS,
    *rescans.ENDPOINTS,
    *resources.ENDPOINTS,
    *restores.ENDPOINTS,
    *rollbacks.ENDPOINTS,
    *timelines.ENDPOINTS,
    *transfers.ENDPOINTS,
    *verifying.ENDPOINTS,
    *validation.ENDPOINTS,
    *versions.ENDPOINTS,
    *vouching.ENDPOINTS,
    *writes.ENDPOINTS,
)
