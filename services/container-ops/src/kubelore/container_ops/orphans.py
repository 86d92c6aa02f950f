"""Looks after what replicas were doing that died: what they left in containers is ended, or removed.

An operation whose replica was silent for a minute is called unknown; a replica
that lives after all says so within 15 s. One of which nothing was heard for
another minute is an orphan: whichever replica takes it on ends its process and
writes down what is known. Of an upload that nobody can take up again, and of a
file that was being written, it removes what lies beside its place.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from kubelore.common.contracts.container_history import OperationStatus
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import DeadlineExceeded, KubeloreError, NotFound, TooManyRequests, Unavailable
from kubelore.common.reach import Reach
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.file_paths import path_bytes
from kubelore.container_ops.operation_repository import OperationRepository, Row
from kubelore.container_ops.operations import BEAT_S, SILENT_S, Journal
from kubelore.container_ops.receiving import drop
from kubelore.container_ops.stopping import Process, end_process, processes
from kubelore.container_ops.toolbox import Toolboxes

log = get_logger(__name__)

_AT_ONCE = 20
_LOOK_S = 20.0
_LATER = (Unavailable, DeadlineExceeded, TooManyRequests)

Known: TypeAlias = tuple[OperationStatus, dict[str, Any]]

_LEAVE_FILES = ("files:upload", "files:write")
_DIED = "the replica that did it died, or could not write down how it ended"
_GONE: Known = "unknown", {"stopped": True, "error": f"{_DIED}; what it ran had ended when it was looked for"}
_ENDED: Known = "cancelled", {"stopped": True, "error": f"{_DIED}; what it ran was found and ended"}
_UNSEEN: Known = "unknown", {"stopped": False, "error": f"{_DIED}; which process it ran is not known"}
_DROPPED: Known = (
    "unknown",
    {"error": f"{_DIED}; beside the file's place is nothing left of it but what can be taken up again"},
)


class Orphans:
    """Operations whose replica died."""

    def __init__(
        self, repository: OperationRepository, journal: Journal, reach: Reach, toolboxes: Toolboxes
    ) -> None:
        self._repository = repository
        self._journal = journal
        self._reach = reach
        self._toolboxes = toolboxes

    async def run(self) -> None:
        """Look after them, until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.look()
            except KubeloreError as error:
                log.warning("operations of dead replicas are not looked after", detail=error.detail)

    async def look(self, silent_s: float = SILENT_S) -> None:
        """Look after those that nobody else does. Raises what the store does."""
        for row in await self._repository.orphaned(silent_s, _AT_ONCE):
            if not await self._repository.claim(row):
                continue
            try:
                async with asyncio.timeout(_LOOK_S):
                    status, result = await self._known(row)
            except (*_LATER, TimeoutError) as error:
                log.info("an operation of a dead replica is tried again", operation=row.id, error=str(error))
                continue
            await self._journal.end(row.id, status, result)
            log.info("looked after an operation of a dead replica", operation=row.id, status=status)

    async def _known(self, row: Row) -> Known:
        """What is known of it, after what it left was ended or removed."""
        target = ContainerId(row.cluster, row.namespace, row.pod, row.container)
        try:
            command = self._journal.opened(row).command
            if row.kind == "exec":
                return await self._ended(target, row.process)
            if row.kind == "file" and command[0] in _LEAVE_FILES:
                return await self._dropped(target, path_bytes(command[1]), row.id)
        except _LATER:
            raise
        except KubeloreError as error:
            return "unknown", {"error": f"{_DIED}; {error.detail}"}
        return "unknown", {"error": _DIED}

    async def _ended(self, target: ContainerId, process: Process | None) -> Known:
        if process is None:
            return _UNSEEN
        async with self._reach.streaming(target.cluster) as reached:
            try:
                rows = await processes(reached, target)
            except NotFound:
                return _GONE
            ending = await end_process(reached, target, process, rows)
        return {"ended": _ENDED, "gone": _GONE, "unknown": _UNSEEN}[ending]

    async def _dropped(self, target: ContainerId, path: bytes, id_: str) -> Known:
        async with self._reach.streaming(target.cluster) as reached:
            await drop(await self._toolboxes.of(reached, target), reached, path, id_)
        return _DROPPED
