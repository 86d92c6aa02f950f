"""Texts that every match of a regular expression must hold, so that blocks without them are not opened. Pure.

The pattern is RE2's; it is read by Python's own parser, which knows nearly the
same language. Where the two differ, or the pattern is beyond it, nothing is
found, which costs time and never a match.
"""

from __future__ import annotations

import re
import warnings
from re import _constants as codes  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

_DIFFERENT = ("[:", "\\Q", "\\C", "(?#", "{,")
_BOUNDARIES = (codes.AT_BEGINNING, codes.AT_END, codes.AT_BOUNDARY, codes.AT_BEGINNING_STRING)


def literals_of(pattern: str, *, ignore_case: bool) -> list[bytes]:
    """The texts; a line feed in one stands for a place where a word ends (`\\b`, `^`, `$`)."""
    if any(text in pattern for text in _DIFFERENT):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed: Any = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, Warning):
        return []
    folds = ignore_case or bool(parsed.state.flags & re.IGNORECASE)
    found = _Found()
    found.walk(parsed, folds)
    found.end()
    return found.literals


class _Found:
    """The literals of a sequence, gathered from left to right."""

    def __init__(self) -> None:
        self.literals: list[bytes] = []
        self._current = bytearray()

    def end(self) -> None:
        if self._current.strip(b"\n"):
            self.literals.append(bytes(self._current))
        self._current.clear()

    def walk(self, sequence: Any, folds: bool) -> None:
        for code, value in sequence:
            if code is codes.LITERAL:
                self._literal(value, folds)
            elif code is codes.AT and value in _BOUNDARIES:
                self._current += b"\n"
            elif code is codes.SUBPATTERN:
                _, add, remove, inner = value
                inner_folds = (folds or bool(add & re.IGNORECASE)) and not remove & re.IGNORECASE
                self.walk(inner, inner_folds)
            elif code in (codes.MAX_REPEAT, codes.MIN_REPEAT) and value[0] >= 1:
                self.end()
                self.walk(value[2], folds)
                self.end()
            else:
                self.end()

    def _literal(self, value: int, folds: bool) -> None:
        # Beyond ASCII, case folds in ways that a filter over bytes does not know.
        if (value >= 0x80 and folds) or 0xD800 <= value < 0xE000 or value == 0x0A:
            self.end()
        else:
            self._current += chr(value).encode()
