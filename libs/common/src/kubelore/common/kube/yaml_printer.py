"""Objects printed as `kubectl get -o yaml` prints them.

Block style, sorted keys, compact sequences, no aliases, long lines folded at 80; a
string is quoted when a reader could take it for something else, and multi-line
text is a literal block. The events go straight to libyaml's emitter, so that no
resolver of another YAML version has a say. One deliberate difference: the
string `<<` is quoted, because readers take it for a merge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cmp_to_key
from typing import Any

import yaml
from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from kubelore.common.kube.yaml_scalars import float_text, needs_quotes

_BOTH = (True, True)
_LETTERS = re.compile(r"[A-Za-z]*")
_DIGITS = re.compile(r"[0-9]*")
_WIDTH = 80
_OPEN_END = "\n...\n"


def dump(value: Any) -> str:
    """One document of JSON values as YAML text. Raises TypeError for anything that JSON cannot hold."""
    text: str = yaml.emit(_document(value), Dumper=yaml.CSafeDumper, width=_WIDTH, allow_unicode=True)
    # libyaml marks the end of a document whose last block keeps its line ends; kubectl does not.
    return text[: 1 - len(_OPEN_END)] if text.endswith(_OPEN_END) else text


def _document(value: Any) -> Iterator[Event]:
    yield StreamStartEvent()
    yield DocumentStartEvent(explicit=False)
    yield from _events(value)
    yield DocumentEndEvent(explicit=False)
    yield StreamEndEvent()


def _events(value: Any) -> Iterator[Event]:
    """The events of a value, depth first, with a stack of its own: an object from a cluster may be deep."""
    pending: list[Iterator[Any]] = [iter((value,))]
    ends: list[Event] = []
    while pending:
        for item in pending[-1]:
            if isinstance(item, dict):
                yield MappingStartEvent(None, None, True, flow_style=not item)
                pending.append(_pairs(item))
                ends.append(MappingEndEvent())
                break
            if isinstance(item, list):
                yield SequenceStartEvent(None, None, True, flow_style=not item)
                pending.append(iter(item))
                ends.append(SequenceEndEvent())
                break
            yield _scalar(item)
        else:
            pending.pop()
            if ends:
                yield ends.pop()


def _pairs(mapping: dict[str, Any]) -> Iterator[Any]:
    for key in _sorted_keys(mapping):
        yield key
        yield mapping[key]


def _scalar(value: Any) -> ScalarEvent:
    match value:
        case str():
            return _string(value)
        case None:
            return ScalarEvent(None, None, _BOTH, "null")
        case bool():
            return ScalarEvent(None, None, _BOTH, "true" if value else "false")
        case int():
            return ScalarEvent(None, None, _BOTH, str(value))
        case float():
            return ScalarEvent(None, None, _BOTH, float_text(value))
        case _:
            raise TypeError(f"{type(value).__name__} is not a JSON value")


def _string(text: str) -> ScalarEvent:
    if "\n" in text:
        return ScalarEvent(None, None, _BOTH, text, style="|")
    return ScalarEvent(None, None, _BOTH, text, style='"' if needs_quotes(text) else None)


def _sorted_keys(mapping: dict[str, Any]) -> list[str]:
    """Keys in go-yaml's order: letters after everything else, runs of digits by their number."""
    keys = sorted(mapping)
    if all(_LETTERS.fullmatch(key) for key in keys):
        return keys
    return sorted(keys, key=cmp_to_key(_compare))


def _compare(a: str, b: str) -> int:
    for at, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return _compare_at(a, b, at, left, right)
    return len(a) - len(b)


def _compare_at(a: str, b: str, at: int, left: str, right: str) -> int:
    if left.isalpha() and right.isalpha():
        return -1 if left < right else 1
    if left.isalpha() or right.isalpha():
        return -1 if right.isalpha() else 1
    lead = "1" if "0" in (left, right) and _in_number(a, at) else ""
    left_run, right_run = _run(a, at), _run(b, at)
    left_number, right_number = int(lead + left_run or "0"), int(lead + right_run or "0")
    if left_number != right_number:
        return -1 if left_number < right_number else 1
    if len(left_run) != len(right_run):
        return len(left_run) - len(right_run)
    return -1 if left < right else 1


def _run(text: str, start: int) -> str:
    match = _DIGITS.match(text, start)
    # Cut where Go's 64-bit sum ends too: a key has at most 253 characters that could matter.
    return match[0][:300] if match else ""


def _in_number(text: str, at: int) -> bool:
    """Whether the digits just before a position hold one other than 0, so that a 0 there counts."""
    head = text[:at]
    return head[len(head.rstrip("0123456789")) :].strip("0") != ""
