"""Label and field selectors, parsed and matched as the API server does.

The rules are those of k8s.io/apimachinery v0.34 (`pkg/labels`, `pkg/fields`);
the tests hold this module to tables made with that package. An empty selector
matches everything. `requirements` are plain values, so that an index can answer
them without calling `matches` for every object.

Two deliberate differences: a selector longer than 64 KiB and one that holds NUL
are refused (the Go lexer takes NUL for the end of the text).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kubelore.common.errors import BadRequest

MAX_LENGTH = 64 * 1024

_LABEL_REMEDY = (
    "Write requirements with commas between them: key, !key, key=value, key!=value, "
    "key in (a,b), key notin (a,b), key>5, key<5."
)
_FIELD_REMEDY = (
    "Write field=value or field!=value with commas between them; "
    "put '\\' in front of '\\', ',' and '=' in a value."
)

_INT64 = 1 << 63
_TOKEN = re.compile(r"[ \t\r\n]*(?:(?P<symbol>!=|==|[=!(),<>])|(?P<word>[^ \t\r\n=!(),<>]+))")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,64}")


class Operator(StrEnum):
    """How a key relates to values; the strings are those of apimachinery's `selection` package."""

    IN = "in"
    NOT_IN = "notin"
    EQUALS = "="
    DOUBLE_EQUALS = "=="
    NOT_EQUALS = "!="
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = "gt"
    LESS_THAN = "lt"


_EXACT = {
    "=": Operator.EQUALS,
    "==": Operator.DOUBLE_EQUALS,
    "!=": Operator.NOT_EQUALS,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
}
_SETS = {"in": Operator.IN, "notin": Operator.NOT_IN}
_SYMBOL_OF = {operator: symbol for symbol, operator in _EXACT.items()}


def _integer(text: str) -> int | None:
    """A signed 64-bit integer in decimal, as Go's ParseInt(text, 10, 64) reads it; else None."""
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -_INT64 <= value < _INT64 else None


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One condition on one label.

    `values` are distinct and sorted: any number for IN and NOT_IN, none for
    EXISTS and DOES_NOT_EXIST, exactly one otherwise.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy the condition; NOT_IN and NOT_EQUALS are satisfied by an absent key."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.IN | Operator.EQUALS | Operator.DOUBLE_EQUALS:
                return value is not None and value in self.values
            case Operator.NOT_IN | Operator.NOT_EQUALS:
                return value is None or value not in self.values
            case Operator.GREATER_THAN | Operator.LESS_THAN:
                return value is not None and self._compares(value)

    def _compares(self, text: str) -> bool:
        value, bound = _integer(text), _integer(self.values[0])
        if value is None or bound is None:
            return False
        return value > bound if self.operator is Operator.GREATER_THAN else value < bound

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator.value} ({','.join(self.values)})"
            case _:
                return f"{self.key}{_SYMBOL_OF[self.operator]}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """The conjunction of label requirements, ordered by key."""

    requirements: tuple[LabelRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Read a selector as `kubectl -l` takes it. Raises BadRequest with what was found where."""
        requirements = _LabelParser(text).parse()
        return cls(tuple(sorted(requirements, key=lambda requirement: requirement.key)))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether every requirement holds for the labels."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __bool__(self) -> bool:
        return bool(self.requirements)


def _refuse(kind: str, text: str, problem: str, remedy: str) -> BadRequest:
    return BadRequest(f"The {kind} selector {_shown(text)} is malformed: {problem}.", remedy=remedy)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")


def _check_text(kind: str, text: str, remedy: str) -> None:
    if len(text) > MAX_LENGTH:
        raise _refuse(kind, text, f"it is longer than {MAX_LENGTH} characters", remedy)
    if "\0" in text:
        raise _refuse(kind, text, "it holds a NUL character", remedy)


