"""`/api/k8s/yaml`, tags and drafts: names for versions, branches, merging into clusters, drift."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import branches
from kubelore.common.contracts.branches import (
    DRAFTS,
    MAX_DRAFT,
    MAX_DRIFTS,
    MAX_NOTE,
    FindDrift,
    ListBranches,
    ListTags,
    MakeBranch,
    Merge,
    PutTag,
    Record,
    RemoveBranch,
    RemoveTag,
    Side,
    TagSnapshot,
    UpdateBranch,
    ValidateDraft,
)
from kubelore.common.contracts.versions import MAIN
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.moments import Moment
from kubelore.gateway.problems import documented
from kubelore.gateway.schemas import LINE
from kubelore.gateway.versions import BRANCH_NAME, Change, Continue, ResourceId, VersionInfo
from kubelore.gateway.write_schemas import ChangeLog, Reason

PREFIX = "/api/k8s/yaml"
NAME = BRANCH_NAME

Name = Annotated[str, StringConstraints(pattern=NAME)]
Note = Annotated[str, StringConstraints(max_length=MAX_NOTE, pattern=LINE)]
Text = Annotated[str, StringConstraints(max_length=MAX_DRAFT)]
BranchName = Annotated[str, Path(pattern=NAME, description="The name of a branch.")]
Number = Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
Resolve = Annotated[
    dict[Annotated[str, StringConstraints(max_length=2000)], Side],
    Field(
        max_length=1000,
        description="By the path of a conflict: ours (the cluster's value) or theirs (the draft's).",
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TagBody(_Body):
    """A name for a version."""

    name: Name
    version: Number | None = Field(None, description="The newest when not given.")
    branch: Name = MAIN
    note: Note = ""
    alert: bool = Field(False, description="Tell by an alert when a version departs from it.")
    move: bool = Field(False, description="Take the name from the version that has it.")


class SnapshotTagBody(_Body):
    """A name for everything that a namespace held at a time."""

    cluster: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    namespace: Annotated[str, StringConstraints(max_length=63)] = ""
    at: Moment | None = Field(None, description="RFC 3339; now when not given.")
    name: Name
    note: Note = ""
    alert: bool = False
    move: bool = False


class TagInfo(BaseModel):
    """One tag of an object."""

    id: str
    name: str
    version: int
    branch: str
    note: str
    alert: bool
    created_at: datetime
    created_by: str
    drifted: int = Field(description="The version that departed from it, as its alert said; 0 for none.")


class TagList(BaseModel):
    """The tags of an object by name."""

    items: list[TagInfo]


class SnapshotTagged(BaseModel):
    """How many objects were tagged, kept the tag where it was, and were not the caller's to tag."""

    tagged: int
    kept: int
    skipped: int


class BranchBody(_Body):
    """A draft to begin."""

    name: Name
    version: Number | None = Field(None, description="What to branch off; the newest when not given.")
    note: Note = ""


class BranchInfo(BaseModel):
    """One draft of an object."""

    id: str
    name: str
    base_version: int = Field(description="The version of main that it was brought up to last.")
    base_commit: str
    version: int = Field(description="Its own newest version.")
    note: str
    created_at: datetime
    created_by: str
    behind: int = Field(description="How many versions the cluster has gone on since.")
    merged: int = Field(description="Which of its versions was merged last; 0 for none.")


class BranchList(BaseModel):
    """The drafts of an object by name."""

    items: list[BranchInfo]


class RecordBody(_Body):
    """A version to record without applying it."""

    content: Text = Field(description="YAML or JSON of the very object; comments are kept.")
    change_log: ChangeLog = ""
    branch: Name = Field(DRAFTS, description="Branched off the newest version when it is not there.")
    after: Number | None = Field(
        None, description="The version it was edited from: 409 when there is a newer."
    )


class UpdateBody(_Body):
    """What to do where cluster and draft differ."""

    resolve: Resolve = {}
    change_log: ChangeLog = ""


class ValidateBody(_Body):
    """What to check: a branch, or a content."""

    branch: Annotated[str, StringConstraints(max_length=63)] = ""
    content: Text = ""


