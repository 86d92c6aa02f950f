"""A stream of JSON values from outside.

Python's JSON parser recurses, so the depth and the number of values are found in
the text first: strings are cut out, brackets, commas and colons counted. What is
over a limit goes to the YAML reader, which stops there and knows the line.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

from kubelore.common.errors import Invalid, TooLarge
from kubelore.common.kube.yaml_events import CONTROL, Limits, too_many_documents

# The closing quote is optional so that an open string is consumed at once, not searched again from each quote.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_STRUCTURE = str.maketrans("", "", "".join(map(chr, set(range(128)) - set(map(ord, "[]{},:")))))
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_SUSPICIOUS_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def read_json_stream(text: str, limits: Limits) -> list[Any] | None:
    """The values that follow one another; None when the text is not JSON all through, or too deep.

    Raises TooLarge for too many values, and Invalid for duplicate keys, NUL, half of a
    surrogate pair, and numbers that JSON or 64 bits cannot hold.
    """
    if _depth(text, limits) > limits.depth:
        return None
    documents: list[Any] = []
    position = _skip_space(text, 0)
    try:
        while position < len(text):
            if len(documents) == limits.documents:
                raise too_many_documents(limits)
            value, position = _DECODER.raw_decode(text, position)
            documents.append(value)
            position = _skip_space(text, position)
    except json.JSONDecodeError:
        return None
    if _SUSPICIOUS_ESCAPE.search(text):
        _check_strings(documents)
    return documents


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _depth(text: str, limits: Limits) -> int:
    structure = _STRING.sub("", text).translate(_STRUCTURE)
    nodes = len(structure) - structure.count("]") - structure.count("}")
    if nodes > limits.nodes:
        raise TooLarge(
            f"The text holds more than {limits.nodes:,} values.",
            remedy="Split it into several smaller ones.",
            code="too-many-nodes",
        )
    return max(accumulate(_STEP.get(character, 0) for character in structure), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        _refuse(f"the key {twice[:60]!r} twice", "duplicate-key", "Keep one of them.")
    for key in found:
        if CONTROL.search(key):
            _refuse("a control character in a key", "control-character", "Remove it.")
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        _refuse("an integer of more than 64 bits", "number", "Put it in quotes.")
    return value


def _float(text: str) -> int | float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _refuse("a number that is not finite", "number", "Put it in quotes.")
    return int(value) if value.is_integer() and -(1 << 63) <= value < 1 << 63 else value


def _constant(_text: str) -> NoReturn:
    _refuse("a number that is not finite", "number", "Put it in quotes.")


def _check_strings(value: Any) -> None:
    """Refuse NUL and unpaired surrogates, which only escapes can bring in. The depth has been checked."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            _refuse("NUL or half of a surrogate pair", "control-character", "Remove it.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)


def _refuse(what: str, code: str, remedy: str) -> NoReturn:
    raise Invalid(f"The text holds {what}.", remedy=remedy, code=code)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
