"""Spans of time as kubectl writes them."""

from __future__ import annotations

import re

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


def human_duration(seconds: float) -> str:
    """A span as kubectl shows it (`duration.HumanDuration` of k8s.io/apimachinery).

    Up to two seconds in the future count as now, since clocks differ.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    if whole < 2 * MINUTE:
        return f"{whole}s"
    for limit, unit, name, rest, rest_name in _SPANS:
        if whole < limit:
            value = f"{whole // unit}{name}"
            left = whole % unit // rest if rest else 0
            return f"{value}{left}{rest_name}" if left else value
    return f"{whole // YEAR}y"


_SPANS = (
    (10 * MINUTE, MINUTE, "m", 1, "s"),
    (3 * HOUR, MINUTE, "m", 0, ""),
    (8 * HOUR, HOUR, "h", MINUTE, "m"),
    (48 * HOUR, HOUR, "h", 0, ""),
    (8 * DAY, DAY, "d", HOUR, "h"),
    (2 * YEAR, DAY, "d", 0, ""),
    (8 * YEAR, YEAR, "y", DAY, "d"),
)

_UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "y": YEAR}
_WRITTEN = re.compile(r"(?:\d{1,9}[smhdy])+")
_PART = re.compile(r"(\d+)([smhdy])")


def parse_duration(text: str) -> int:
    """Seconds of a span as `human_duration` and people write it: `30d`, `12h`, `1h30m`. Raises ValueError."""
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no span of time: write 30d, 12h or 1h30m")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
