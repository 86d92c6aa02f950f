"""The history of what was done in containers, for who may see it.

It is shown to whoever has the right `exec` in the namespace, and one's own to
oneself. What is searched by text is sealed, so that each row is opened for it:
one request looks through 2,000 rows at most, and says where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.callers import current_caller
from kubelore.common.contracts.container_history import (
    MAX_PAGE,
    ContainerOperation,
    ContainerOperationRef,
    ContainerOperations,
    ListContainerOperations,
)
from kubelore.common.errors import BadRequest, NotFound
from kubelore.common.store import Condition, gte, lt
from kubelore.common.store.filters import Scalar
from kubelore.container_ops.operation_repository import OperationRepository, Row
from kubelore.container_ops.operations import Journal

MAX_LOOKED_THROUGH = 2000
_BATCH = 200
_SHOWN_WORD = 200
_SHOWN_WORDS = 20
_LONG = ("stdout", "stderr", "items")
"""Members of a result that only the whole operation shows."""


class PastOperations:
    """Answers LIST_OPERATIONS and GET_OPERATION."""

    def __init__(self, repository: OperationRepository, journal: Journal) -> None:
        self._repository = repository
        self._journal = journal

    async def get(self, request: ContainerOperationRef) -> ContainerOperation:
        """One operation, whole. Raises NotFound also for one that the caller may not see."""
        missing = NotFound(
            f"there is no operation {request.id[:80]!r}", remedy="`kubelore operations` lists them."
        )
        try:
            row = await self._repository.get(request.id)
        except NotFound as error:
            raise missing from error
        if not may_see(current_caller(), row):
            raise missing
        return self._journal.opened(row)

    async def list(self, request: ListContainerOperations) -> ContainerOperations:
        """A page of what the caller may see, newest first. Raises BadRequest."""
        if not 1 <= request.limit <= MAX_PAGE:
            raise BadRequest(f"a page has 1 to {MAX_PAGE} operations")
        caller, where, before = current_caller(), _where(request), request.before
        page: list[ContainerOperation] = []
        for _ in range(MAX_LOOKED_THROUGH // _BATCH):
            rows = await self._repository.newest(where, before, _BATCH)
            for row in rows:
                before = row.id
                if (shown := self._shown(caller, row, request.text.casefold())) is None:
                    continue
                page.append(shown)
                if len(page) == request.limit:
                    return ContainerOperations(items=page, next=before)
            if len(rows) < _BATCH:
                return ContainerOperations(items=page)
        return ContainerOperations(items=page, next=before)

    def _shown(self, caller: Caller, row: Row, text: str) -> ContainerOperation | None:
        if not may_see(caller, row):
            return None
        opened = self._journal.opened(row)
        return _short(opened) if not text or _mentions(opened, text) else None


def may_see(caller: Caller, row: Row) -> bool:
    """Whether an operation is one's own, in a cluster still seen, or in a namespace where one has the right `exec`."""
    if row.user == caller.subject and caller.sees(row.cluster):
        return True
    return caller.namespaces(row.cluster, right="exec").matches(row.namespace)


def _where(request: ListContainerOperations) -> dict[str, Scalar | Condition]:
    exact = {
        "cluster": request.cluster,
        "namespace": request.namespace,
        "pod": request.pod,
        "container": request.container,
        "kind": request.kind,
        "user": request.user,
        "status": request.status,
        "session": request.session,
    }
    where: dict[str, Scalar | Condition] = {field: value for field, value in exact.items() if value}
    bounds: Sequence[Condition | None] = (
        gte(_moment(request.since)) if request.since is not None else None,
        lt(_moment(request.until)) if request.until is not None else None,
    )
    for bound in bounds:
        if bound is not None:
            held = where.get("at")
            where["at"] = held & bound if isinstance(held, Condition) else bound
    return where


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise BadRequest("a time is out of range") from error


def _mentions(operation: ContainerOperation, text: str) -> bool:
    told: Any = (operation.command, operation.reason, operation.result)
    return (
        text in " ".join(operation.command).casefold()
        or text in msgspec.json.encode(told).decode().casefold()
    )


def _short(operation: ContainerOperation) -> ContainerOperation:
    words = [word if len(word) <= _SHOWN_WORD else word[:_SHOWN_WORD] + "…" for word in operation.command]
    if len(words) > _SHOWN_WORDS:
        words = [*words[:_SHOWN_WORDS], "…"]
    result = {key: value for key, value in operation.result.items() if key not in _LONG}
    return msgspec.structs.replace(operation, command=words, result=result)