class MergeBody(_Body):
    """What to bring into the cluster: a branch, or a content that was edited from the version `base` of main."""

    branch: Annotated[str, StringConstraints(max_length=63)] = ""
    content: Text = ""
    base: Number | None = None
    resolve: Resolve = {}
    dry_run: bool = Field(False, description="Show what would change, and let the API server try it.")
    reason: Reason = ""
    change_log: ChangeLog = ""
    seen: Annotated[str, StringConstraints(max_length=64, pattern="^[0-9a-f]*$")] = Field(
        "", description="`live` of the dry run: 409 when the object was changed since."
    )


class ConflictInfo(BaseModel):
    """One place that both sides changed; a side that does not have it is absent."""

    path: str
    base: Any = None
    ours: Any = Field(None, description="The cluster's.")
    theirs: Any = Field(None, description="The draft's.")
    resolved: str = ""


class BranchUpdate(BaseModel):
    """The draft as it is now; unchanged while a conflict is not resolved."""

    branch: BranchInfo
    conflicts: list[ConflictInfo]
    changes: list[Change]


class DraftProblem(BaseModel):
    """One thing that is wrong, found by the schema or by the API server."""

    path: str
    message: str
    source: str
    suggestion: str = Field(description="The field that was probably meant.")


class ValidationReport(BaseModel):
    """What is wrong with a draft; `unchecked` says what could not be asked, and why."""

    valid: bool
    problems: list[DraftProblem]
    unchecked: list[str]


class MergeReport(BaseModel):
    """What a merge did or would do; `result` is empty while conflicts are open."""

    id: str
    base_version: int
    conflicts: list[ConflictInfo]
    changes: list[Change]
    diff_content: str
    result: str
    operation: str
    uid: str
    rv: str
    live: str = Field(description="Names what was live: give it as `seen` to do just what was shown.")
    dry_run: bool


class DriftItem(BaseModel):
    """One object that is not as it was tagged."""

    id: str
    tag: str
    tagged_version: int
    version: VersionInfo = Field(description="Its newest version.")
    gone: bool
    changes: list[Change]


class DriftList(BaseModel):
    """One page of drifts; `compared` says how many tags were looked at for it."""

    items: list[DriftItem]
    compared: int
    continue_: str | None = Field(None, alias="continue")


def branch_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """Everything about tags and drafts; included before the versions, whose paths would take `tags` for a number."""
    router = APIRouter()
    for part in (_tags(bus), _branches(bus), _drafts(bus), _merging(bus), _drift(bus, continuation)):
        router.include_router(part)
    return router


def _tags(bus: Bus) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["versions"])

    @router.get(
        "/versions/{id}/tags", response_model=TagList, summary="An object's tags", responses=documented(404)
    )
    async def list_tags(id: ResourceId) -> Response:
        return json_answer(await bus.request(branches.TAGS, ListTags(id=id)))

    @router.post(
        "/versions/{id}/tags",
        response_model=TagInfo,
        status_code=201,
        summary="Tag a version",
        responses=documented(403, 404, 409, 413),
        dependencies=[audited("versions.tag", path="id")],
    )
    async def tag_version(id: ResourceId, body: TagBody) -> Response:
        return json_answer(await bus.request(branches.TAG, PutTag(id=id, **body.model_dump())), 201)

    @router.delete(
        "/versions/{id}/tags",
        response_model=TagInfo,
        summary="Remove a tag",
        responses=documented(403, 404),
        dependencies=[audited("versions.untag", path="id")],
    )
    async def remove_tag(id: ResourceId, name: Annotated[str, Query(pattern=NAME)]) -> Response:
        return json_answer(await bus.request(branches.UNTAG, RemoveTag(id=id, name=name)))

    @router.post(
        "/snapshot/tags",
        response_model=SnapshotTagged,
        summary="Tag what a namespace held at a time",
        responses=documented(403, 404, 413),
        dependencies=[audited("snapshots.tag", body="cluster")],
    )
    async def tag_snapshot(body: SnapshotTagBody) -> Response:
        told = {**body.model_dump(), "at": datetime.now(UTC).timestamp() if body.at is None else body.at}
        return json_answer(await bus.request(branches.TAG_SNAPSHOT, TagSnapshot(**told)))

    return router


