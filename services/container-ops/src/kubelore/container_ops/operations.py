"""The journal of what is done in containers: written before the effect, and again when it has ended.

What cannot be written down is not done. Command, reason and result are sealed
by the keyring `logs`; what an operation is of, who did it and when are not, so
that they can be searched. A replica says of its running operations every 15 s
that it lives; those of one that is silent for a minute are called unknown, and
what they left is looked after (`orphans.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.container_history import ContainerOperation, OperationKind, OperationStatus
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.crypto import Keyring
from kubelore.common.errors import KubeloreError
from kubelore.common.operations import current_operation, new_operation_id
from kubelore.common.store.filters import MAX_CHOICES
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.operation_repository import OperationRepository, Row
from kubelore.container_ops.sighting import Seen

log = get_logger(__name__)

BEAT_S = 15.0
SILENT_S = 60.0
_END_S = 5.0


class _Asked(msgspec.Struct):
    command: list[str]
    reason: str


@dataclass
class Entry:
    """One operation under way. Put into `result` what is to be kept of how it ended (JSON values).

    `status` may be set where no exception tells it: a command that could not
    be run, or one that its caller ended.
    """

    operation_id: str
    result: dict[str, Any] = field(default_factory=dict)
    status: OperationStatus = "completed"


class Journal:
    """Writes operations down, and opens what was written."""

    def __init__(
        self, repository: OperationRepository, keyring: Keyring, replica: str, kept: timedelta
    ) -> None:
        self._repository = repository
        self._keyring = keyring
        self._replica = replica
        self._kept = kept
        self._running: set[str] = set()

    @asynccontextmanager
    async def recording(
        self,
        kind: OperationKind,
        target: ContainerId,
        command: list[str],
        *,
        session_id: str = "",
        reason: str = "",
    ) -> AsyncGenerator[Entry]:
        """Do what the block does as an operation of the current caller.

        Raises Unavailable when it cannot be written down, before anything is
        done. An error of the block makes it failed, being cancelled makes it
        cancelled; both go on to the caller.
        """
        entry = Entry(new_operation_id())
        await self._repository.begin(self._row(entry.operation_id, kind, target, command, session_id, reason))
        self._running.add(entry.operation_id)
        try:
            yield entry
        except KubeloreError as error:
            entry.status = "failed"
            entry.result.setdefault("error", error.detail)
            entry.result.setdefault("error_reason", error.reason)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            entry.status = "cancelled"
            raise
        except BaseException:
            entry.status = "failed"
            raise
        finally:
            self._running.discard(entry.operation_id)
            await asyncio.shield(asyncio.create_task(self._end(entry)))

    async def run(self) -> None:
        """Keep alive what runs here, and give up what nobody keeps alive, until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                running = sorted(self._running)
                for start in range(0, len(running), MAX_CHOICES):
                    await self._repository.still_running(running[start : start + MAX_CHOICES])
                lost = await self._repository.give_up(SILENT_S)
            except KubeloreError as error:
                log.warning("the journal of operations is not kept up", detail=error.detail)
                continue
            if lost:
                log.warning("operations whose replica died", count=lost)

    def seen(self, entry: Entry) -> Seen:
        """Writes down which process the command of an entry is, so that it can be ended when this replica dies."""
        return partial(self._repository.seen, entry.operation_id)

    async def end(self, id_: str, status: OperationStatus, result: dict[str, Any]) -> None:
        """Write down how an operation ended. Raises Unavailable."""
        sealed = self._keyring.seal(msgspec.msgpack.encode(result), context=_place(id_, "result"))
        await self._repository.end(id_, status, sealed)

    def opened(self, row: Row) -> ContainerOperation:
        """An operation as it is shown. Raises IntegrityError when it was altered."""
        asked = msgspec.msgpack.decode(
            self._keyring.open(row.sealed, context=_place(row.id, "asked")), type=_Asked
        )
        result: dict[str, Any] = {}
        if row.outcome:
            opened = self._keyring.open(row.outcome, context=_place(row.id, "result"))
            result = msgspec.msgpack.decode(opened, type=dict[str, Any])
        return ContainerOperation(
            id=row.id,
            operation_type=row.kind,
            cluster_id=row.cluster,
            namespace=row.namespace,
            pod_name=row.pod,
            container_name=row.container,
            command=asked.command,
            result=result,
            status=row.status,
            executed_by=row.user,
            executed_at=row.at,
            finished_at=row.finished_at,
            session_id=row.session,
            request_id=row.request,
            reason=asked.reason,
        )

    def _row(
        self,
        id_: str,
        kind: OperationKind,
        target: ContainerId,
        command: list[str],
        session_id: str,
        reason: str,
    ) -> Row:
        now = datetime.now(UTC)
        asked = msgspec.msgpack.encode(_Asked(command, reason))
        return Row(
            id=id_,
            kind=kind,
            cluster=target.cluster,
            namespace=target.namespace,
            pod=target.pod,
            container=target.container,
            status="running",
            user=current_caller().subject,
            at=now,
            seen_at=now,
            expires_at=now + self._kept,
            replica=self._replica,
            sealed=self._keyring.seal(asked, context=_place(id_, "asked")),
            session=session_id,
            request=current_operation(),
        )

    async def _end(self, entry: Entry) -> None:
        try:
            async with asyncio.timeout(_END_S):
                await self.end(entry.operation_id, entry.status, entry.result)
        except (KubeloreError, TimeoutError) as error:
            # It was done: whoever waits is told so, and the entry becomes `unknown` in a minute.
            log.error(
                "the end of an operation is not on record", operation=entry.operation_id, error=str(error)
            )


def _place(id_: str, part: str) -> str:
    return f"container-operation:{id_}:{part}"
