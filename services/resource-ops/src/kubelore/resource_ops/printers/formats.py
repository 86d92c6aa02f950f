"""What printers share: columns, ages, selectors, lists that are cut short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from kubelore.common.contracts.resources import Column
from kubelore.common.durations import human_duration

Object = Mapping[str, Any]
"""A decoded object or a part of one."""
Cells = list[Any]
"""What stands in a row: JSON values, in the order of the columns."""


class Printer(NamedTuple):
    """The columns of one type, and the cells of one of its objects at a moment (seconds since the epoch)."""

    columns: list[Column]
    cells: Callable[[Object, float], Cells]


def columns(*texts: str) -> list[Column]:
    """Columns from `Name`, `Name:integer`; a trailing `+` puts one into the wide form."""
    made: list[Column] = []
    for text in texts:
        wide = text.endswith("+")
        name, _, kind = text.removesuffix("+").partition(":")
        made.append(
            Column(
                name=name,
                type=kind or "string",
                format="name" if name == "Name" else "",
                priority=1 if wide else 0,
            )
        )
    return made


def seconds_of(timestamp: Any) -> float | None:
    """A timestamp of the API in seconds since the epoch; None when absent or unreadable."""
    if not isinstance(timestamp, str) or not timestamp:
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return None


def since(timestamp: Any, now: float) -> str:
    """How long ago a timestamp was."""
    moment = seconds_of(timestamp)
    return "<unknown>" if moment is None else human_duration(now - moment)


def age(of: Object, now: float) -> str:
    """How long ago an object was created."""
    return since(part(of, "metadata").get("creationTimestamp"), now)


def name_of(of: Object) -> str:
    """An object's name."""
    return part(of, "metadata").get("name", "")


def part(of: Object, *path: str) -> Object:
    """A nested object; an empty one where any step is absent."""
    for step in path:
        of = of.get(step) or {}
    return of


def items(of: Object, key: str) -> Sequence[Any]:
    """A list in an object; empty where absent."""
    return of.get(key) or ()


def or_none(text: Any) -> Any:
    """`<none>` for what is empty."""
    return text or "<none>"


def containers_and_images(pod_spec: Object) -> tuple[str, str]:
    """Names and images of the containers, each on one line."""
    containers = items(pod_spec, "containers")
    names = ",".join(container.get("name", "") for container in containers)
    return names, ",".join(container.get("image", "") for container in containers)


def labels_line(labels: Mapping[str, str] | None) -> str:
    """A set of labels on one line, sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def selector_text(selector: Object | None) -> str:
    """A label selector of a manifest, written as kubectl takes it; empty when it selects by nothing."""
    if not selector:
        return ""
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    terms += [(term.get("key", ""), _expression(term)) for term in items(selector, "matchExpressions")]
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0]))


def _expression(term: Object) -> str:
    key, operator = term.get("key", ""), term.get("operator")
    values = ",".join(sorted(items(term, "values")))
    forms = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
    return forms.get(str(operator), f"!{key}")


def selector_line(selector: Object | None) -> str:
    """A label selector, `<none>` when it selects by nothing."""
    return or_none(selector_text(selector))


def shortened(found: Sequence[str], shown: int, *, count: int | None = None, empty: str = "<unset>") -> str:
    """The first few on one line, and how many more there are."""
    total = len(found) if count is None else count
    line = ",".join(found[:shown])
    if len(found) > shown:
        return f"{line} + {total - shown} more..."
    return line or empty
