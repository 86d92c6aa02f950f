"""Which lines are meant: a LogFilter made ready to be asked of each line. Pure.

Regular expressions are RE2's, whose time grows with the line and never with
the pattern's repetitions. Text is compared without colours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import re2

from kubelore.common.contracts.logs import MAX_FIELDS, MAX_SEARCH, LogFilter, LogLevel
from kubelore.common.errors import BadRequest
from kubelore.container_ops.line_content import RANKS, json_of, level_of, level_of_fields, without_ansi
from kubelore.container_ops.lines import LogLine

__all__ = ["FieldCondition", "LineFilter", "LogFilter", "compiled_regex"]

MAX_REGEX_MEMORY = 8 * 1024 * 1024

Operator = Literal["=", "!=", ">", ">=", "<", "<=", "~", "exists", "absent"]
_CONDITION = re.compile(
    r"(?P<path>[^=!<>~]{1,200}?)\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<value>.*)\Z", re.S
)


def compiled_regex(pattern: str, *, ignore_case: bool = False) -> Any:
    """A regular expression over bytes. Raises BadRequest for what RE2 does not take, or is too long or costly."""
    if len(pattern) > MAX_SEARCH:
        raise BadRequest(
            f"the regular expression has {len(pattern)} characters, at most {MAX_SEARCH} are taken"
        )
    options = re2.Options()
    options.max_mem = MAX_REGEX_MEMORY
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else error
        words = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise BadRequest(
            f"the regular expression cannot be used: {words[:200]}",
            remedy="The syntax is RE2's: no look-around, no back-references.",
        ) from error


class FieldCondition(NamedTuple):
    """A condition on one field of JSON lines, whose `path` goes through objects by dots."""

    path: tuple[str, ...]
    operator: Operator
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> FieldCondition:
        """Read `status>=500`, `user.id=42`, `path~^/api`, `trace` (is there) or `!trace`. Raises BadRequest."""
        match = _CONDITION.match(text)
        if match is None:
            name = text.removeprefix("!").strip()
            if not name or len(name) > 200 or any(sign in name for sign in "=!<>~"):
                raise BadRequest(
                    f"{text[:120]!r} is no condition on a field",
                    remedy="Write status>=500, user.id=42 or !trace.",
                )
            return cls(tuple(name.split(".")), "absent" if text.startswith("!") else "exists")
        found: Any = match["operator"]
        return cls(tuple(match["path"].strip().split(".")), found, match["value"])

    def test(self) -> Callable[[dict[str, Any]], bool]:
        """The condition as a function of a line's fields. Raises BadRequest for a bad expression or number."""
        if self.operator == "exists":
            return lambda fields: _field(fields, self.path) is not _NONE
        if self.operator == "absent":
            return lambda fields: _field(fields, self.path) is _NONE
        holds = self._comparison()
        return lambda fields: (found := _field(fields, self.path)) is not _NONE and holds(found)

    def _comparison(self) -> Callable[[Any], bool]:
        value = self.value
        if self.operator == "~":
            regex = compiled_regex(value)
            return lambda found: regex.search(_written(found).encode(errors="replace")) is not None
        if self.operator in ("=", "!="):
            equal = self.operator == "="
            return lambda found: (_written(found) == value or _same_number(found, value)) == equal
        try:
            limit = float(value)
        except ValueError:
            raise BadRequest(f"{value[:80]!r} is no number to compare with") from None
        compare = _COMPARISONS[self.operator]
        return lambda found: (number := _number(found)) is not None and compare(number, limit)


class LineFilter:
    """A LogFilter that can be asked. Raises BadRequest for a filter that cannot be.

    Pieces of a long line are asked one by one, as if each were a line.
    """

    def __init__(self, asked: LogFilter) -> None:
        if len(asked.search) > MAX_SEARCH:
            raise BadRequest(f"at most {MAX_SEARCH} characters are searched for")
        if len(asked.fields) > MAX_FIELDS:
            raise BadRequest(f"at most {MAX_FIELDS} conditions on fields are taken")
        self.asked = asked
        self.fields = tuple(FieldCondition.parse(one) for one in asked.fields)
        self._tests = [condition.test() for condition in self.fields]
        self._regex = compiled_regex(asked.regex, ignore_case=asked.ignore_case) if asked.regex else None
        self._search = _search(asked.search, ignore_case=asked.ignore_case) if asked.search else None
        self._rank = RANKS[asked.level] if asked.level else -1
        self._lifts = not (asked.search or asked.regex or asked.level or asked.fields)
        self._any_time = not (asked.since or asked.until)

    @property
    def everything(self) -> bool:
        """Whether every line matches."""
        return self._lifts and self._any_time

    def matches(self, line: LogLine) -> bool:
        """Whether a line is meant."""
        return (self._any_time or self.in_time(line.at)) and (self._lifts or self.matches_text(line.text))

    def in_time(self, at: int) -> bool:
        """Whether a time (ns) is meant."""
        return self.asked.since <= at and not (self.asked.until and at >= self.asked.until)

    def matches_text(self, text: bytes) -> bool:
        """Whether a text is meant, whenever it was written."""
        bare = without_ansi(text)
        found = (self._search is None or self._search(bare)) and (
            self._regex is None or self._regex.search(bare) is not None
        )
        if (self._search is not None or self._regex is not None) and found == self.asked.inverse:
            return False
        if not self._tests:
            return self._rank < 0 or _rank(level_of(bare)) >= self._rank
        fields = json_of(bare)
        if fields is None or not all(test(fields) for test in self._tests):
            return False
        return self._rank < 0 or _rank(level_of_fields(fields)) >= self._rank


_NONE = object()
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
}


def _search(text: str, *, ignore_case: bool) -> Callable[[bytes], bool]:
    if ignore_case:
        regex = compiled_regex(re2.escape(text[:MAX_SEARCH]), ignore_case=True)
        return lambda line: regex.search(line) is not None
    needle = text.encode(errors="replace")
    return lambda line: needle in line


def _rank(level: LogLevel | None) -> int:
    return RANKS[level] if level is not None else -1


def _field(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path: a key with dots in it before the objects in objects."""
    if len(path) > 1 and (whole := ".".join(path)) in fields:
        return fields[whole]
    found: Any = fields
    for part in path:
        if not isinstance(found, dict) or part not in found:
            return _NONE
        found = found[part]
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except OverflowError:
        # JSON takes integers of any length, floats do not.
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None


def _same_number(found: Any, value: str) -> bool:
    number = None if isinstance(found, str) else _number(found)
    return number is not None and number == _number(value)
