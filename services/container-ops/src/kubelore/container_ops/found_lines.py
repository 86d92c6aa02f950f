"""Lines that were found, in one order whatever they come from, and the pages of it. Pure.

The order is by time, then by the container's run, then as they were written. A
position in it means the same when lines that were read live are stored, or
segments are merged, before the next page is asked for.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar

from kubelore.common.contracts.log_search import FoundLine, FoundPosition
from kubelore.container_ops.line_content import level_of
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.segments import StreamKey

PAGE_BYTES = 4 * 1024 * 1024
"""A page ends behind the line that goes over it."""


class Hit(NamedTuple):
    """A line that matches. `tie` orders lines of one time and run, as they were written."""

    at: int
    origin: str
    tie: tuple[int, ...]
    key: StreamKey
    line: LogLine
    stored: bool

    @property
    def order(self) -> tuple[int, str, bool, tuple[int, ...]]:
        """What hits are sorted by; what was read live comes behind what is stored."""
        return self.at, self.origin, not self.stored, self.tie


def origin_of(key: StreamKey) -> str:
    """A container's run as text, by which its lines are told from others of the same time."""
    return f"{key.cluster}:{key.namespace}:{key.pod}:{key.uid}:{key.container}:{key.restart}"


def numbered(hits: Iterable[Hit]) -> list[tuple[FoundPosition, Hit]]:
    """Every line once, in its place: one that is stored and was read live too is the stored one."""
    found: list[tuple[FoundPosition, Hit]] = []
    ordered = sorted(hits, key=lambda hit: hit.order)
    for (at, origin), same in groupby(ordered, key=lambda hit: (hit.at, hit.origin)):
        stored: Counter[bytes] = Counter()
        number = 0
        for hit in same:
            if hit.stored:
                stored[hit.line.text] += 1
            elif stored[hit.line.text]:
                stored[hit.line.text] -= 1
                continue
            found.append((FoundPosition(at, origin, number), hit))
            number += 1
    return found


def page_of(
    hits: Iterable[Hit], after: FoundPosition | None, *, newest_first: bool, limit: int
) -> tuple[list[Hit], FoundPosition | None]:
    """At most `limit` hits behind a position, and the position behind them when there are more."""
    placed = numbered(hits)
    if after is not None:
        placed = [one for one in placed if (one[0] < after if newest_first else one[0] > after)]
    if newest_first:
        placed.reverse()
    taken: list[Hit] = []
    size = 0
    for position, hit in placed:
        taken.append(hit)
        size += len(hit.line.text)
        if len(taken) == limit or size > PAGE_BYTES:
            return taken, position if len(taken) < len(placed) else None
    return taken, None


class _Timed(Protocol):
    @property
    def at(self) -> int: ...


T = TypeVar("T", bound=_Timed)


def best(found: list[T], begun_at: int | None, *, newest_first: bool, limit: int) -> list[T]:
    """The first `limit` by time, with all that have the time of the last of them, and all at the time a page begins at."""
    if len(found) <= limit:
        return found
    times = sorted((one.at for one in found if one.at != begun_at), reverse=newest_first)
    if len(times) <= limit:
        return found
    edge = times[limit - 1]
    return [one for one in found if (one.at >= edge if newest_first else one.at <= edge)]


def shown(hit: Hit) -> FoundLine:
    """A hit as it is answered."""
    key, text = hit.key, hit.line.text
    try:
        message, encoding = text.decode(), ""
    except UnicodeDecodeError:
        message, encoding = base64.b64encode(text).decode(), "base64"
    return FoundLine(
        timestamp=rfc3339(hit.at),
        cluster=key.cluster,
        namespace=key.namespace,
        pod=key.pod,
        container=key.container,
        restart=key.restart,
        node=key.node,
        workload=key.workload,
        message=message,
        encoding=encoding,
        level=level_of(text),
        whole=hit.line.whole,
        stored=hit.stored,
    )


def rfc3339(at: int) -> str:
    """A time in nanoseconds since 1970, with all its digits."""
    return f"{datetime.fromtimestamp(at // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1_000_000_000:09d}Z"
