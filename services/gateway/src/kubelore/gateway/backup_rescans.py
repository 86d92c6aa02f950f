"""`/api/k8s/yaml/backup/rescan`: backups of the blob store that MongoDB has lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts.rescans import RESCAN, Rescan
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented


class RefusedBackup(BaseModel):
    """A folder of the blob store that is no backup of this installation, and why."""

    id: str
    reason: str
    error: str


class RescannedBackups(BaseModel):
    """What one round met; send `continue` for the next."""

    found: list[str] = Field(description="Backups that are known again.")
    known: int = Field(description="Folders that MongoDB knew of.")
    refused: list[RefusedBackup]
    continue_: str | None = Field(None, alias="continue")


def backup_rescan_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over yaml-vcs."""
    router = APIRouter(prefix="/api/k8s/yaml/backup", tags=["backups"])

    @router.post(
        "/rescan",
        response_model=RescannedBackups,
        summary="Know the backups of the blob store again",
        responses=documented(403, 410),
        dependencies=[audited("backups.rescan")],
    )
    async def rescan(
        caller: Annotated[Caller, CallerOf],
        continue_: Continue = "",
    ) -> Response:
        caller.check_admin("look for backups in the blob store")
        binding = msgspec.json.encode([caller.subject, "rescan"]).decode()
        after = _after(continuation.open(continue_, binding)) if continue_ else ""
        told = await bus.request(RESCAN, Rescan(after=after))
        shown = {
            "found": told.found,
            "known": told.known,
            "refused": told.refused,
            "continue": continuation.seal([told.next], binding) if told.next else None,
        }
        return json_answer(shown)

    return router


def _after(position: Sequence[object]) -> str:
    match position:
        case [str(after)]:
            return after
    raise BadRequest("the continue token is no position among backups")
