"""What every way to read logs takes in its query: which lines are meant."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from kubelore.common.contracts.logs import MAX_FIELDS, MAX_SEARCH, LogFilter, LogLevel
from kubelore.common.errors import BadRequest
from kubelore.gateway.moments import Moment

_NS = 1_000_000_000
_LATEST = 2**63 - 1

Since = Annotated[Moment | None, Query(description="Only lines from this time on.")]
Until = Annotated[Moment | None, Query(description="Only lines before this time.")]


async def _filter(
    search: Annotated[str, Query(max_length=MAX_SEARCH, description="Only lines with this text.")] = "",
    regex: Annotated[
        str, Query(max_length=MAX_SEARCH, description="Only lines that match this expression (RE2).")
    ] = "",
    ignore_case: Annotated[bool, Query(description="For `search` and `regex`.")] = False,
    inverse: Annotated[bool, Query(description="Turns `search` and `regex` around.")] = False,
    level: Annotated[LogLevel | None, Query(description="This level or worse.")] = None,
    field: Annotated[
        list[str] | None,
        Query(
            description="Conditions on JSON lines, several times: `status>=500`, `user.id=42`, `path~^/api`, `!trace`.",
            examples=[["status>=500"]],
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
) -> LogFilter:
    if since is not None and until is not None and until <= since:
        raise BadRequest("until is not after since", remedy="Turn them around.")
    if field is not None and len(field) > MAX_FIELDS:
        raise BadRequest(f"at most {MAX_FIELDS} conditions on fields are taken")
    return LogFilter(
        search=search,
        regex=regex,
        ignore_case=ignore_case,
        inverse=inverse,
        level=level,
        fields=tuple(field or ()),
        since=_nanoseconds(since),
        until=_nanoseconds(until),
    )


def _nanoseconds(moment: float | None) -> int:
    """Since 1970, no more than 64 bits hold: the year 2262."""
    return 0 if moment is None else min(max(int(moment * _NS), 1), _LATEST)


FilterOf = Depends(_filter)
"""The LogFilter that a query describes."""
