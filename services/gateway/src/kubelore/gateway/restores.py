"""`/api/k8s/yaml/restore`: restoring from backups, and what became of each object."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import restores
from kubelore.common.contracts.resources import SortKey
from kubelore.common.contracts.restores import (
    Existing,
    ListRestoreItems,
    ListRestores,
    Restore,
    RestoreRef,
    Result,
    StartRestore,
    State,
)
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented
from kubelore.gateway.schemas import LINE, Namespace
from kubelore.gateway.write_schemas import Reason

PREFIX = "/api/k8s/yaml"

Id = Annotated[str, Path(description="The id of a restore, which is its operation's.", max_length=64)]
Limit = Annotated[int, Query(ge=1, le=999)]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=LINE)]
ClusterName = Annotated[str, StringConstraints(max_length=63, pattern="^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]


class RestoreBody(BaseModel):
    """What of a backup to restore, and to where. What is left out is everything, back to where it came from."""

    model_config = ConfigDict(extra="forbid")

    backup_id: str = Field(min_length=1, max_length=63, examples=["20260115-020000-5f2c9d1b7a3e"])
    source: ClusterName = Field("", description="Take only what was backed up of this cluster.")
    cluster: ClusterName = Field("", description="Restore into this cluster; one source only then.")
    namespaces: list[Namespace] = Field([], max_length=100, description="As they were called in the backup.")
    types: list[Glob] = Field([], max_length=100, description="`deployments.apps`, `configmaps`; globs.")
    names: list[Glob] = Field([], max_length=100, description="Names of objects; globs.")
    labels: str = Field("", max_length=4000, pattern=LINE, description="A label selector.")
    namespace_map: dict[Namespace, Namespace] = Field(
        {}, max_length=100, description="Restore into other namespaces; references are renamed too."
    )
    existing: Existing = Field("skip", description="What becomes of an object that is there already.")
    dry_run: bool = Field(False, description="Let the API servers do all but store it.")
    reason: Reason = ""


class RestoreDocument(BaseModel):
    """A restore and how far it is."""

    id: str
    backup_id: str
    source: str
    cluster: str
    namespaces: list[str]
    types: list[str]
    names: list[str]
    labels: str
    namespace_map: dict[str, str]
    existing: Existing
    dry_run: bool
    reason: str
    state: State
    cancelling: bool
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    total: int = Field(description="Objects it is about; 0 until the backup has verified.")
    counts: dict[str, int] = Field(description="Objects by result.")
    error: str | None
    remedy: str | None


class RestoreList(BaseModel):
    """One page of restores, newest first."""

    items: list[RestoreDocument]
    continue_: str | None = Field(None, alias="continue")


class RestoreReason(BaseModel):
    """A rule that decided something about an object, and why."""

    rule: str
    why: str


class RestoredObject(BaseModel):
    """What became of one object of the backup."""

    number: int
    source: str = Field(description="Its id in the backup.")
    id: str = Field(description="Its id where it goes.")
    result: Result
    uid: str
    reasons: list[RestoreReason] = Field(
        description="Why it was left out, or what of it was not taken along."
    )
    error: str = Field(description="Machine-readable, where it failed.")
    detail: str


class RestoredObjects(BaseModel):
    """One page of results, in the order of the backup."""

    items: list[RestoredObject]
    continue_: str | None = Field(None, alias="continue")


def restore_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over what yaml-vcs restores."""
    router = APIRouter(prefix=PREFIX, tags=["backups"])
    router.include_router(_changing(bus))
    router.include_router(_reading(bus, continuation))
    return router


def _changing(bus: Bus) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/backup/restore",
        status_code=202,
        response_model=RestoreDocument,
        summary="Restore from a backup, into the same or another cluster",
        responses=documented(404, 409, 422),
        dependencies=[audited("backups.restore", body="backup_id", of="backups")],
    )
    async def start_restore(body: RestoreBody) -> Response:
        asked = msgspec.convert(body.model_dump(), StartRestore)
        return _answer(await bus.request(restores.START, asked), status=202)

    @router.post(
        "/restore/{id}/cancel",
        status_code=202,
        response_model=RestoreDocument,
        summary="Restore no more; what was restored stays",
        responses=documented(404, 409),
        dependencies=[audited("restores.cancel", path="id", of="restores")],
    )
    async def cancel_restore(id: Id) -> Response:
        return _answer(await bus.request(restores.CANCEL, RestoreRef(id)), status=202)

    return router


def _reading(bus: Bus, continuation: Continuation) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/restore", response_model=RestoreList, summary="Restores, newest first", responses=documented(410)
    )
    async def list_restores(
        caller: Annotated[Caller, CallerOf], limit: Limit = 50, continue_: Continue = ""
    ) -> Response:
        binding = f"restores:{caller.subject}"
        before = _text(continuation.open(continue_, binding)) if continue_ else ""
        page = await bus.request(restores.LIST, ListRestores(before=before, limit=limit))
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": [_document(one) for one in page.items], "continue": token})

    @router.get(
        "/restore/{id}",
        response_model=RestoreDocument,
        summary="One restore, and how far it is",
        responses=documented(404),
    )
    async def get_restore(id: Id) -> Response:
        return _answer(await bus.request(restores.GET, RestoreRef(id)))

    @router.get(
        "/restore/{id}/items",
        response_model=RestoredObjects,
        summary="What became of each object",
        responses=documented(404, 410),
    )
    async def list_restore_items(
        caller: Annotated[Caller, CallerOf],
        id: Id,
        result: Annotated[Result | None, Query(description="Only those with this result.")] = None,
        limit: Limit = 100,
        continue_: Continue = "",
    ) -> Response:
        asked = ListRestoreItems(id=id, result=result or "", limit=limit)
        binding = msgspec.json.encode(["restore", caller.subject, id, asked.result]).decode()
        if continue_:
            asked.after = _number(continuation.open(continue_, binding))
        page = await bus.request(restores.ITEMS, asked)
        token = continuation.seal([page.next], binding) if page.next is not None else None
        return json_answer({"items": page.items, "continue": token})

    return router


def _answer(found: Restore, *, status: int = 200) -> Response:
    answer = json_answer(_document(found))
    answer.status_code = status
    return answer


def _document(found: Restore) -> dict[str, object]:
    told = msgspec.to_builtins(found)
    asked = told.pop("asked")
    for field in ("started_at", "finished_at", "error", "remedy"):
        told[field] = told[field] or None
    return {**asked, **told}


def _text(position: SortKey) -> str:
    match position:
        case [str(text)]:
            return text
    raise BadRequest("the continue token is no position among restores")


def _number(position: SortKey) -> int:
    match position:
        case [int(number)]:
            return number
    raise BadRequest("the continue token is no position in a restore")
