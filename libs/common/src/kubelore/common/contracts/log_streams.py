"""The logs of many containers as one: which ones, and in which form they are sent."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.logs import LogFilter

StreamForm = Literal["events", "messages", "lines", "text"]
"""Server-sent events; messages for a WebSocket (each behind its length in four bytes); a JSON document a line; text."""

MAX_TARGETS = 100
MAX_TAIL = 100_000


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

ENDPOINTS = (STREAM_LOGS,)
