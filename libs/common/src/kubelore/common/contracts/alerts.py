"""Alerts as CloudEvents 1.0, so that any subscriber can use them.

Published on `kubelore.v1.events.alert.<cluster>.<severity>.<source>`, in the
structured mode of the NATS binding: the whole event is the message's JSON body,
and its `Content-Type` is `application/cloudevents+json`. An alert may come
twice; `source` and `id` together are the same then.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

CONTENT_TYPE = "application/cloudevents+json"

Severity = Literal["info", "warning", "critical"]

CREDENTIALS_EXPIRE = "io.kubelore.credentials.expire"
"""The type of alerts about credentials that expire; `data` is an `ExpiryData`."""

BACKUP_FAILED = "io.kubelore.backup.failed"
BACKUP_LATE = "io.kubelore.backup.late"
"""The types of alerts about backup policies, one for each cluster of the policy; `data` is a `BackupAlertData`."""
VERSION_DRIFT = "io.kubelore.version.drift"
"""The type of alerts about objects that depart from a tagged version; `data` is a `DriftData`."""

LOG_ALERT = "io.kubelore.log.matched"
"""The type of alerts about what containers log; `data` is a `LogAlertData`."""


class CloudEvent(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One event by the CloudEvents specification 1.0; `time` is RFC 3339 in UTC.

    `severity` is an extension attribute. `source` is a URI reference whose last
    segment is the service that found it; `subject` is the cluster.
    """

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: dict[str, Any]
    severity: Severity
    specversion: Literal["1.0"] = "1.0"
    datacontenttype: Literal["application/json"] = "application/json"


class ExpiryData(msgspec.Struct, kw_only=True):
    """A cluster's credentials expire, or have: `days_left` is below zero then."""

    cluster: str
    what: Literal["certificate", "token"]
    expires_at: str
    days_left: int
    threshold_days: int
    """Which of the warnings it is: 30, 7 or 1 days before, 0 at the end."""
    generation: int
    message: str
    remedy: str


class BackupAlertData(msgspec.Struct, kw_only=True):
    """A backup by a policy failed, or none was completed in time; times are ISO 8601 in UTC."""

    policy: str
    cluster: str
    slot: str
    """The scheduled time; empty for a run by hand."""
    backup_id: str = ""
    last_success: str = ""
    message: str
    remedy: str


class DriftData(msgspec.Struct, kw_only=True):
    """An object departed from a version that was tagged with an alert, or is as it was again (`cleared`).

    `fields` are the first 50 paths that differ; none when the object is gone.
    """

    resource_id: str
    tag: str
    tagged_version: int
    version: int
    state: Literal["drifted", "cleared"]
    fields: list[str]
    message: str
    remedy: str


class LogAlertData(msgspec.Struct, kw_only=True):
    """Lines of logs matched what an alert asks for, so often in `window_s` seconds that it was raised.

    `container` is the id of the container that wrote the last of them, `at` its time, `line` its first 512
    characters.
    """

    alert: str
    cluster: str
    container: str
    count: int
    window_s: int
    at: str
    line: str
    message: str
    remedy: str


def source_of(service: str) -> str:
    """The `source` of what a service finds."""
    return f"/kubelore/{service}"


def alert_subject(event: CloudEvent) -> str:
    """The subject an alert is published on."""
    service = event.source.rpartition("/")[2]
    return f"kubelore.v1.events.alert.{event.subject}.{event.severity}.{service}"
