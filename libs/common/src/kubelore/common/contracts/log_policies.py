"""What container-ops answers about logs that are kept, and about alerts on what they say.

A policy says which containers' logs are collected as they are written, and how
long they are kept; an alert, which lines of which containers raise one. Both
name whole clusters, and need the role admin in all of each. A container that
several policies match is collected once, by the one that keeps longest. Times
are ISO 8601 in UTC, empty for what has not happened.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.alerts import Severity
from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.logs import LogFilter

MAX_RULES = 200
"""Policies, and alerts, that there may be."""


class LogScope(msgspec.Struct, kw_only=True, frozen=True):
    """Which containers are meant. `namespaces` and `containers` are globs, all when empty; `labels` a selector."""

    clusters: tuple[str, ...]
    namespaces: tuple[str, ...] = ()
    labels: str = ""
    containers: tuple[str, ...] = ()


class LogPolicySpec(msgspec.Struct, kw_only=True, frozen=True):
    """What is collected, and what is kept of it: at most so many days and stored bytes; 0 bytes is without limit."""

    scope: LogScope
    days: int = 14
    max_bytes: int = 0
    paused: bool = False


class LogsHeld(msgspec.Struct, kw_only=True):
    """What a policy holds now: lines, their bytes, and what is stored of them; the time of the oldest and newest."""

    lines: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    oldest: str = ""
    newest: str = ""


class LogPolicy(msgspec.Struct, kw_only=True):
    """A policy and what it holds."""

    name: str
    spec: LogPolicySpec
    subject: str
    created_at: str
    updated_at: str
    revision: int
    held: LogsHeld


class LogAlertSpec(msgspec.Struct, kw_only=True, frozen=True):
    """Raise an alert when at least `count` lines within `window_s` seconds match; then not again for `rest_s`.

    Which lines match is said as to a search of logs, but for times; an empty filter
    is every line, so that the alert is about a rate. `per` says what is counted
    together: the lines of one container, or all that the scope matches in a cluster.
    """

    scope: LogScope
    filter: LogFilter = LogFilter()
    count: int = 1
    window_s: int = 60
    rest_s: int = 300
    per: Literal["container", "cluster"] = "container"
    severity: Severity = "warning"
    paused: bool = False


class LogAlert(msgspec.Struct, kw_only=True):
    """An alert on logs, how often it was raised, and when last."""

    name: str
    spec: LogAlertSpec
    subject: str
    created_at: str
    updated_at: str
    revision: int
    raised: int = 0
    last_raised: str = ""


class PutLogPolicy(msgspec.Struct, kw_only=True):
    """A policy, whole. Without `revision` it is new; with one it replaces that which still has it (0: any)."""

    name: str
    spec: LogPolicySpec
    revision: int | None = None


class PutLogAlert(msgspec.Struct, kw_only=True):
    """An alert, whole; `revision` as of a policy."""

    name: str
    spec: LogAlertSpec
    revision: int | None = None


class LogRuleRef(msgspec.Struct):
    """One policy, or alert."""

    name: str


class ListLogRules(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A page by name, behind `after`."""

    after: str = ""
    limit: int = 100


class LogPolicyPage(msgspec.Struct):
    """Policies, and the `after` of the page behind; empty at the end."""

    items: list[LogPolicy]
    next: str = ""


class LogAlertPage(msgspec.Struct):
    """Alerts, and the `after` of the page behind; empty at the end."""

    items: list[LogAlert]
    next: str = ""


class DroppedLogPolicy(msgspec.Struct, kw_only=True):
    """A policy that is gone; what it held goes by its last limits, unless that was deleted with it."""

    name: str
    kept: LogsHeld


class DropLogPolicy(msgspec.Struct, kw_only=True):
    """Delete a policy; with `logs` what it collected too."""

    name: str
    logs: bool = False


PUT_LOG_POLICY = Endpoint(SERVICE, "log-policy-put", PutLogPolicy, LogPolicy)
GET_LOG_POLICY = Endpoint(SERVICE, "log-policy-get", LogRuleRef, LogPolicy)
LIST_LOG_POLICIES = Endpoint(SERVICE, "log-policy-list", ListLogRules, LogPolicyPage)
DROP_LOG_POLICY = Endpoint(SERVICE, "log-policy-drop", DropLogPolicy, DroppedLogPolicy, deadline_s=30.0)
PUT_LOG_ALERT = Endpoint(SERVICE, "log-alert-put", PutLogAlert, LogAlert)
GET_LOG_ALERT = Endpoint(SERVICE, "log-alert-get", LogRuleRef, LogAlert)
LIST_LOG_ALERTS = Endpoint(SERVICE, "log-alert-list", ListLogRules, LogAlertPage)
DROP_LOG_ALERT = Endpoint(SERVICE, "log-alert-drop", LogRuleRef, LogAlert)

ENDPOINTS = (
    PUT_LOG_POLICY,
    GET_LOG_POLICY,
    LIST_LOG_POLICIES,
    DROP_LOG_POLICY,
    PUT_LOG_ALERT,
    GET_LOG_ALERT,
    LIST_LOG_ALERTS,
    DROP_LOG_ALERT,
)
