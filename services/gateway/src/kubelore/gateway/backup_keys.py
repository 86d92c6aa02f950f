"""`/api/k8s/yaml/backup/keys`: which keys the backups still need."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from kubelore.common.bus import Bus
from kubelore.common.contracts.backup_keys import KEYS, AskKeys
from kubelore.gateway.answering import json_answer
from kubelore.gateway.problems import documented


class BackupKey(BaseModel):
    """One key of the keyring `versions`, without its secret."""

    id: str
    state: str = Field(description="active, retired or removed.")
    created_at: str
    backups: int = Field(description="Backups that cannot be read without it.")
    policies: int = Field(description="Backup policies that cannot run without it.")


class BackupKeys(BaseModel):
    """Every key, oldest first."""

    keys: list[BackupKey]
    unlooked: int = Field(description="Backups that nobody has looked at yet, which takes half a minute.")
    unreadable: list[str] = Field(description="Backups whose keys are all gone; at most 100.")


def backup_key_routes(bus: Bus) -> APIRouter:
    """The router. It stands before that of backups, since `keys` is no id of one."""
    router = APIRouter(prefix="/api/k8s/yaml/backup", tags=["backups"])

    @router.get(
        "/keys",
        response_model=BackupKeys,
        summary="Which key is needed by how many backups",
        responses=documented(403),
    )
    async def list_keys() -> Response:
        found = await bus.request(KEYS, AskKeys())
        return json_answer(found)

    return router
