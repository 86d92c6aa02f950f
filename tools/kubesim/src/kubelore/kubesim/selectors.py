"""Label and field selectors, as far as the API server's own clients use them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .status import bad_request

_TERM = re.compile(
    r"\s*(?:(?P<negated>!)\s*(?P<absent>[\w./-]+)"
    r"|(?P<setkey>[\w./-]+)\s+(?P<setop>in|notin)\s*\((?P<values>[^)]*)\)"
    r"|(?P<key>[\w./-]+)\s*(?P<op>==|!=|=|>|<)\s*(?P<value>[\w.-]*)"
    r"|(?P<present>[\w./-]+))\s*(?:,|$)"
)


class LabelSelector:
    def __init__(self, terms: tuple[tuple[str, str, tuple[str, ...]], ...]) -> None:
        self.terms = terms

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        terms: list[tuple[str, str, tuple[str, ...]]] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TERM.match(text, position)
            if match is None:
                raise bad_request(f"unable to parse requirement: {text}")
            position = match.end()
            if match["absent"]:
                terms.append((match["absent"], "absent", ()))
            elif match["setkey"]:
                values = tuple(value.strip() for value in match["values"].split(","))
                terms.append((match["setkey"], match["setop"], values))
            elif match["key"]:
                terms.append((match["key"], match["op"], (match["value"],)))
            else:
                terms.append((match["present"], "present", ()))
        return cls(tuple(terms))

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(_term_matches(labels.get(key), op, values) for key, op, values in self.terms)


def _term_matches(value: str | None, op: str, values: tuple[str, ...]) -> bool:
    if op in ("absent", "present"):
        return (value is None) == (op == "absent")
    if op in ("!=", "notin"):
        return value is None or value not in values
    if op in (">", "<"):
        if value is None or not value.isdigit():
            return False
        return int(value) > int(values[0]) if op == ">" else int(value) < int(values[0])
    return value in values


class FieldSelector:
    def __init__(self, terms: tuple[tuple[str, bool, str], ...]) -> None:
        self.terms = terms

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        terms: list[tuple[str, bool, str]] = []
        for part in filter(None, text.split(",")):
            match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", part)
            if match is None:
                raise bad_request(f"invalid selector: {part!r}; can't understand {part!r}")
            terms.append((match[1], match[2] != "!=", match[3]))
        return cls(tuple(terms))

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(field, "") == value) == equal for field, equal, value in self.terms)
