"""Times in queries: what is taken for one, and what is refused before anybody reckons with it."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from kubelore.gateway.moments import Moment

TIMES: TypeAdapter[float] = TypeAdapter(Moment)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2026-11-24T13:00:00Z", 1795525200.0),
        ("2026-11-24T15:00:00+02:00", 1795525200.0),
        ("2026-11-24 13:00:00", 1795525200.0),
        ("1970-01-02", 86400.0),
        ("0001-01-01T00:00:00Z", -62135596800.0),
    ],
)
def test_a_time_is_seconds_since_1970_in_utc_unless_it_says_otherwise(written: str, seconds: float) -> None:
    assert TIMES.validate_python(written) == seconds


@pytest.mark.parametrize(
    "written", ["1764000000", "now", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", ""]
)
def test_what_is_no_time_that_can_be_shown_again_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        TIMES.validate_python(written)
