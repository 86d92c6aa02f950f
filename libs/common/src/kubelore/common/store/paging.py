"""Pages by keyset: a page starts behind the sort key of the last row, wherever that row is now.

No row comes twice, and a row present throughout comes exactly once, which
`skip` does not give while others insert and delete. MongoDB puts a missing
field and null before every value, and compares only within a type, so the
bounds below name null on their own. A field that is sorted by holds one type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from kubelore.common.errors import BadRequest
from kubelore.common.store.filters import checked, checked_field

Sort: TypeAlias = Sequence[tuple[str, Literal[1, -1]]]
"""Fields with 1 for ascending and -1 for descending."""

BY_ID: Sort = (("_id", 1),)
MAX_SORT_FIELDS = 6


def complete(sort: Sort) -> list[tuple[str, Literal[1, -1]]]:
    """The order with `_id` as the last tie-breaker. Raises BadRequest."""
    if len(sort) > MAX_SORT_FIELDS:
        raise BadRequest(f"At most {MAX_SORT_FIELDS} fields can be sorted by.")
    whole: list[tuple[str, Literal[1, -1]]] = []
    for field, direction in sort:
        whole.append((checked_field(field), direction))
        if field == "_id":
            return whole
    return [*whole, ("_id", whole[-1][1] if whole else 1)]


def position(document: Mapping[str, Any], sort: Sort = BY_ID) -> list[Any]:
    """Where a row stands in an order; the `after` of the page behind it."""
    return [_value(document, field) for field, _ in complete(sort)]


def behind(after: Sequence[Any], sort: Sort) -> dict[str, Any]:
    """The query for everything behind a position. Raises BadRequest when it is no position in this order."""
    whole = complete(sort)
    if len(after) != len(whole):
        raise BadRequest("The position does not belong to this order.")
    values = [checked(value) for value in after]
    choices: list[dict[str, Any]] = []
    for index, (field, direction) in enumerate(whole):
        equal = [{name: {"$eq": value}} for (name, _), value in zip(whole[:index], values, strict=False)]
        choices.extend({"$and": [*equal, bound]} for bound in _past(field, direction, values[index]))
    return {"$or": choices}


def _past(field: str, direction: int, value: Any) -> list[dict[str, Any]]:
    if direction == 1:
        return [{field: {"$ne": None}} if value is None else {field: {"$gt": value}}]
    return [] if value is None else [{field: {"$lt": value}}, {field: {"$eq": None}}]


def _value(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
