"""`/api/k8s/logs/policies` and `/api/k8s/logs/alerts`: which logs are kept, and which lines raise an alert."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import log_policies as rules
from kubelore.common.contracts.log_policies import (
    DropLogPolicy,
    ListLogRules,
    LogAlertSpec,
    LogPolicySpec,
    LogRuleRef,
    LogScope,
    PutLogAlert,
    PutLogPolicy,
)
from kubelore.common.contracts.logs import LogFilter
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster

RuleName = Annotated[str, Path(description="Its name.", min_length=1, max_length=63)]
NewName = Annotated[str, Field(max_length=63, description="Lower-case letters, digits and '-'.")]
Globs = Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=100)]
Conditions = Annotated[list[Annotated[str, Field(min_length=1, max_length=400)]], Field(max_length=20)]
Revision = Annotated[int, Field(ge=0, description="Only if it still has this revision; 0 for any.")]
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str, Query(alias="continue", max_length=63)]


class LogScopeBody(BaseModel):
    """Which containers are meant."""

    model_config = ConfigDict(extra="forbid")

    clusters: Globs = Field(
        default=[],
        description="Names, group:x and tag:y, as they are when it is said; all that you see when empty.",
    )
    namespaces: Globs = Field(default=[], description="Names or globs; all when empty.")
    labels: str = Field(default="", max_length=4000, description="A label selector of pods.")
    containers: Globs = Field(default=[], description="Names or globs; all when empty.")

    def scope(self, roster: Roster, caller: Caller) -> LogScope:
        """As it goes over the bus."""
        return LogScope(
            clusters=tuple(roster.select(caller, self.clusters)),
            namespaces=tuple(self.namespaces),
            labels=self.labels,
            containers=tuple(self.containers),
        )


class LogPolicyBody(BaseModel):
    """What is collected, and what is kept of it."""

    model_config = ConfigDict(extra="forbid")

    scope: LogScopeBody = LogScopeBody()
    days: int = Field(14, ge=1, le=3650, description="Days that lines are kept.")
    max_bytes: int = Field(0, ge=0, le=1 << 50, description="Stored bytes; the oldest go. 0 without limit.")
    paused: bool = False

    def spec(self, roster: Roster, caller: Caller) -> LogPolicySpec:
        """As it goes over the bus."""
        said = self.model_dump(include={"days", "max_bytes", "paused"})
        return LogPolicySpec(scope=self.scope.scope(roster, caller), **said)


class NewLogPolicy(LogPolicyBody):
    """A policy to be made."""

    name: NewName


class ChangedLogPolicy(LogPolicyBody):
    """A policy as it is to be from now on, whole."""

    revision: Revision = 0


class LogsHeldInfo(BaseModel):
    """What a policy holds."""

    lines: int
    raw_bytes: int = Field(description="As the containers wrote them.")
    stored_bytes: int = Field(description="Compressed and encrypted.")
    oldest: str = Field(description="The time of the oldest line; empty when there is none.")
    newest: str


class LogPolicyInfo(BaseModel):
    """A policy, and what it holds."""

    name: str
    spec: LogPolicyBody
    subject: str = Field(description="Who made or last changed it.")
    created_at: str
    updated_at: str
    revision: int
    held: LogsHeldInfo


class LogPolicyList(BaseModel):
    """One page of policies by name."""

    items: list[LogPolicyInfo]
    continue_: str | None = Field(None, alias="continue")


class LogPolicyDeletion(BaseModel):
    """A policy that is gone, and what it still holds until its limits take that."""

    name: str
    kept: LogsHeldInfo


class AlertLinesBody(BaseModel):
    """Which lines are meant: those that fulfil all that is said, every line when nothing is."""

    model_config = ConfigDict(extra="forbid")

    search: str = Field(default="", max_length=1000, description="Text that a line holds.")
    regex: str = Field(
        default="", max_length=1000, description="A regular expression of RE2 that it matches."
    )
    ignore_case: bool = False
    inverse: bool = Field(default=False, description="Lines that do not hold or match it.")
    level: Literal["trace", "debug", "info", "warn", "error", "fatal"] | None = Field(
        default=None, description="This level or worse."
    )
    fields: Conditions = Field(
        default=[], description="Conditions on fields of JSON lines: status>=500, !trace."
    )

    def filter(self) -> LogFilter:
        """As it goes over the bus."""
        return LogFilter(**{**self.model_dump(), "fields": tuple(self.fields)})


class LogAlertBody(BaseModel):
    """Which lines raise an alert, and when."""

    model_config = ConfigDict(extra="forbid")

    scope: LogScopeBody = LogScopeBody()
    filter: AlertLinesBody = AlertLinesBody()
    count: int = Field(1, ge=1, le=1_000_000, description="So many lines…")
    window_s: int = Field(60, ge=1, le=86_400, description="…within so many seconds.")
    rest_s: int = Field(300, ge=0, le=86_400, description="Seconds until it is raised again.")
    per: Literal["container", "cluster"] = Field("container", description="What is counted together.")
    severity: Literal["info", "warning", "critical"] = "warning"
    paused: bool = False

    def spec(self, roster: Roster, caller: Caller) -> LogAlertSpec:
        """As it goes over the bus."""
        said = self.model_dump(include=set(LogAlertBody.model_fields) - {"scope", "filter"})
        return LogAlertSpec(scope=self.scope.scope(roster, caller), filter=self.filter.filter(), **said)


class NewLogAlert(LogAlertBody):
    """An alert to be made."""

    name: NewName


class ChangedLogAlert(LogAlertBody):
    """An alert as it is to be from now on, whole."""

    revision: Revision = 0


class LogAlertInfo(BaseModel):
    """An alert, how often it was raised, and when last."""

    name: str
    spec: LogAlertBody
    subject: str = Field(description="Who made or last changed it.")
    created_at: str
    updated_at: str
    revision: int
    raised: int
    last_raised: str


class LogAlertList(BaseModel):
    """One page of alerts by name."""

    items: list[LogAlertInfo]
    continue_: str | None = Field(None, alias="continue")


_MAKING: Any = documented(403, 404, 409)
_NAMED: Any = documented(403, 404)


def log_rule_routes(bus: Bus, roster: Roster) -> APIRouter:
    """The router over what container-ops keeps of logs, and what it tells of them."""
    router = APIRouter(prefix="/api/k8s/logs", tags=["logs"])
    _policies(router, bus)
    _changing_policies(router, bus, roster)
    _alerts(router, bus)
    _changing_alerts(router, bus, roster)
    return router


def _policies(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/policies", response_model=LogPolicyList, summary="Which logs are kept", responses=documented()
    )
    async def list_log_policies(limit: Limit = 100, continue_: After = "") -> Response:
        page = await bus.request(rules.LIST_LOG_POLICIES, ListLogRules(after=continue_, limit=limit))
        return json_answer({"items": page.items, "continue": page.next or None})

    @router.get(
        "/policies/{policy}", response_model=LogPolicyInfo, summary="One log policy", responses=_NAMED
    )
    async def get_log_policy(policy: RuleName) -> Response:
        return json_answer(await bus.request(rules.GET_LOG_POLICY, LogRuleRef(policy)))

    @router.delete(
        "/policies/{policy}",
        response_model=LogPolicyDeletion,
        dependencies=[audited("log-policies.delete", path="policy", of="log-policies")],
        summary="Collect no more by a policy; what it holds goes by its limits, or at once with logs=true",
        responses=_NAMED,
    )
    async def delete_log_policy(policy: RuleName, logs: bool = False) -> Response:
        return json_answer(await bus.request(rules.DROP_LOG_POLICY, DropLogPolicy(name=policy, logs=logs)))


def _changing_policies(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "/policies",
        status_code=201,
        response_model=LogPolicyInfo,
        dependencies=[audited("log-policies.create", body="name", of="log-policies")],
        summary="Collect and keep the logs of containers",
        responses=_MAKING,
    )
    async def create_log_policy(caller: Annotated[Caller, CallerOf], body: NewLogPolicy) -> Response:
        asked = PutLogPolicy(name=body.name, spec=body.spec(roster, caller))
        return json_answer(await bus.request(rules.PUT_LOG_POLICY, asked), 201)

    @router.put(
        "/policies/{policy}",
        response_model=LogPolicyInfo,
        dependencies=[audited("log-policies.update", path="policy", of="log-policies")],
        summary="Change a log policy",
        responses=_MAKING,
    )
    async def update_log_policy(
        caller: Annotated[Caller, CallerOf], policy: RuleName, body: ChangedLogPolicy
    ) -> Response:
        asked = PutLogPolicy(name=policy, spec=body.spec(roster, caller), revision=body.revision)
        return json_answer(await bus.request(rules.PUT_LOG_POLICY, asked))


def _alerts(router: APIRouter, bus: Bus) -> None:
    @router.get("/alerts", response_model=LogAlertList, summary="Alerts on logs", responses=documented())
    async def list_log_alerts(limit: Limit = 100, continue_: After = "") -> Response:
        page = await bus.request(rules.LIST_LOG_ALERTS, ListLogRules(after=continue_, limit=limit))
        return json_answer({"items": page.items, "continue": page.next or None})

    @router.get("/alerts/{alert}", response_model=LogAlertInfo, summary="One alert", responses=_NAMED)
    async def get_log_alert(alert: RuleName) -> Response:
        return json_answer(await bus.request(rules.GET_LOG_ALERT, LogRuleRef(alert)))

    @router.delete(
        "/alerts/{alert}",
        response_model=LogAlertInfo,
        dependencies=[audited("log-alerts.delete", path="alert", of="log-alerts")],
        summary="Delete an alert",
        responses=_NAMED,
    )
    async def delete_log_alert(alert: RuleName) -> Response:
        return json_answer(await bus.request(rules.DROP_LOG_ALERT, LogRuleRef(alert)))


def _changing_alerts(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "/alerts",
        status_code=201,
        response_model=LogAlertInfo,
        dependencies=[audited("log-alerts.create", body="name", of="log-alerts")],
        summary="Raise an alert for lines of logs, or for how many there are",
        responses=_MAKING,
    )
    async def create_log_alert(caller: Annotated[Caller, CallerOf], body: NewLogAlert) -> Response:
        asked = PutLogAlert(name=body.name, spec=body.spec(roster, caller))
        return json_answer(await bus.request(rules.PUT_LOG_ALERT, asked), 201)

    @router.put(
        "/alerts/{alert}",
        response_model=LogAlertInfo,
        dependencies=[audited("log-alerts.update", path="alert", of="log-alerts")],
        summary="Change an alert",
        responses=_MAKING,
    )
    async def update_log_alert(
        caller: Annotated[Caller, CallerOf], alert: RuleName, body: ChangedLogAlert
    ) -> Response:
        asked = PutLogAlert(name=alert, spec=body.spec(roster, caller), revision=body.revision)
        return json_answer(await bus.request(rules.PUT_LOG_ALERT, asked))
