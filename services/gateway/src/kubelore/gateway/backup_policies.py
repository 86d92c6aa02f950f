"""`/api/k8s/yaml/backup/policies`: what is backed up when, and what is kept of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import backup_policies as policies
from kubelore.common.contracts.backup_policies import (
    CreatePolicy,
    ListPolicies,
    ListRuns,
    PausePolicy,
    PolicyRef,
    PolicySpec,
    UpdatePolicy,
)
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster

PolicyName = Annotated[str, Path(description="The policy's name.", min_length=1, max_length=63)]
Text = Annotated[str, Field(min_length=1, max_length=253)]


class PolicyBody(BaseModel):
    """What a policy does, and when."""

    model_config = ConfigDict(extra="forbid")

    clusters: list[Text] = Field(
        [],
        max_length=100,
        description="Names, group:x and tag:y, as they are when it is said; all that the caller sees when empty.",
    )
    schedule: str = Field(max_length=100, description="Cron: minute, hour, day, month, day of week.")
    time_zone: str = Field("UTC", max_length=80, examples=["Europe/Berlin"])
    jitter_s: int = Field(0, ge=0, le=3600, description="At most so much later, always the same for a slot.")
    namespaces: list[Text] = Field([], max_length=100, description="All when empty.")
    types: list[Text] = Field([], max_length=100, description="All that anybody restores when empty.")
    labels: str = Field("", max_length=4000, description="A label selector.")
    keep_count: int = Field(7, ge=0, le=10_000, description="Completed backups to keep; 0 without limit.")
    keep_days: int = Field(0, ge=0, le=3650, description="Days to keep them; 0 without limit.")
    late_after_s: int = Field(3600, ge=60, le=30 * 86_400, description="Seconds after a slot; then an alert.")
    paused: bool = False

    def spec(self, clusters: list[str]) -> PolicySpec:
        """As it goes over the bus, for these clusters."""
        said = self.model_dump(include=set(PolicyBody.model_fields))
        return PolicySpec(**{**said, "clusters": clusters})


class NewPolicy(PolicyBody):
    """A policy to be made."""

    name: str = Field(max_length=63, description="Lower-case letters, digits and '-'.")


class ChangedPolicy(PolicyBody):
    """A policy as it is to be from now on, whole."""

    revision: int | None = Field(None, description="Only if it still has this revision.")


class PauseBody(BaseModel):
    """Whether it rests."""

    model_config = ConfigDict(extra="forbid")

    paused: bool


class PolicyRunInfo(BaseModel):
    """One run of a policy."""

    id: str
    state: str = Field(description="pending, running, completed, failed, or skipped: one was still going.")
    slot: str = Field(description="The scheduled time; empty for a run by hand.")
    due_at: str
    started_at: str
    ended_at: str
    caught_up: bool = Field(description="Earlier slots went by unseen; this run stands for them.")
    backup_id: str
    error: str


class PolicyInfo(BaseModel):
    """A policy, when it runs next, and how it went."""

    name: str
    spec: PolicyBody
    subject: str = Field(description="For whom it runs: whoever made or last changed it.")
    created_at: datetime
    updated_at: datetime
    revision: int
    next_runs: list[datetime]
    last_run: PolicyRunInfo | None
    last_success: str = Field(description="When the last completed backup was begun; empty without one.")
    late: bool


class PolicyList(BaseModel):
    """One page of policies by name."""

    items: list[PolicyInfo]
    continue_: str | None = Field(None, alias="continue")


class RunList(BaseModel):
    """The last runs of a policy, newest first."""

    items: list[PolicyRunInfo]


class PolicyDeletion(BaseModel):
    """A policy that is gone; its backups stay."""

    name: str
    backups: int


def backup_policy_routes(bus: Bus, roster: Roster) -> APIRouter:
    """The router over yaml-vcs. It stands before that of backups, one of which could have the id `policies`."""
    router = APIRouter(prefix="/api/k8s/yaml/backup/policies", tags=["backups"])
    _reading(router, bus)
    _writing(router, bus, roster)
    _acting(router, bus)
    return router


def _reading(router: APIRouter, bus: Bus) -> None:
    @router.get("", response_model=PolicyList, summary="Backup policies", responses=documented())
    async def list_policies(
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_: Annotated[str, Query(alias="continue", max_length=63)] = "",
    ) -> Response:
        page = await bus.request(policies.LIST_POLICIES, ListPolicies(after=continue_, limit=limit))
        return json_answer({"items": page.items, "continue": page.next or None})

    @router.get(
        "/{policy}", response_model=PolicyInfo, summary="One backup policy", responses=documented(404)
    )
    async def get_policy(policy: PolicyName) -> Response:
        return json_answer(await bus.request(policies.GET_POLICY, PolicyRef(policy)))

    @router.get(
        "/{policy}/runs",
        response_model=RunList,
        summary="The last runs of a policy",
        responses=documented(404),
    )
    async def list_runs(policy: PolicyName, limit: Annotated[int, Query(ge=1, le=500)] = 20) -> Response:
        return json_answer(await bus.request(policies.POLICY_RUNS, ListRuns(name=policy, limit=limit)))


def _writing(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "",
        status_code=201,
        response_model=PolicyInfo,
        dependencies=[audited("backup-policies.create", body="name", of="backup-policies")],
        summary="Make a backup policy",
        responses=documented(403, 404, 409),
    )
    async def create_policy(caller: Annotated[Caller, CallerOf], body: NewPolicy) -> Response:
        asked = CreatePolicy(name=body.name, spec=body.spec(roster.select(caller, body.clusters)))
        return json_answer(await bus.request(policies.CREATE_POLICY, asked), 201)

    @router.put(
        "/{policy}",
        response_model=PolicyInfo,
        dependencies=[audited("backup-policies.update", path="policy", of="backup-policies")],
        summary="Change a backup policy, which then runs for whoever changed it",
        responses=documented(403, 404, 409),
    )
    async def update_policy(
        caller: Annotated[Caller, CallerOf], policy: PolicyName, body: ChangedPolicy
    ) -> Response:
        spec = body.spec(roster.select(caller, body.clusters))
        asked = UpdatePolicy(name=policy, spec=spec, revision=body.revision)
        return json_answer(await bus.request(policies.UPDATE_POLICY, asked))

    @router.delete(
        "/{policy}",
        response_model=PolicyDeletion,
        dependencies=[audited("backup-policies.delete", path="policy", of="backup-policies")],
        summary="Delete a backup policy; its backups stay",
        responses=documented(403, 404),
    )
    async def delete_policy(policy: PolicyName) -> Response:
        return json_answer(await bus.request(policies.DELETE_POLICY, PolicyRef(policy)))


def _acting(router: APIRouter, bus: Bus) -> None:
    @router.patch(
        "/{policy}",
        response_model=PolicyInfo,
        dependencies=[audited("backup-policies.pause", path="policy", of="backup-policies")],
        summary="Pause a backup policy, or go on with it",
        responses=documented(403, 404, 409),
    )
    async def pause_policy(policy: PolicyName, body: PauseBody) -> Response:
        asked = PausePolicy(name=policy, paused=body.paused)
        return json_answer(await bus.request(policies.PAUSE_POLICY, asked))

    @router.post(
        "/{policy}/run",
        status_code=202,
        response_model=PolicyRunInfo,
        dependencies=[audited("backup-policies.run", path="policy", of="backup-policies")],
        summary="Run a backup policy now",
        responses=documented(403, 404, 409),
    )
    async def run_policy(policy: PolicyName) -> Response:
        return json_answer(await bus.request(policies.RUN_POLICY, PolicyRef(policy)), 202)
