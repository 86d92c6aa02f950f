"""Filters made of typed values, so that no value can ever become an operator.

A filter is a mapping of field names to a value, which must be equal, or to a
condition made by a function of this module. A dict or a list as a value is
refused: what came in as JSON cannot carry `{"$ne": null}` into a query
(OWASP's NoSQL injection). Regular expressions and `$where` have no way in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from kubelore.common.errors import BadRequest, Invalid

Scalar: TypeAlias = str | int | float | bool | bytes | datetime | None
"""What a field may be compared with."""

MAX_CHOICES = 1000
MAX_DEPTH = 50

_SCALARS = (str, int, float, bool, bytes, datetime, type(None))
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+){0,8}")
_LAST_CODE_POINT = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Condition:
    """One or more comparisons that a field must all satisfy; joined with `&`."""

    operators: tuple[tuple[str, Any], ...]

    def __and__(self, other: Condition) -> Condition:
        taken = {name for name, _ in self.operators}
        if any(name in taken for name, _ in other.operators):
            raise BadRequest("A condition compares a field twice in the same way.")
        return Condition(self.operators + other.operators)


Where: TypeAlias = Mapping[str, Scalar | Condition]
"""A filter: every field named must match."""


def ne(value: Scalar) -> Condition:
    """Another value than this, or none."""
    return Condition((("$ne", checked(value)),))


def lt(value: Scalar) -> Condition:
    """Less than, of the same type."""
    return Condition((("$lt", checked(value)),))


def lte(value: Scalar) -> Condition:
    """Less than or equal, of the same type."""
    return Condition((("$lte", checked(value)),))


def gt(value: Scalar) -> Condition:
    """Greater than, of the same type."""
    return Condition((("$gt", checked(value)),))


def gte(value: Scalar) -> Condition:
    """Greater than or equal, of the same type."""
    return Condition((("$gte", checked(value)),))


def not_lt(value: Scalar) -> Condition:
    """Not less than, of the same type; or not there."""
    return Condition((("$not", {"$lt": checked(value)}),))


def one_of(values: Iterable[Scalar]) -> Condition:
    """Any of at most 1,000 values; of none at all, nothing matches. Raises BadRequest."""
    choices = [checked(value) for value in values]
    if len(choices) > MAX_CHOICES:
        raise BadRequest(f"A filter lists {len(choices)} values; at most {MAX_CHOICES} are allowed.")
    return Condition((("$in", choices),))


def present(wanted: bool = True) -> Condition:
    """The field is there, whatever it holds; or is not."""
    return Condition((("$exists", bool(wanted)),))


def starts_with(prefix: str) -> Condition:
    """Text that begins so: a range that an index serves, and no regular expression."""
    above = _above(checked_text(prefix))
    return gte(prefix) & lt(above) if above else gte(prefix)


def compile_filter(where: Where) -> dict[str, dict[str, Any]]:
    """The query document. Every value stands behind an operator of ours. Raises BadRequest."""
    return {checked_field(field): _compiled(field, wanted) for field, wanted in where.items()}


def checked(value: Any) -> Any:
    """The value, when it is one that a field may be compared with. Raises BadRequest."""
    if not isinstance(value, _SCALARS):
        raise BadRequest(f"A filter compares with a plain value, not with a {type(value).__name__}.")
    if isinstance(value, str):
        return checked_text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadRequest("A number in a filter is out of range.")
    return value


def checked_text(text: str) -> str:
    """The text, when it can be stored at all. Raises BadRequest on half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("A text in a filter is not valid Unicode.") from error
    return text


def checked_field(name: str) -> str:
    """The name of a field, or a path of names joined by dots. Raises BadRequest."""
    if not _FIELD.fullmatch(name):
        raise BadRequest(f"{name[:80]!r} is not the name of a field.")
    return name


def checked_document(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document, when none of its keys could be taken for an operator. Raises Invalid."""
    _check_keys(document, 0)
    return document


_FLAT = frozenset({str, bytes, int, float, bool, type(None)})
"""What most fields hold; asking an abstract class costs more than the rest of the check."""


def _check_keys(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Invalid(f"A document is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Mapping):
        for key, member in value.items():
            if not isinstance(key, str) or key.startswith("$") or "\0" in key:
                raise Invalid(f"{str(key)[:80]!r} cannot be the name of a field.")
            if type(member) not in _FLAT and isinstance(member, (Mapping, list, tuple)):
                _check_keys(member, depth + 1)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _check_keys(member, depth + 1)


def _compiled(field: str, wanted: Scalar | Condition) -> dict[str, Any]:
    if isinstance(wanted, Condition):
        return dict(wanted.operators)
    try:
        return {"$eq": checked(wanted)}
    except BadRequest as error:
        raise BadRequest(f"{field}: {error.detail}") from error


def _above(prefix: str) -> str:
    """The least text greater than all that begin with `prefix`, as UTF-8 orders; empty when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < _LAST_CODE_POINT:
            following = 0xE000 if last == 0xD7FF else last + 1
            return prefix[:-1] + chr(following)
        prefix = prefix[:-1]
    return ""
