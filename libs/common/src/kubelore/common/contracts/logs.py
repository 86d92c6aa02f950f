"""Logs of containers: what is asked for, and what of a line is shown."""

from __future__ import annotations

from typing import Literal

import msgspec

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
