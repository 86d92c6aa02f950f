"""An object as text that people read, in the manner of `kubectl describe`, whatever its type. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubelore.common.durations import human_duration

_HIDDEN = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
_TOLD_ABOVE = frozenset({"apiVersion", "kind", "metadata", "status"})
_VERBATIM = frozenset(
    {
        "allocatable", "annotations", "binaryData", "capacity", "data", "hard", "labels", "limits",
        "matchLabels", "nodeSelector", "requests", "used",
    }
)  # fmt: skip
"""Maps whose keys somebody chose, rather than the API."""
_WORDS = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")
_CONDITION = ("type", "status", "reason", "lastTransitionTime", "message")
MAX_TEXT = 1000
"""Characters of one value; a ConfigMap may hold a megabyte."""


@dataclass(frozen=True)
class Related:
    """What belongs to an object without being in it; None where there is nothing of the kind."""

    owners: Sequence[str] = ()
    pods: Sequence[Sequence[str]] | None = None
    events: Sequence[dict[str, Any]] | None = None


def describe_object(item: dict[str, Any], related: Related, now: datetime | None = None) -> Iterator[str]:
    """Lines over one item of a list."""
    found, now = item["object"], now or datetime.now(UTC)
    cluster, kind, namespace, name = item["id"].split(":", 3)
    metadata = found["metadata"]
    head = {"Name": name, "Namespace": namespace, "Cluster": cluster, "Type": kind}
    yield from _pairs((title, text) for title, text in head.items() if text)
    yield from _mapping("Labels", metadata.get("labels") or {})
    annotations = metadata.get("annotations") or {}
    yield from _mapping(
        "Annotations", {key: value for key, value in annotations.items() if key not in _HIDDEN}
    )
    yield from _pairs([("Created", _moment(metadata.get("creationTimestamp"), now))])
    if metadata.get("deletionTimestamp"):
        yield from _pairs([("Deleting", _moment(metadata["deletionTimestamp"], now))])
    if metadata.get("finalizers"):
        yield from _pairs([("Finalizers", ", ".join(metadata["finalizers"]))])
    if related.owners:
        yield from _pairs([("Controlled By", " of ".join(related.owners))])
    for key, value in found.items():
        if key not in _TOLD_ABOVE:
            yield from _field(key, value, 0)
    status = dict(found.get("status") or {})
    conditions = status.pop("conditions", None)
    if status:
        yield from _field("status", status, 0)
    if isinstance(conditions, list) and conditions:
        yield from _conditions(conditions, now)
    if related.pods is not None:
        yield from _table("Pods", related.pods)
    if related.events is not None:
        yield from _events(related.events, now)


def _pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"{title + ':':<15}{text}" for title, text in pairs)


def _mapping(title: str, values: dict[str, str]) -> Iterator[str]:
    if not values:
        yield from _pairs([(title, "<none>")])
    for number, (key, value) in enumerate(sorted(values.items())):
        yield f"{title + ':' if number == 0 else '':<15}{key}={_short(value)}"


def _field(key: str, value: Any, depth: int, *, verbatim: bool = False) -> Iterator[str]:
    """A field with what is under it; lists of maps as blocks of their own, lists of words on one line."""
    pad = "  " * depth
    label = f"{pad}{key if verbatim else title(key)}:"
    if isinstance(value, dict):
        yield label if value else f"{label} <none>"
        for inner, under in value.items():
            yield from _field(inner, under, depth + 1, verbatim=key in _VERBATIM or _is_selector(key, value))
    elif isinstance(value, list):
        yield from _list(label, value, depth)
    else:
        lines = _short(_plain(value)).splitlines() or [""]
        if len(lines) == 1:
            yield f"{label} {lines[0]}"
        else:
            yield label
            yield from (f"{pad}  {line}" for line in lines)


def _is_selector(key: str, value: dict[str, Any]) -> bool:
    """A Service's selector is a map of labels; other types' have fields."""
    return key == "selector" and not {"matchLabels", "matchExpressions"} & value.keys()


def _list(label: str, values: list[Any], depth: int) -> Iterator[str]:
    if not any(isinstance(one, dict | list) for one in values):
        yield f"{label} {', '.join(map(_plain, values)) or '<none>'}"
        return
    yield label
    for number, one in enumerate(values):
        pad = "  " * (depth + 1)
        if not isinstance(one, dict):
            yield f"{pad}{_plain(one)}"
            continue
        name = one.get("name", number)
        yield f"{pad}- {name}"
        for inner, under in one.items():
            if inner != "name":
                yield from _field(inner, under, depth + 2)


def title(key: str) -> str:
    """`terminationGracePeriodSeconds` as words; what is no such name (a label's key) as it is."""
    if not re.fullmatch(r"[a-z][A-Za-z0-9]*", key):
        return key
    return " ".join(word[:1].upper() + word[1:] for word in _WORDS.findall(key))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<none>" if value is None else str(value)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"


def _moment(text: str | None, now: datetime) -> str:
    if not text:
        return "<unknown>"
    return f"{text} ({_ago(text, now)} ago)"


def _ago(text: str | None, now: datetime) -> str:
    try:
        then = datetime.fromisoformat(text or "")
    except ValueError:
        return "<unknown>"
    return human_duration(max(0, int((now - then).total_seconds())))


def _conditions(conditions: list[Any], now: datetime) -> Iterator[str]:
    rows = [["Type", "Status", "Reason", "Since", "Message"]]
    for one in conditions:
        if isinstance(one, dict):
            cells = [str(one.get(key) or "") for key in _CONDITION]
            cells[3] = _ago(cells[3], now) if cells[3] else ""
            rows.append(cells)
    yield from _table("Conditions", rows)


def _events(events: Sequence[dict[str, Any]], now: datetime) -> Iterator[str]:
    if not events:
        yield from _pairs([("Events", "<none>")])
        return
    rows = [["Type", "Reason", "Age", "From", "Message"]]
    for one in events:
        seen = one.get("lastTimestamp") or one.get("eventTime") or one["metadata"].get("creationTimestamp")
        number = one.get("count") or 1
        age = _ago(seen, now) + (f" (x{number})" if number > 1 else "")
        source = (one.get("source") or {}).get("component") or one.get("reportingComponent") or ""
        rows.append(
            [one.get("type", ""), one.get("reason", ""), age, source, (one.get("message") or "").strip()]
        )
    yield from _table("Events", rows)


def _table(name: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if len(rows) < 2:
        yield from _pairs([(name, "<none>")])
        return
    yield f"{name}:"
    flat = [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in flat) for at in range(len(flat[0]))]
    for row in flat:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
