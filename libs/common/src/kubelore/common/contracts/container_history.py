"""What was done in containers: commands, terminals, readings of logs, and operations on files."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint

OperationKind: TypeAlias = Literal["exec", "log", "file"]
"""`exec` is a command or a terminal; a terminal has a `session_id`."""
OperationStatus: TypeAlias = Literal["running", "completed", "failed", "cancelled", "unknown"]
"""`unknown`: begun, and whoever did it died before it could say how it ended."""
MAX_PAGE = 500


class ContainerOperation(msgspec.Struct, kw_only=True):
    """One thing that was done in a container.

    `command` and `result` are sealed at rest; pages show them cut short.
    `request_id` is the operation that the gateway answered in `Operation-Id`,
    which audit and the other operations of the same request name too.
    """

    id: str
    operation_type: OperationKind
    cluster_id: str
    namespace: str
    pod_name: str
    container_name: str
    command: list[str]
    result: dict[str, Any]
    status: OperationStatus
    executed_by: str
    executed_at: datetime
    finished_at: datetime | None = None
    session_id: str = ""
    request_id: str = ""
    reason: str = ""


class ListContainerOperations(msgspec.Struct, kw_only=True):
    """Operations newest first, each condition met where it is given; times are seconds since 1970.

    `before` is the `next` of the page before. `text` is looked for in command,
    reason and result, without regard to case.
    """

    cluster: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    kind: OperationKind | Literal[""] = ""
    user: str = ""
    status: OperationStatus | Literal[""] = ""
    session: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None
    before: str = ""
    limit: int = 100


class ContainerOperations(msgspec.Struct, kw_only=True):
    """A page. `next` is empty at the end; a page may hold less than was asked for and yet have a next one."""

    items: list[ContainerOperation]
    next: str = ""


class ContainerOperationRef(msgspec.Struct, frozen=True):
    """One operation by its id."""

    id: str


LIST_OPERATIONS = Endpoint(
    SERVICE, "list-operations", ListContainerOperations, ContainerOperations, deadline_s=15.0
)
GET_OPERATION = Endpoint(SERVICE, "get-operation", ContainerOperationRef, ContainerOperation)

ENDPOINTS = (LIST_OPERATIONS, GET_OPERATION)
