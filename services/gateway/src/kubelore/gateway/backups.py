"""`/api/k8s/yaml/backup`: encrypted backups, as HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.convertors import StringConvertor, register_url_convertor

from kubelore.common.authz import Caller
from kubelore.common.backups import archive, archive_size
from kubelore.common.bus import Bus
from kubelore.common.contracts import backups
from kubelore.common.contracts.backups import (
    MAX_LISTED,
    MAX_NAME,
    MAX_REASON,
    MAX_RETENTION_DAYS,
    BackupRef,
    CreateBackup,
    ListBackups,
    ReadFile,
)
from kubelore.common.errors import BadRequest, TooLarge
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf, StandingOf
from kubelore.gateway.event_stream import Outflow
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.schemas import LINE
from kubelore.gateway.standing import Standing

_ID = r"[0-9]{8}-[0-9]{6}-[0-9a-f]{12}"
BackupId = Annotated[str, Path(pattern=f"^{_ID}$", examples=["20261124-030000-5f0c1d2e3a4b"])]


class _BackupIds(StringConvertor):
    """Lets only ids of backups stand in a path, so that `policies` and `create` are no backups of that name."""

    regex = _ID


register_url_convertor("backup", _BackupIds())
Selector = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=LINE)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=LINE)]


class BackupBody(BaseModel):
    """What is to be kept, for how long, and why."""

    model_config = ConfigDict(extra="forbid")

    clusters: list[Selector] = Field(
        [],
        max_length=MAX_LISTED,
        description="Names, group:x and tag:y; all that the caller sees when empty.",
    )
    namespaces: list[Name] = Field(
        [], max_length=MAX_LISTED, description="All, and what is in none, when empty."
    )
    types: list[Name] = Field(
        [], max_length=MAX_LISTED, description="As kubectl names them; all that anybody restores when empty."
    )
    labels: Annotated[str, StringConstraints(max_length=5000, pattern=LINE)] = Field(
        "", description="A label selector."
    )
    name: Annotated[str, StringConstraints(max_length=MAX_NAME, pattern=LINE)] = ""
    retention_days: int = Field(30, ge=0, le=MAX_RETENTION_DAYS, description="0: until somebody deletes it.")
    reason: Annotated[str, StringConstraints(max_length=MAX_REASON, pattern=LINE)] = ""


class BackupCluster(BaseModel):
    """How far one cluster is; `expected` is 0 where nobody knows."""

    cluster: str
    status: Literal["pending", "running", "completed", "failed"]
    objects: int
    bytes: int
    expected: int
    types: int
    types_done: int


class BackupMissing(BaseModel):
    """What was asked for and is not in the backup, and why."""

    cluster: str
    type: str = ""
    namespace: str = ""
    error: str = ""


class BackupVerification(BaseModel):
    """The last time that all of it was read and compared; `reason` names what was found."""

    state: Literal["running", "passed", "failed"]
    started_at: str
    finished_at: str = ""
    objects: int = 0
    reason: str = ""
    error: str = ""


class BackupInfo(BaseModel):
    """A backup and how far it is."""

    id: str
    name: str
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    partial: bool = Field(description="Something that was asked for is not in it; see `missing`.")
    clusters: list[BackupCluster]
    namespaces: list[str]
    types: list[str]
    labels: str
    created_by: str
    reason: str
    policy: str
    created_at: datetime
    started_at: str
    completed_at: str
    expires_at: str
    objects: int
    bytes: int = Field(description="Of the objects' JSON.")
    size: int = Field(description="Bytes of the sealed files.")
    missing: list[BackupMissing]
    error: str
    verification: BackupVerification | None
    key_ids: list[str] = Field(description="Keys of the keyring `versions`, any of which opens it.")
    unreadable: str = Field(description="Why it cannot be read any more: its keys are gone.")


class BackupList(BaseModel):
    """One page of backups, newest first."""

    items: list[BackupInfo]
    continue_: str | None = Field(None, alias="continue")


class BackupProgress(BaseModel):
    """How far it is, in few words; `expected` is 0 where nobody knows."""

    id: str
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    objects: int
    bytes: int
    expected: int
    clusters: list[BackupCluster]
    verification: BackupVerification | None


class BackupDeleted(BaseModel):
    """The backup is gone."""

    id: str


def backup_routes(bus: Bus, roster: Roster, continuation: Continuation) -> APIRouter:
    """The router over yaml-vcs."""
    router = APIRouter(prefix="/api/k8s/yaml/backup", tags=["backups"])
    _making(router, bus, roster)
    _reading(router, bus, continuation)
    _downloading(router, bus)
    return router


def _making(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "/create",
        status_code=202,
        response_model=BackupInfo,
        summary="Begin a backup",
        responses=documented(404),
        dependencies=[audited("backups.create")],
    )
    async def create(caller: Annotated[Caller, CallerOf], body: BackupBody) -> Response:
        asked = CreateBackup(
            clusters=roster.select(caller, body.clusters),
            namespaces=body.namespaces,
            types=body.types,
            labels=body.labels,
            name=body.name,
            retention_days=body.retention_days,
            reason=body.reason,
        )
        return json_answer(await bus.request(backups.CREATE, asked), 202)

    @router.post(
        "/{id}/cancel",
        response_model=BackupInfo,
        summary="Stop making a backup",
        responses=documented(404, 409),
        dependencies=[audited("backups.cancel", path="id", of="backups")],
    )
    async def cancel(id: BackupId) -> Response:
        return json_answer(await bus.request(backups.CANCEL, BackupRef(id)))

    @router.post(
        "/{id}/verify",
        status_code=202,
        response_model=BackupInfo,
        summary="Begin to read all of a backup and compare it with its manifest",
        responses=documented(404, 409),
        dependencies=[audited("backups.verify", path="id", of="backups")],
    )
    async def verify(id: BackupId) -> Response:
        return json_answer(await bus.request(backups.VERIFY_BACKUP, BackupRef(id)), 202)

    @router.delete(
        "/{id:backup}",
        response_model=BackupDeleted,
        summary="Delete a backup with its files",
        responses=documented(404, 409),
        dependencies=[audited("backups.delete", path="id", of="backups")],
    )
    async def delete(id: BackupId) -> Response:
        return json_answer(await bus.request(backups.DELETE, BackupRef(id)))


def _reading(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get("", response_model=BackupList, summary="The backups, newest first", responses=documented(410))
    async def list_backups(
        caller: Annotated[Caller, CallerOf],
        status: Annotated[
            Literal["pending", "running", "completed", "failed", "cancelled"] | None, Query()
        ] = None,
        cluster: Annotated[str, Query(max_length=63)] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        continue_: Continue = "",
    ) -> Response:
        asked = ListBackups(status=status or "", cluster=cluster, limit=limit)
        binding = msgspec.json.encode([caller.subject, "backups", asked.status, asked.cluster]).decode()
        if continue_:
            asked.before = _before(continuation.open(continue_, binding))
        page = await bus.request(backups.LIST_BACKUPS, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": page.items, "continue": token})

    @router.get("/{id:backup}", response_model=BackupInfo, summary="One backup", responses=documented(404))
    async def get(id: BackupId) -> Response:
        return json_answer(await bus.request(backups.GET_BACKUP, BackupRef(id)))

    @router.get(
        "/{id}/progress",
        response_model=BackupProgress,
        summary="How far a backup is",
        responses=documented(404),
    )
    async def progress(id: BackupId) -> Response:
        found = await bus.request(backups.GET_BACKUP, BackupRef(id))
        told = {
            "id": found.id,
            "status": found.status,
            "objects": found.objects,
            "bytes": found.bytes,
            "expected": sum(one.expected for one in found.clusters),
            "clusters": found.clusters,
            "verification": found.verification,
        }
        return json_answer(told)


def _downloading(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/{id}/download",
        response_class=StreamingResponse,
        summary="A backup as one file, still encrypted",
        responses={
            200: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}},
            **documented(404, 409),
        },
        dependencies=[audited("backups.download", path="id", of="backups")],
    )
    async def download(id: BackupId, standing: Annotated[Standing, StandingOf]) -> Response:
        files = await bus.request(backups.FILES, BackupRef(id))
        headers = {
            "Content-Length": str(archive_size(files.sizes)),
            "Content-Disposition": f'attachment; filename="kubelore-backup-{id}.tar"',
        }
        pieces = archive(_Remote(bus, id, files.sizes), id, files.sizes)
        return Outflow(pieces, standing, "application/x-tar", headers)


class _Remote:
    """The files of a backup, asked of yaml-vcs one by one as the caller of this request."""

    def __init__(self, bus: Bus, backup_id: str, sizes: dict[str, int]) -> None:
        self._bus = bus
        self._id = backup_id
        self._sizes = sizes

    async def sizes(self) -> dict[str, int]:
        return self._sizes

    async def read(self, name: str, *, max_bytes: int) -> bytes:
        found = await self._bus.request(backups.FILE, ReadFile(self._id, name))
        if len(found.content) > max_bytes:
            raise TooLarge(f"{name} of the backup {self._id} is larger than any file of a backup.")
        return found.content


def _before(position: Sequence[object]) -> str:
    match position:
        case [str(before)]:
            return before
    raise BadRequest("the continue token is no position among backups")
