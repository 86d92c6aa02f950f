"""`/api/k8s/yaml`: the history of every object, as HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import rollbacks, versions
from kubelore.common.contracts.rollbacks import DiffLive
from kubelore.common.contracts.versions import (
    DiffVersions,
    GetVersion,
    ListVersions,
    TakeSnapshot,
    VerifyHistory,
)
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.moments import Moment
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented

ResourceId = Annotated[str, Path(description="cluster:type:namespace:name", max_length=1000)]
Number = Annotated[int, Path(ge=1, le=0xFFFFFFFF, description="The number of a version.")]
To = Annotated[
    Annotated[int, Field(ge=1, le=0xFFFFFFFF)] | Literal["live"] | None,
    Query(description="A version, or `live` for the object as the cluster has it now."),
]
At = Annotated[Moment | None, Query(description="RFC 3339; without an offset in UTC.")]
BRANCH_NAME = r"^[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$"
Branch = Annotated[str, Query(pattern=BRANCH_NAME, description="main, or a draft of the object.")]


class Author(BaseModel):
    """Who made a version, named as what it is."""

    kind: str = Field(description="user: through Kubelore; manager: a field manager of the cluster; unknown.")
    name: str
    operation: str = Field(description="Of a field manager: Update or Apply.")
    probable: bool = Field(description="Of a user: inferred, since the write's own answer was lost.")


class VersionInfo(BaseModel):
    """One version of one object."""

    resource_id: str
    resource_type: str
    cluster: str
    namespace: str
    name: str
    version: int
    branch: str
    happened: str = Field(
        description="observed, created, updated, deleted, vanished (deleted nobody knows when), recorded, missing."
    )
    created_at: datetime
    created_by: str
    actor: Author
    uid: str
    resource_version: str
    commit_hash: str
    is_current: bool
    change_log: str
    tags: list[str]
    operation_id: str
    rules: int = Field(description="The number of the policy it was made under; 0: the defaults.")
    redacted: bool = Field(description="Its content was taken out of the history by an administrator.")


class GapInfo(BaseModel):
    """What is not known of an object, or came too late to be one of its versions."""

    kind: str = Field(
        description="gap: changes of the type were lost; missing: a change waits parked; late: it was replayed since."
    )
    type: str
    namespace: str = Field(description="Empty: of all.")
    since: datetime = Field(description="When a gap was found, or when the change happened.")
    until: datetime | None = Field(description="When everything had been seen again.")
    resource_version: str = Field(description="After which changes were lost, or which a change led to.")
    after_version: int = Field(description="It lies behind this version; 0: before the first.")
    before_version: int | None
    happened: str
    parked: int = Field(description="The number of the parked change; 0 for a gap.")
    reason: str
    yaml_content: str = Field(description="What a late change held; not in lists.")


class VersionList(BaseModel):
    """One page of versions, newest first."""

    items: list[VersionInfo]
    gaps: list[GapInfo] = Field(
        description="Between and behind them; none in the versions of one actor, or of a tag."
    )
    continue_: str | None = Field(None, alias="continue")


class VersionDocument(BaseModel):
    """One version with the object as it was; of a Secret's values only that they are there."""

    version: VersionInfo
    yaml_content: str
    gaps: list[GapInfo] = Field(description="Right before and right behind it.")


class Change(BaseModel):
    """One place that differs; a side that does not have it is absent."""

    path: str
    old: Any = None
    new: Any = None


class Diff(BaseModel):
    """What differs between two versions, for people and for programs."""

    id: str
    from_version: int = Field(description="0: nothing, before the first version.")
    to_version: int | None = Field(None, description="None: the object as the cluster has it now.")
    resource_version: str = Field("", description="Of that object; empty when there is none.")
    diff_content: str = Field(description="Unified diff over YAML.")
    changes: list[Change]


class BlameDocument(BaseModel):
    """Each line as [version that set it, text], and those versions."""

    id: str
    version: int
    lines: list[tuple[int, str]]
    versions: list[VersionInfo]


class SnapshotObject(BaseModel):
    """One object as it was at that time."""

    version: VersionInfo
    yaml_content: str
    gaps: list[GapInfo] = Field(description="What makes uncertain that it was so then.")


class Snapshot(BaseModel):
    """One page of what a namespace held at a time."""

    items: list[SnapshotObject]
    continue_: str | None = Field(None, alias="continue")


class Verification(BaseModel):
    """Whether each version follows from the one before; `broken` is the first that does not."""

    id: str
    versions: int
    ok: bool
    broken: int | None
    why: str = Field(description="What does not verify; empty when all does.")


def version_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over yaml-vcs."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])
    _histories(router, bus, continuation)
    _differences(router, bus)
    _versions(router, bus)
    _snapshots(router, bus, continuation)
    return router


