"""What container-ops answers about lines of logs, stored and live, that match."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.logs import LogDirection, LogFilter, LogLevel

MAX_FOUND = 1000
"""Lines of one page."""
MAX_BUCKETS = 1000
MAX_SEARCH_S = 30


class LogPlaces(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Whose lines are searched: those of all that is named. Empty names restrict nothing; `labels` is a selector.

    Stored lines are found by them when the pod is gone; `workload` is written
    as `deployments.apps/web`.
    """

    clusters: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    pod: str = ""
    container: str = ""
    workload: str = ""
    labels: str = ""


class FoundPosition(msgspec.Struct, array_like=True, frozen=True, order=True):
    """The place of a line among all: its time (ns), its container's run, and its number among those of that time."""

    at: int
    origin: str
    number: int


class SearchLogs(msgspec.Struct, kw_only=True):
    """A page of matching lines behind a position. What is not found within `seconds` is left for the next page."""

    places: LogPlaces
    filter: LogFilter
    direction: LogDirection = "backward"
    limit: int = 100
    after: FoundPosition | None = None
    live: bool = True
    stored: bool = True
    seconds: float = 10.0


class FoundLine(msgspec.Struct, kw_only=True):
    """A line that matches. `encoding` is base64 where `message` is no UTF-8; `stored`: it was read from the store."""

    timestamp: str
    cluster: str
    namespace: str
    pod: str
    container: str
    restart: int
    node: str
    workload: str
    message: str
    encoding: str = ""
    level: LogLevel | None = None
    whole: bool = True
    stored: bool = True


class FoundGap(msgspec.Struct, kw_only=True):
    """Lines of a container that nobody could read, and why."""

    cluster: str
    namespace: str
    pod: str
    container: str
    since: str
    until: str
    reason: str


class SearchWork(msgspec.Struct, kw_only=True):
    """What was looked at: segments, blocks read and passed over, and containers that run.

    `raw_bytes` is the text of the blocks that were read. They are read whole,
    also where only a part of one is of the time or the container asked for.
    """

    segments: int = 0
    blocks: int = 0
    passed_over: int = 0
    raw_bytes: int = 0
    live_containers: int = 0


class SearchedLogs(msgspec.Struct, kw_only=True):
    """A page in the order of time, and where the next begins.

    `partial` with `problems`: something could not be searched, and will not be
    by the next page either. A page that time ran out on is short, and has a `next`.
    """

    items: list[FoundLine]
    next: FoundPosition | None
    gaps: list[FoundGap]
    partial: bool
    problems: list[str]
    work: SearchWork


class CountLogs(msgspec.Struct, kw_only=True):
    """How many lines match between `filter.since` and `filter.until`, in so many spans of equal length."""

    places: LogPlaces
    filter: LogFilter
    buckets: int = 60
    live: bool = True
    stored: bool = True
    seconds: float = 10.0


class CountedSpan(msgspec.Struct):
    """How many lines match from a time on, for the length of a span."""

    since: str
    count: int


class CountedLogs(msgspec.Struct, kw_only=True):
    """Counts of spans of `step_s` seconds, the earliest first; before `complete_from` time ran out."""

    items: list[CountedSpan]
    step_s: float
    total: int
    complete_from: str
    partial: bool
    problems: list[str]
    work: SearchWork


SEARCH_LOGS = Endpoint(SERVICE, "logs-search", SearchLogs, SearchedLogs, deadline_s=MAX_SEARCH_S + 15.0)
COUNT_LOGS = Endpoint(SERVICE, "logs-count", CountLogs, CountedLogs, deadline_s=MAX_SEARCH_S + 15.0)

ENDPOINTS = (SEARCH_LOGS, COUNT_LOGS)
