"""Going back over HTTP: one object or a namespace as it was, and YAML applied with what its author says about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import rollbacks
from kubelore.common.contracts.rollbacks import DiffSnapshots, Expected, RollBack, RollBackSnapshot
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.moments import Moment
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.schemas import Namespace
from kubelore.gateway.versions import At, Change, Continue, ResourceId
from kubelore.gateway.write_schemas import (
    BatchBody,
    BatchReport,
    ChangeLog,
    Reason,
    Selector,
    Version,
    WriteBody,
)
from kubelore.gateway.writes import Writes, batch_report

Hex = Annotated[str, StringConstraints(max_length=64, pattern="^([0-9a-f]*|absent)$")]
Home = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
]
ANSWER_S = 2.0
"""How much longer we wait than the service works, so that it is the service which says how it ended."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(False, description="Show what it would do.")
    reason: Reason = Field("", description="Why, for the audit and the object's history.")
    change_log: ChangeLog = ""
    force: bool = Field(False, description="Do it although something changed since the preview.")


class ExpectedBody(BaseModel):
    """What a preview saw."""

    model_config = ConfigDict(extra="forbid")

    resource_version: Version = Field(
        "", description="Only in this very resourceVersion, which status changes too."
    )
    content_hash: Hex = Field("", description="Only while what versions hold of it is the same.")


class RollBackBody(_Body):
    """Which version to go back to."""

    version: int = Field(ge=1, le=0xFFFFFFFF)
    expected: ExpectedBody | None = Field(None, description="As the preview answered.")
    delete: bool = Field(False, description="Needed for a version that says that the object was deleted.")


class RefusalOf(BaseModel):
    """Why it is refused."""

    reason: str
    detail: str
    remedy: str
    fields: list[str] = Field(description="Those that cannot be changed.")


class RollBackReport(BaseModel):
    """What a rollback changes (a dry run) or changed."""

    id: str
    version: int
    method: str = Field(description="replace, create, delete, or none where it is so already.")
    dry_run: bool
    resource_version: str = Field(description="Of the object that it was computed against; empty for none.")
    content_hash: str = Field(description="Of the same, as `expected` takes it.")
    diff_content: str = Field(description="Unified diff over YAML, from what is there to the version.")
    changes: list[Change]
    recreates: bool = Field(description="Whether it makes an object anew that is gone.")
    notes: list[str] = Field(description="What of the version is knowingly left out, and why.")
    refusal: RefusalOf | None = Field(description="Of a dry run: why it would be refused.")
    operation: str
    uid: str
    new_resource_version: str


class SnapshotChangeOf(BaseModel):
    """One object that differs."""

    id: str
    change: str = Field(description="added, removed or changed.")
    from_version: int = Field(description="0: it was not there.")
    to_version: int = Field(description="0: it was not there.")
    diff_content: str
    changes: list[Change]


class SnapshotDifference(BaseModel):
    """One page of what differs between two times."""

    items: list[SnapshotChangeOf]
    continue_: str | None = Field(None, alias="continue")


class SnapshotRollBackBody(_Body):
    """Which namespace to bring back to which time."""

    cluster: Selector
    namespace: Home
    at: Moment
    expected: Hex = Field("", description="The `plan` of a dry run: only while it is still the same.")
    stop_on_error: bool = Field(False, description="Begin nothing more once one has failed.")


class PlanItemOf(BaseModel):
    """One step of a plan, and what became of it."""

    id: str
    step: str = Field(description="create, replace, delete, or leave to whoever makes it.")
    version: int = Field(description="0: it was not there.")
    resource_version: str
    diff_content: str
    changes: list[Change]
    why: str
    notes: list[str]
    refusal: RefusalOf | None
    result: str = Field(description="Once carried out: created, changed, unchanged or deleted.")
    error: RefusalOf | None
    skipped: bool
    operation: str
    new_resource_version: str


class SnapshotPlanOf(BaseModel):
    """The steps that bring a namespace back, in their order."""

    cluster: str
    namespace: str
    at: float = Field(description="Seconds since the epoch.")
    dry_run: bool
    plan: str = Field(description="Names this plan against these objects, as `expected` takes it.")
    items: list[PlanItemOf]
    unchanged: int = Field(description="Objects that are as they were.")


