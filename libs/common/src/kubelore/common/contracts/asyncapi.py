"""The bus as an AsyncAPI 3.0 document, made from the contracts themselves.

`python -m kubelore.common.contracts.asyncapi > docs/asyncapi.yaml` writes it.
Nothing in it is written by hand but the headers and the words around; a test
fails when the file no longer says what the contracts say.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any, get_args

import msgspec
import yaml

from kubelore.common.contracts import alerts, audit, backups, changes, clusters, restores
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.endpoints import ENDPOINTS

RECORDS: tuple[type[msgspec.Struct], ...] = get_args(changes.Record)

REQUEST_HEADERS = {
    "Kubelore-Deadline": "Milliseconds the caller will still wait; the service stops then.",
    "Kubelore-Caller": "Where somebody is needed on whose behalf it is asked: the gateway's word for them, "
    "a JWT (Ed25519) good for 60 s.",
    "Kubelore-Operation": "While something is changed: the id of the operation that this is part of (UUIDv7).",
    "traceparent": "W3C trace context.",
}
REPLY_HEADERS = {
    "Nats-Service-Error": "Only with an error: one line for people (ADR-32).",
    "Nats-Service-Error-Code": "Only with an error: its HTTP status; the body is then the error as JSON.",
    "Kubelore-Session": "Only with a large answer: its frames follow on kubelore.v1.session.<this>.out.",
    "Kubelore-Size": "Only with a large answer: its bytes in all.",
}
TRACE_HEADERS = {"traceparent": "W3C trace context."}
ALERT_HEADERS = {
    "Content-Type": alerts.CONTENT_TYPE,
    "Nats-Msg-Id": "<source>:<id> of the event: one published twice is stored once.",
    "traceparent": "W3C trace context.",
}
CHANGE_HEADERS = {
    "Nats-Msg-Id": "<cluster>.<fence>.<number>: a batch sent twice is stored once.",
    "Nats-Expected-Last-Subject-Sequence": "The publisher's fence: refused when it is no longer the newest.",
    "Nats-Expected-Last-Subject-Sequence-Subject": "kubelore.v1.fence.<cluster>",
}

_DESCRIPTION = """\
What Kubelore's services say to each other over NATS. Messages are msgpack; a
field that is `format: base64` here is raw bytes there. Services register by
ADR-32, so that `nats micro ls` finds them. Adding a field with a default is
compatible; anything else is a new subject version.
"""

_PARAMETERS = {
    "cluster": "The cluster's id (its name): a DNS label.",
    "replica": "The id of one replica of the service, as its leases name it.",
    "partition": f"p00 to p{changes.PARTITIONS - 1}: CRC-32 of the cluster's id modulo {changes.PARTITIONS}.",
    "audited": "The id of the cluster it was done in; _ where it is none.",
    "action": "What was done: two words joined by a dot.",
    "backup": "The id of the backup.",
    "severity": "info, warning or critical.",
    "source": "The service that found it.",
    "happened": "What happened: the member `happened` of the event.",
}

_EVENTS: dict[str, type[msgspec.Struct]] = {
    "events.cluster": clusters.ClusterEvent,
    "events.audit": audit.AuditEvent,
    "events.restore": restores.RestoreEvent,
    "events.backup": backups.BackupEvent,
}

# By name: how its subject ends, what is said of it, and what it calls its message.
_EVENT_CHANNELS = {
    "events.cluster": ("{cluster}.{happened}", "Kept for 7 days in the stream EVENTS.", "event"),
    "events.audit": (
        "{audited}.{action}",
        "Best effort; kept for 7 days in the stream EVENTS. The audit log itself is in MongoDB.",
        "event",
    ),
    "events.restore": (
        "{cluster}.{happened}",
        "How far a restore is: best effort; kept for 7 days in the stream EVENTS.",
        "event",
    ),
    "events.alert": (
        "{cluster}.{severity}.{source}",
        (
            "CloudEvents 1.0 as JSON, kept for 7 days in the stream EVENTS. With the type "
            f"{alerts.CREDENTIALS_EXPIRE} the data is an ExpiryData; with {alerts.BACKUP_FAILED} and "
            f"{alerts.BACKUP_LATE} a BackupAlertData; "
            f"with {alerts.VERSION_DRIFT} a DriftData; with {alerts.LOG_ALERT} a LogAlertData."
        ),
        "alert",
    ),
    "events.backup": ("{backup}.{happened}", "Best effort; kept for 7 days in the stream EVENTS.", "event"),
    "events.resource": (
        "{cluster}.{partition}",
        (
            "The change contract (docs/architecture.md). Kept in CHANGES until every consumer has it, "
            "and for 15 minutes in FEED. Once it is stored, NATS says it to the gateways on "
            "kubelore.v1.stored.<its subject> as well."
        ),
        "batch",
    ),
}

_PUBLISHERS = {
    "events.cluster": "cluster-registry and resource-ops say what happened to a cluster.",
    "events.backup": "yaml-vcs says how far a backup is, and how it ended.",
    "events.audit": "The gateway says what somebody did, or was refused to do.",
    "events.restore": "yaml-vcs says how far a restore is.",
    "events.alert": "cluster-registry says when credentials expire, yaml-vcs when scheduled backups fail or are late.",
    "events.resource": "The observer of a cluster, in resource-ops, publishes what changed in it.",
}


def document() -> dict[str, Any]:
    """The whole document."""
    schemas = _schemas()
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        _add_endpoint(endpoint, channels, operations, messages)
    _add_events(channels, operations, messages)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Kubelore's bus", "version": "1", "description": _DESCRIPTION},
        "defaultContentType": "application/vnd.msgpack",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": dict(sorted(messages.items())),
            "schemas": schemas,
            "parameters": {name: {"description": said} for name, said in _PARAMETERS.items()},
        },
    }


def render() -> str:
    """The document as YAML, the same for the same contracts."""
    return yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _schemas() -> dict[str, Any]:
    types: list[Any] = [
        *_EVENTS.values(),
        alerts.CloudEvent,
        alerts.ExpiryData,
        alerts.BackupAlertData,
        alerts.DriftData,
        alerts.LogAlertData,
        *RECORDS,
    ]
    for endpoint in ENDPOINTS:
        types += [endpoint.request, endpoint.response]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {name: _readable(schema) for name, schema in sorted(schemas.items())}


def _readable(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what msgspec repeats, and with the docstring's indentation taken off."""
    if "description" in schema:
        schema = {**schema, "description": inspect.cleandoc(schema["description"])}
    return {name: value for name, value in schema.items() if name != "title"}