def _histories(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get(
        "/versions/{id}",
        response_model=VersionList,
        summary="The history of an object, newest first",
        responses=documented(404, 410),
    )
    async def list_versions(
        caller: Annotated[Caller, CallerOf],
        id: ResourceId,
        since: At = None,
        until: At = None,
        actor: Annotated[str, Query(max_length=253)] = "",
        tag: Annotated[str, Query(max_length=63, description="Only the version that has this tag.")] = "",
        branch: Branch = versions.MAIN,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        continue_: Continue = "",
    ) -> Response:
        asked = ListVersions(
            id=id, since=since or 0.0, until=until, actor=actor, tag=tag, branch=branch, limit=limit
        )
        binding = _binding(caller, asked)
        if continue_:
            asked.before = _number(continuation.open(continue_, binding))
        page = await bus.request(versions.LIST, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": page.items, "gaps": page.gaps, "continue": token})


def _differences(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/versions/{id}/diff",
        response_model=Diff,
        summary="What differs between two versions",
        responses=documented(404),
    )
    async def diff_versions(
        id: ResourceId,
        from_: Annotated[int | None, Query(alias="from", ge=0, le=0xFFFFFFFF)] = None,
        to: To = None,
        branch: Branch = versions.MAIN,
        against: Annotated[
            str, Query(max_length=63, description="The branch of the older side; the same when not given.")
        ] = "",
    ) -> Response:
        if to == "live":
            if branch != versions.MAIN or against:
                raise BadRequest(
                    "a draft is compared with what is live by its merge", remedy="Merge it with `dry_run`."
                )
            return json_answer(await bus.request(rollbacks.DIFF_LIVE, DiffLive(id=id, from_version=from_)))
        asked = DiffVersions(id=id, from_version=from_, to_version=to, branch=branch, against=against)
        return json_answer(await bus.request(versions.DIFF, asked))

    @router.get(
        "/versions/{id}/blame",
        response_model=BlameDocument,
        summary="Which version set which line",
        responses=documented(404),
    )
    async def blame(
        id: ResourceId,
        version: Annotated[int | None, Query(ge=1, le=0xFFFFFFFF)] = None,
        branch: Branch = versions.MAIN,
    ) -> Response:
        asked = GetVersion(id=id, version=version, branch=branch)
        return json_answer(await bus.request(versions.BLAME, asked))


def _versions(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/versions/{id}/verify",
        response_model=Verification,
        summary="Check that no version was changed, dropped or put in",
        responses=documented(404),
    )
    async def verify(id: ResourceId, branch: Branch = versions.MAIN) -> Response:
        return json_answer(await bus.request(versions.VERIFY, VerifyHistory(id=id, branch=branch)))

    @router.get(
        "/versions/{id}/{version:int}",
        response_model=VersionDocument,
        summary="One version with its object, as JSON or YAML",
        responses={200: {"content": {"application/yaml": {"schema": {"type": "object"}}}}, **documented(404)},
    )
    async def get_version(
        request: Request, id: ResourceId, version: Number, branch: Branch = versions.MAIN
    ) -> Response:
        found = await bus.request(versions.GET, GetVersion(id=id, version=version, branch=branch))
        if "yaml" in request.headers.get("accept", ""):
            return Response(found.yaml_content, media_type="application/yaml")
        return json_answer(found)


def _snapshots(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get(
        "/snapshot",
        response_model=Snapshot,
        summary="What a namespace held at a time",
        responses=documented(404, 410),
    )
    async def snapshot(
        caller: Annotated[Caller, CallerOf],
        cluster: Annotated[str, Query(max_length=63)],
        namespace: Annotated[str, Query(max_length=63)] = "",
        at: At = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_: Continue = "",
    ) -> Response:
        now = datetime.now(UTC).timestamp()
        asked = TakeSnapshot(cluster=cluster, namespace=namespace, at=now if at is None else at, limit=limit)
        binding = _binding(caller, msgspec.structs.replace(asked, at=at or 0.0))
        if continue_:
            asked.after, asked.at = _place(continuation.open(continue_, binding))
        page = await bus.request(versions.SNAPSHOT, asked)
        token = continuation.seal([page.next, asked.at], binding) if page.next else None
        return json_answer({"items": page.items, "continue": token})


def _binding(caller: Caller, asked: ListVersions | TakeSnapshot) -> str:
    bare = {**msgspec.to_builtins(asked), "limit": 0}
    return msgspec.json.encode([caller.subject, type(asked).__name__, bare]).decode()


def _number(position: list[Any]) -> int:
    match position:
        case [int(number)]:
            return number
    raise BadRequest("the continue token is no position in a history")


def _place(position: list[Any]) -> tuple[str, float]:
    match position:
        case [str(after), float(at)]:
            return after, at
    raise BadRequest("the continue token is no position in a snapshot")
