"""Times in queries: what people write and the schema promises, as seconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, WithJsonSchema

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]|$)")
_TIME = TypeAdapter(datetime)


def _seconds(written: object) -> float:
    # A bare number would be read as seconds or milliseconds, by its size: nobody should have to guess which.
    if not isinstance(written, str) or not _DATED.match(written):
        raise ValueError("write a time as 2026-11-24T13:00:00Z")
    moment = _TIME.validate_python(written)
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except OverflowError:
        # Its offset leads out of the calendar, where nobody could show it again.
        raise ValueError("write a time between the years 1 and 9999 in UTC") from None


Moment = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "string", "format": form} for form in ("date-time", "date")]}),
]
"""RFC 3339; without an offset in UTC, and a date alone is its midnight. Seconds since the epoch."""