class YamlBody(BaseModel):
    """Several documents for several clusters, and what they change."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(min_length=1, description="YAML or JSON, several documents too.")
    clusters: list[Selector] = Field(
        min_length=1, max_length=100, description="Names, group:x and tag:y; one item for each cluster."
    )
    namespace: Namespace = Field("default", description="Where a document goes that names none.")
    change_log: ChangeLog = Field(description="What changed, for the history of each object.")
    reason: Reason = ""
    dry_run: bool = False
    force: bool = Field(False, description="Take over fields that other managers own.")
    stop_on_error: bool = False


def rollback_routes(bus: Bus) -> APIRouter:
    """The router over the rollback of single objects."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])

    @router.post(
        "/versions/{id}/rollback",
        response_model=RollBackReport,
        summary="Make an object what one of its versions says",
        responses=documented(403, 404, 409, 413, 422, 502),
        dependencies=[audited("versions.rollback", path="id")],
    )
    async def roll_back(id: ResourceId, body: RollBackBody) -> Response:
        asked = RollBack(
            id=id,
            version=body.version,
            dry_run=body.dry_run,
            reason=body.reason,
            change_log=body.change_log,
            expected=Expected(**body.expected.model_dump()) if body.expected else None,
            force=body.force,
            delete=body.delete,
        )
        return json_answer(await _ask(bus, rollbacks.ROLL_BACK, asked))

    return router


def snapshot_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over namespaces at other times."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])

    @router.get(
        "/snapshot/diff",
        response_model=SnapshotDifference,
        summary="What differs in a namespace between two times",
        responses=documented(404, 410),
    )
    async def diff(
        caller: Annotated[Caller, CallerOf],
        cluster: Annotated[str, Query(max_length=63)],
        from_: Annotated[Moment, Query(alias="from", description="RFC 3339; without an offset in UTC.")],
        namespace: Annotated[str, Query(max_length=63)] = "",
        to: At = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        continue_: Continue = "",
    ) -> Response:
        until = datetime.now(UTC).timestamp() if to is None else to
        asked = DiffSnapshots(cluster=cluster, namespace=namespace, since=from_, until=until, limit=limit)
        said = [caller.subject, "snapshot-diff", cluster, namespace, from_, to]
        binding = msgspec.json.encode(said).decode()
        if continue_:
            asked.after, asked.until = _place(continuation.open(continue_, binding))
        page = await bus.request(rollbacks.SNAPSHOT_DIFF, asked)
        token = continuation.seal([page.next, asked.until], binding) if page.next else None
        return json_answer({"items": page.items, "continue": token})

    @router.post(
        "/snapshot/rollback",
        response_model=SnapshotPlanOf,
        summary="Make a namespace hold what it held at a time",
        responses=documented(403, 404, 409, 413, 422),
        dependencies=[audited("snapshots.rollback", body="cluster")],
    )
    async def roll_back(body: SnapshotRollBackBody) -> Response:
        asked = RollBackSnapshot(**body.model_dump())
        return json_answer(await _ask(bus, rollbacks.SNAPSHOT_ROLL_BACK, asked))

    return router


def yaml_routes(bus: Bus, roster: Roster) -> APIRouter:
    """The router over YAML that is submitted with its change log."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])
    carrying_out = Writes(bus, roster)

    @router.post(
        "/apply",
        response_model=BatchReport,
        response_model_exclude_unset=True,
        summary="Apply YAML to clusters, and record its change log",
        responses=documented(413, 422),
        dependencies=[audited("yaml.apply", itemised=True)],
    )
    async def apply(request: Request, caller: Annotated[Caller, CallerOf], body: YamlBody) -> Response:
        operation = WriteBody.model_validate(
            {
                "action": "apply",
                "clusters": body.clusters,
                "manifest": body.content,
                "namespace": body.namespace,
                "force": body.force,
            }
        )
        batch = BatchBody(
            operations=[operation],
            dry_run=body.dry_run,
            stop_on_error=body.stop_on_error,
            reason=body.reason,
            change_log=body.change_log,
        )
        return json_answer(batch_report(await carrying_out.batch(request, caller, batch), body.dry_run))

    return router


async def _ask(bus: Bus, endpoint: Any, asked: Any) -> Any:
    return await bus.request(endpoint, asked, deadline_s=endpoint.deadline_s + ANSWER_S)


def _place(position: list[Any]) -> tuple[str, float]:
    match position:
        case [str(after), float(until)]:
            return after, until
    raise BadRequest("the continue token is no position in a snapshot")
