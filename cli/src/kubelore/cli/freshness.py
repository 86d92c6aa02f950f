"""How far rows can be trusted, told on stderr: clusters that are not live, and since when."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from kubelore.cli.output import warn
from kubelore.common.durations import human_duration


def warn_of_states(states: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name every cluster that is not live; returns those."""
    troubled = [state for state in states if state["status"] != "live"]
    for state in troubled:
        warn(freshness(state))
    return troubled


def freshness(state: dict[str, Any]) -> str:
    """One cluster's status in words."""
    verdict = "cannot be read" if state["status"] == "error" else f"is {state['status']}"
    since = ""
    if state["as_of"]:
        then = datetime.fromisoformat(state["as_of"])
        ago = human_duration(max(0, int((datetime.now(UTC) - then).total_seconds())))
        since = f", as of {then.astimezone():%H:%M:%S} ({ago} ago)"
    reason = f": {state['error']}" if state["error"] else ""
    return f"cluster {state['name']} {verdict}{since}{reason}"
