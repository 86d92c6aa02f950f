"""Logs of containers: what is asked for, and what of a line is shown."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint

LogDirection = Literal["forward", "backward"]
LogLevel = Literal["trace", "debug", "info", "warn", "error", "fatal"]

MAX_PAGE = 5000
"""Lines of one page."""
MAX_SEARCH = 1000
"""Characters of a searched text or regular expression."""
MAX_FIELDS = 20
"""Conditions on fields in one filter."""


class LogFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which lines are meant: those that fulfil all that is not empty.

    `search` is plain text, `regex` a regular expression of RE2. `inverse`
    turns both around, and nothing else. `level` means that level or worse.
    `fields` are conditions on JSON lines such as `status>=500`, `user.id=42`,
    `path~^/api`, `!trace_id`. `since` and `until` are nanoseconds since 1970;
    until itself is not meant.
    """

    search: str = ""
    regex: str = ""
    ignore_case: bool = False
    inverse: bool = False
    level: LogLevel | None = None
    fields: tuple[str, ...] = ()
    since: int = 0
    until: int = 0


class ReadLogs(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a container's log: of its latest run, or of the one before (`previous`).

    Forward pages begin at the oldest line that is kept, or with the last `tail`
    lines; backward ones at the newest. `position` is the `next` of the page before.
    """

    id: str
    filter: LogFilter = msgspec.field(default_factory=LogFilter)
    previous: bool = False
    tail: int | None = None
    direction: LogDirection = "forward"
    limit: int = 500
    position: str = ""
    plain: bool = False
    """Without ANSI sequences."""
    timestamps: bool = True


class LogPage(msgspec.Struct, kw_only=True):
    """Lines as the JSON they are shown as, with commas between; `next` is empty where nothing more is.

    `gap` says that the line at `position` is not kept any more, so that others
    before the first of these may have gone with it.
    """

    items: bytes
    next: str = ""
    gap: bool = False


class ExportLogs(msgspec.Struct, frozen=True, kw_only=True):
    """All of a container's log, in a form to be kept."""

    id: str
    filter: LogFilter = msgspec.field(default_factory=LogFilter)
    previous: bool = False
    tail: int | None = None
    form: Literal["text", "lines"] = "text"
    compression: Literal["none", "gzip", "zstd"] = "none"
    timestamps: bool = False
    plain: bool = False


class LogExport(msgspec.Struct, frozen=True):
    """The session (`kubelore.common.bus.sessions`) that carries the file, and a name for it."""

    session: str
    name: str


READ_LOGS = Endpoint(SERVICE, "logs-read", ReadLogs, LogPage, deadline_s=30.0)
EXPORT_LOGS = Endpoint(SERVICE, "logs-export", ExportLogs, LogExport, deadline_s=20.0)

ENDPOINTS = (READ_LOGS, EXPORT_LOGS)
