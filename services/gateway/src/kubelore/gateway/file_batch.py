"""Many changes of files: in order within a container, in parallel over containers, each with its own result."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.files import CHANGE_FILE, ChangedFile, ChangeFile
from kubelore.common.errors import KubeloreError, TooLarge
from kubelore.gateway.audit.requests import Act, intend
from kubelore.gateway.batch import Skipped
from kubelore.gateway.file_schemas import MAX_ITEMS, FileBatchBody

PARALLEL = 16
BATCH_S = 120.0


async def run_batch(bus: Bus, containers: list[str], body: FileBatchBody) -> dict[str, Any]:
    """Carry out every operation in every container. Raises BadRequest and TooLarge before anything is done."""
    ids = list(dict.fromkeys(str(ContainerId.parse(one)) for one in containers))
    if len(ids) * len(body.operations) > MAX_ITEMS:
        raise TooLarge(f"more than {MAX_ITEMS} changes at once", remedy="Send them in several batches.")
    acts = await intend([(f"files.{one.action}", container) for container in ids for one in body.operations])
    room = asyncio.Semaphore(PARALLEL)
    until = asyncio.get_running_loop().time() + BATCH_S
    size = len(body.operations)
    parts = [
        _in_container(bus, container, body, acts[size * place : size * (place + 1)], room, until)
        for place, container in enumerate(ids)
    ]
    results = [one for part in await asyncio.gather(*parts) for one in part]
    skipped = sum(one["skipped"] for one in results)
    succeeded = sum(one["ok"] for one in results)
    return {
        "results": [{"index": index, **one} for index, one in enumerate(results)],
        "succeeded": succeeded,
        "failed": len(results) - succeeded - skipped,
        "skipped": skipped,
    }


async def _in_container(
    bus: Bus, id: str, body: FileBatchBody, acts: list[Act], room: asyncio.Semaphore, until: float
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    failed = False
    async with room:
        for operation, act in zip(body.operations, acts, strict=True):
            asked = ChangeFile(container=id, debug=body.debug, reason=body.reason, **operation.plain())
            try:
                if body.stop_on_error and failed:
                    raise Skipped(
                        "not begun: an earlier change failed", remedy="Send what was skipped again."
                    )
                changed = await _change(bus, asked, until)
            except KubeloreError as error:
                failed = True
                act.fail(error)
                results.append(_failed(asked, error))
            else:
                act.settle(200)
                results.append(_done(asked, changed))
    return results


async def _change(bus: Bus, asked: ChangeFile, until: float) -> ChangedFile:
    left = until - asyncio.get_running_loop().time()
    if left <= 0:
        raise Skipped(f"not begun: the batch took longer than {BATCH_S:g} s", remedy="Send it again.")
    return await bus.request(CHANGE_FILE, asked)


def _done(asked: ChangeFile, changed: ChangedFile) -> dict[str, Any]:
    return {
        "container": changed.container,
        "action": asked.action,
        "path": asked.path,
        "ok": True,
        "skipped": False,
        "file": msgspec.to_builtins(changed.file),
        "operation_id": changed.operation_id,
        "error": None,
    }


def _failed(asked: ChangeFile, error: KubeloreError) -> dict[str, Any]:
    fault = {
        "status": error.status,
        "reason": error.reason,
        "detail": error.detail,
        "remedy": error.remedy or "",
    }
    return {
        "container": asked.container,
        "action": asked.action,
        "path": asked.path,
        "ok": False,
        "skipped": isinstance(error, Skipped),
        "file": None,
        "operation_id": "",
        "error": fault,
    }