def _add_endpoint(
    endpoint: Endpoint[Any, Any],
    channels: dict[str, Any],
    operations: dict[str, Any],
    messages: dict[str, Any],
) -> None:
    name = f"{endpoint.service}.{endpoint.name}"
    parameters = () if endpoint.scope == "service" else (endpoint.scope,)
    target = None if endpoint.scope == "service" else f"{{{endpoint.scope}}}"
    request, reply = endpoint.request.__name__, endpoint.response.__name__
    messages[f"{name}.request"] = _message(request, REQUEST_HEADERS)
    messages[f"{name}.reply"] = _message(reply, REPLY_HEADERS)
    channels[name] = {
        "address": endpoint.subject(target),
        **_parameters(parameters),
        "messages": {"request": _ref(f"components/messages/{name}.request")},
    }
    channels[f"{name}.reply"] = {
        "address": None,
        "messages": {"reply": _ref(f"components/messages/{name}.reply")},
    }
    operations[name] = {
        "action": "receive",
        "summary": f"{endpoint.service} answers within {endpoint.deadline_s:g} s unless the caller says otherwise.",
        "channel": _ref(f"channels/{name}"),
        "messages": [_ref(f"channels/{name}/messages/request")],
        "reply": {
            "address": {"location": "$message.header#/reply", "description": "The inbox of the request."},
            "channel": _ref(f"channels/{name}.reply"),
            "messages": [_ref(f"channels/{name}.reply/messages/reply")],
        },
    }


def _add_events(channels: dict[str, Any], operations: dict[str, Any], messages: dict[str, Any]) -> None:
    for name, event in _EVENTS.items():
        messages[name] = _message(event.__name__, TRACE_HEADERS)
    messages["events.alert"] = {
        **_message(alerts.CloudEvent.__name__, ALERT_HEADERS),
        "contentType": alerts.CONTENT_TYPE,
    }
    records = [{"$ref": f"#/components/schemas/{record.__name__}"} for record in RECORDS]
    messages["events.resource"] = {
        "summary": "A batch of records of one cluster, in order: at most 100, or about 256 KB.",
        "headers": _headers(CHANGE_HEADERS),
        "payload": {"type": "array", "items": {"oneOf": records}},
    }
    for name, (place, description, message) in _EVENT_CHANNELS.items():
        channels[name] = {
            "address": f"kubelore.v1.{name}.{place}",
            "description": description,
            **_parameters(re.findall(r"{(\w+)}", place)),
            "messages": {message: _ref(f"components/messages/{name}")},
        }
    for name, publishers in _PUBLISHERS.items():
        operations[name] = {"action": "send", "summary": publishers, "channel": _ref(f"channels/{name}")}


def _message(schema: str, headers: dict[str, str]) -> dict[str, Any]:
    return {"headers": _headers(headers), "payload": {"$ref": f"#/components/schemas/{schema}"}}


def _headers(described: dict[str, str]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": said} for name, said in described.items()}
    return {"type": "object", "properties": properties}


def _parameters(names: Iterable[str]) -> dict[str, Any]:
    found = {name: _ref(f"components/parameters/{name}") for name in names}
    return {"parameters": found} if found else {}


def _ref(path: str) -> dict[str, str]:
    return {"$ref": f"#/{path}"}


if __name__ == "__main__":
    sys.stdout.write(render())