class _LabelParser:
    """Recursive descent over the tokens; the token "" is the end of the text.

    `in` and `notin` are operators only behind a key: as keys and values they are ordinary words.
    """

    def __init__(self, text: str) -> None:
        _check_text("label", text, _LABEL_REMEDY)
        self._text = text
        tokens = [(match["symbol"] or "", match["word"] or "") for match in _TOKEN.finditer(text)]
        self._tokens = [*tokens, ("", "")]
        self._next = 0

    def parse(self) -> list[LabelRequirement]:
        requirements: list[LabelRequirement] = []
        if self._peek() == ("", ""):
            return requirements
        while True:
            requirements.append(self._requirement())
            found = self._take()
            if found == ("", ""):
                return requirements
            if found != (",", ""):
                raise self._unexpected(found, "',' or the end")

    def _requirement(self) -> LabelRequirement:
        negated = self._skip("!")
        symbol, key = self._take()
        if not key:
            raise self._unexpected((symbol, key), "a key")
        self._check_key(key)
        if negated:
            return LabelRequirement(key, Operator.DOES_NOT_EXIST)
        if self._peek() in (("", ""), (",", "")):
            return LabelRequirement(key, Operator.EXISTS)
        symbol, word = self._take()
        if symbol in _EXACT:
            return self._exact(key, _EXACT[symbol])
        if word in _SETS:
            values = tuple(sorted(self._value_set()))
            for value in values:
                self._check_value(key, value)
            return LabelRequirement(key, _SETS[word], values)
        raise self._unexpected((symbol, word), "=, ==, !=, in, notin, < or >")

    def _exact(self, key: str, operator: Operator) -> LabelRequirement:
        value = ""
        if self._peek() not in (("", ""), (",", "")):
            symbol, value = self._take()
            if not value:
                raise self._unexpected((symbol, value), "a value")
        if operator in (Operator.GREATER_THAN, Operator.LESS_THAN) and _integer(value) is None:
            raise self._refused(f"{_SYMBOL_OF[operator]} compares with a 64-bit integer, not {_shown(value)}")
        self._check_value(key, value)
        return LabelRequirement(key, operator, (value,))

    def _value_set(self) -> set[str]:
        if not self._skip("("):
            raise self._unexpected(self._peek(), "'('")
        values: set[str] = set()
        if self._skip(")"):
            return {""}
        while True:
            symbol, word = self._take()
            if word:
                values.add(word)
                if self._skip(")"):
                    return values
                if self._peek() != (",", ""):
                    raise self._unexpected(self._peek(), "',' or ')'")
            elif symbol == ",":
                if self._empty_values(values):
                    return values
            else:
                raise self._unexpected((symbol, word), "',' or a value")

    def _empty_values(self, values: set[str]) -> bool:
        """Behind a comma: add the empty value where nothing stands; True when the set has ended.

        `(,a)`, `(a,)` and `(a,,b)` hold the empty value, `(a,,)` is an error: apimachinery's rule.
        """
        if not values:
            values.add("")
        if self._skip(")"):
            values.add("")
            return True
        if self._skip(","):
            values.add("")
        return False

    def _check_key(self, key: str) -> None:
        prefix, slash, name = key.rpartition("/")
        if slash and not (len(prefix) <= 253 and _PREFIX.fullmatch(prefix)):
            raise self._refused(f"the prefix of the key {_shown(key)} is not a lower-case DNS name")
        if len(name) > 63 or not _NAME.fullmatch(name):
            raise self._refused(
                f"the key {_shown(key)} must be at most 63 letters, digits, '-', '_' or '.', "
                "and start and end with a letter or digit"
            )

    def _check_value(self, key: str, value: str) -> None:
        if value and (len(value) > 63 or not _NAME.fullmatch(value)):
            raise self._refused(
                f"the value {_shown(value)} of {key} must be empty or at most 63 letters, digits, '-', '_' "
                "or '.', and start and end with a letter or digit"
            )

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str]:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _skip(self, symbol: str) -> bool:
        if self._tokens[self._next] != (symbol, ""):
            return False
        self._next += 1
        return True

    def _unexpected(self, token: tuple[str, str], expected: str) -> BadRequest:
        found = token[0] or token[1]
        return self._refused(f"found {_shown(found) if found else 'the end'}, expected {expected}")

    def _refused(self, problem: str) -> BadRequest:
        return _refuse("label", self._text, problem, _LABEL_REMEDY)


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field: EQUALS or NOT_EQUALS. An absent field counts as empty."""

    field: str
    operator: Operator
    value: str

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether the fields satisfy the condition."""
        return (fields.get(self.field, "") == self.value) is (self.operator is Operator.EQUALS)

    def __str__(self) -> str:
        return f"{self.field}{self.operator.value}{_ESCAPED.sub(_BACKSLASHED, self.value)}"


_ESCAPED = re.compile(r"[\\,=]")
_BACKSLASHED = r"\\\g<0>"
_FIELD_OPERATOR = re.compile(r"!=|==|=")
_TERM = re.compile(r"(?:[^\\,]|\\.|\\$)*", re.DOTALL)
_VALUE = re.compile(r"(?:[^\\,=]|\\[\\,=])*")


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """The conjunction of field requirements, in the order of their written terms."""

    requirements: tuple[FieldRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Read a selector as `kubectl --field-selector` takes it. Raises BadRequest with the wrong term.

        Which fields a type supports is not known here; spaces belong to names and values.
        """
        _check_text("field", text, _FIELD_REMEDY)
        requirements = (_field_requirement(text, term) for term in sorted(_terms(text)) if term)
        # `=` alone, an empty value of a nameless field, restricts nothing and is left out as in apimachinery.
        return cls(tuple(one for one in requirements if one.field or one.value))

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether every requirement holds for the fields."""
        return all(requirement.matches(fields) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __bool__(self) -> bool:
        return bool(self.requirements)


def _terms(text: str) -> list[str]:
    """The text cut at its commas, except at escaped ones; escapes are kept."""
    terms: list[str] = []
    position = 0
    while position <= len(text):
        match = _TERM.match(text, position)
        end = match.end() if match else position
        terms.append(text[position:end])
        position = end + 1
    return terms


def _field_requirement(text: str, term: str) -> FieldRequirement:
    match = _FIELD_OPERATOR.search(term)
    if not match:
        raise _refuse("field", text, f"{_shown(term)} has no =, == or !=", _FIELD_REMEDY)
    value = term[match.end() :]
    if not _VALUE.fullmatch(value):
        raise _refuse("field", text, f"the value {_shown(value)} is not escaped rightly", _FIELD_REMEDY)
    operator = Operator.NOT_EQUALS if match[0] == "!=" else Operator.EQUALS
    return FieldRequirement(term[: match.start()], operator, re.sub(r"\\(.)", r"\1", value))