def _branches(bus: Bus) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["versions"])

    @router.get(
        "/versions/{id}/branches",
        response_model=BranchList,
        summary="An object's drafts",
        responses=documented(404),
    )
    async def list_branches(id: ResourceId) -> Response:
        return json_answer(await bus.request(branches.BRANCHES, ListBranches(id=id)))

    @router.post(
        "/versions/{id}/branches",
        response_model=BranchInfo,
        status_code=201,
        summary="Branch a draft off a version",
        responses=documented(403, 404, 409, 413, 501),
        dependencies=[audited("branches.add", path="id")],
    )
    async def make_branch(id: ResourceId, body: BranchBody) -> Response:
        return json_answer(await bus.request(branches.BRANCH, MakeBranch(id=id, **body.model_dump())), 201)

    @router.delete(
        "/versions/{id}/branches/{branch}",
        response_model=BranchInfo,
        summary="Delete a draft with its versions",
        responses=documented(403, 404, 409, 501),
        dependencies=[audited("branches.remove", path="id")],
    )
    async def remove_branch(id: ResourceId, branch: BranchName) -> Response:
        return json_answer(await bus.request(branches.UNBRANCH, RemoveBranch(id=id, name=branch)))

    @router.post(
        "/versions/{id}/branches/{branch}/update",
        response_model=BranchUpdate,
        summary="Bring into a draft what the cluster became since",
        responses=documented(403, 404, 409, 501),
        dependencies=[audited("branches.update", path="id")],
    )
    async def update_branch(id: ResourceId, branch: BranchName, body: UpdateBody) -> Response:
        asked = UpdateBranch(id=id, branch=branch, **body.model_dump())
        return json_answer(await bus.request(branches.UPDATE, asked))

    return router


def _drafts(bus: Bus) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["versions"])

    @router.post(
        "/versions/{id}",
        response_model=VersionInfo,
        status_code=201,
        summary="Record a version on a draft without applying it",
        responses=documented(403, 404, 409, 413, 501),
        dependencies=[audited("versions.record", path="id")],
    )
    async def record_version(id: ResourceId, body: RecordBody) -> Response:
        return json_answer(await bus.request(branches.RECORD, Record(id=id, **body.model_dump())), 201)

    @router.post(
        "/versions/{id}/validate",
        response_model=ValidationReport,
        summary="Check a draft against the cluster's schema, and by a dry run",
        responses=documented(403, 404, 413, 501),
        dependencies=[audited("versions.validate", path="id")],
    )
    async def validate_draft(id: ResourceId, body: ValidateBody) -> Response:
        return json_answer(
            await bus.request(branches.VALIDATE_DRAFT, ValidateDraft(id=id, **body.model_dump()))
        )

    return router


def _merging(bus: Bus) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["versions"])

    @router.post(
        "/versions/{id}/merge",
        response_model=MergeReport,
        summary="Bring a draft into the cluster by a three-way merge",
        responses=documented(403, 404, 409, 413, 501, 502),
        dependencies=[audited("versions.merge", path="id")],
    )
    async def merge_draft(id: ResourceId, body: MergeBody) -> Response:
        return json_answer(await bus.request(branches.MERGE, Merge(id=id, **body.model_dump())))

    return router


def _drift(bus: Bus, continuation: Continuation) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["versions"])

    @router.get(
        "/drift",
        response_model=DriftList,
        summary="What is not as it was tagged",
        responses=documented(404, 410),
    )
    async def drift(
        caller: Annotated[Caller, CallerOf],
        cluster: Annotated[str, Query(max_length=63)],
        tag: Annotated[str, Query(pattern=NAME)],
        namespace: Annotated[str, Query(max_length=63)] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_DRIFTS)] = 100,
        continue_: Continue = "",
    ) -> Response:
        asked = FindDrift(cluster=cluster, tag=tag, namespace=namespace, limit=limit)
        binding = msgspec.json.encode([caller.subject, "drift", cluster, tag, namespace]).decode()
        if continue_:
            asked.after = _place(continuation.open(continue_, binding))
        page = await bus.request(branches.DRIFT, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": page.items, "compared": page.compared, "continue": token})

    return router


def _place(position: list[Any]) -> str:
    match position:
        case [str(after)]:
            return after
    raise BadRequest("the continue token is no position among drifts")
