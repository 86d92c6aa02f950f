"""The logs of many containers as one: which ones, and in which form they are sent."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.logs import LogDirection, LogFilter

StreamForm = Literal["events", "messages", "lines", "text"]
"""Server-sent events; messages for a WebSocket (each behind its length in four bytes); a JSON document a line; text."""

MAX_TARGETS = 100
MAX_TAIL = 100_000
SILENT_S = 12.0
"""Both sides of a stream's session say within this time that they are there: a reader learns soon of a dead service."""
MAX_MANY_PAGE = 1000
"""Lines of one page over many containers."""


class LogTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Containers of one cluster. What is empty restricts nothing.

    `workload` is written as kubectl takes it (`deployments.apps/web`) and is in
    the one namespace that is named. `containers` are names, with `*` and `?`.
    """

    cluster: str
    namespaces: tuple[str, ...] = ()
    labels: str = ""
    workload: str = ""
    pod: str = ""
    containers: tuple[str, ...] = ()


class StreamLogs(msgspec.Struct, frozen=True, kw_only=True):
    """What to read and how to send it.

    `tail` lines of each container that is there at the start, all when None.
    `previous` begins with the run before the latest, and without `follow` is
    that alone. `after` is the id of the last event that came; with it neither
    is heeded. `prefix` puts the origin before each line of text.
    """

    targets: tuple[LogTarget, ...]
    filter: LogFilter = msgspec.field(default_factory=LogFilter)
    follow: bool = True
    tail: int | None = None
    previous: bool = False
    form: StreamForm = "events"
    after: str = ""
    plain: bool = False
    """Without ANSI sequences."""
    levels: bool = False
    """With the level of each line, where one is recognised."""
    prefix: bool = False
    timestamps: bool = False


class LogStream(msgspec.Struct, frozen=True):
    """The session (`kubelore.common.bus.sessions`) that carries the bytes as they go to the client."""

    session: str


STREAM_LOGS = Endpoint(SERVICE, "logs-stream", StreamLogs, LogStream, deadline_s=20.0)


class ReadManyLogs(msgspec.Struct, frozen=True, kw_only=True):
    """One page of many containers' logs, as `kubelore.common.contracts.logs.ReadLogs` of one."""

    targets: tuple[LogTarget, ...]
    filter: LogFilter = msgspec.field(default_factory=LogFilter)
    direction: LogDirection = "forward"
    limit: int = 500
    tail: int | None = None
    previous: bool = False
    plain: bool = False
    position: str = ""


class ManyLogPage(msgspec.Struct, kw_only=True):
    """Lines as the JSON they are shown as, with commas between; `next` is empty where nothing more is.

    `failed` says of containers that could not be read why, by their ids.
    """

    items: bytes
    next: str = ""
    containers: int = 0
    failed: dict[str, str] = {}


READ_MANY_LOGS = Endpoint(SERVICE, "logs-read-many", ReadManyLogs, ManyLogPage, deadline_s=45.0)

ENDPOINTS = (STREAM_LOGS, READ_MANY_LOGS)
