"""Values built from libyaml's events in one pass, counted while they grow.

Building on the events, without PyYAML's nodes in between, is what allows to stop
at a limit before anything recursive has seen the document; it also takes a third
of the time of `yaml.load`. See `documents` for what is refused and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from kubelore.common.errors import Invalid, TooLarge
from kubelore.common.kube.yaml_scalars import Scalar, resolve

_TAG = "tag:yaml.org,2002:"
_MAP_TAG = f"{_TAG}map"
_SEQ_TAG = f"{_TAG}seq"
_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    f"{_TAG}int": (int,),
    f"{_TAG}float": (int, float),
    f"{_TAG}bool": (bool,),
    f"{_TAG}null": (type(None),),
}
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
COLLECTION_NODES = 3
"""A list or map counts as three scalars, for so much longer it takes to build one."""
MAX_ANCHORS = 1_000
"""Anchors of one document."""
_NO_KEY: Any = object()
_MERGE: Any = object()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a text may hold. `characters` bounds all scalars together, with aliases expanded."""

    characters: int
    depth: int
    nodes: int
    documents: int


class _Frame:
    """A collection under construction; once closed, what its anchor stands for.

    `nodes` and `characters` are the counts when it began, and of the whole once closed.
    """

    __slots__ = ("characters", "closed", "height", "is_map", "key", "merges", "nodes", "value")

    def __init__(self, value: Any, nodes: int, characters: int, *, is_map: bool = False) -> None:
        self.value = value
        self.nodes = nodes
        self.characters = characters
        self.is_map = is_map
        self.height = 0
        self.closed = False
        self.key = _NO_KEY
        self.merges: list[Any] | None = None


class DocumentBuilder:
    """Builds every document of a stream. Use once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stack: list[_Frame] = []
        self._top: _Frame | None = None
        self._anchors: dict[str, _Frame] = {}
        self._documents: list[Any] = []
        self._nodes = 0
        self._characters = 0

    def build(self, next_event: Callable[[], Event | None]) -> list[Any]:
        """The documents' values. Raises Invalid and TooLarge, and whatever `next_event` raises."""
        most_nodes, most_characters = self._limits.nodes, self._limits.characters
        while True:
            event = next_event()
            kind = type(event)
            if kind is ScalarEvent:
                self._scalar(event)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                self._open(event, kind is MappingStartEvent)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._close(event)
            elif kind is AliasEvent:
                self._alias(event)
            elif kind is DocumentStartEvent:
                self._start_document()
            elif kind is StreamEndEvent:
                return self._documents
            if self._nodes > most_nodes or self._characters > most_characters:
                raise _too_many(self._limits, event)

    def _start_document(self) -> None:
        self._anchors = {}
        if len(self._documents) == self._limits.documents:
            raise too_many_documents(self._limits)

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        tag = event.tag
        top = self._top
        in_key = top is not None and top.is_map and top.key is _NO_KEY
        self._nodes += 1
        self._characters += len(text)
        value: Scalar = text
        if tag is not None:
            value = _json_number(_tagged(event), event)
        elif event.implicit[0]:
            if text == "<<" and top is not None and in_key:
                top.key = _MERGE
                return
            value = resolve(text)
            if type(value) is not str:
                value = _json_number(value, event)
        elif "\0" in text:
            raise _refused(event, "a NUL character", "control-character", "Remove it.")
        if event.anchor is not None:
            anchor = _Frame(value, 1, len(text))
            anchor.closed = True
            self._name(event, anchor)
        if in_key:
            self._key(value, event)
        else:
            self._add(value, event)

    def _open(self, event: Any, is_map: bool) -> None:
        top = self._top
        frame = _Frame({} if is_map else [], self._nodes, self._characters, is_map=is_map)
        self._nodes += COLLECTION_NODES
        if len(self._stack) >= self._limits.depth:
            raise _too_deep(self._limits, event)
        if event.tag is not None and event.tag != (_MAP_TAG if is_map else _SEQ_TAG):
            raise _refused_tag(event)
        if top is not None and top.is_map and top.key is _NO_KEY:
            raise _refused(event, "a list or map as a key", "key", "Keys are texts.")
        if event.anchor is not None:
            self._name(event, frame)
        self._stack.append(frame)
        self._top = frame

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        if frame.merges is not None:
            _merge(frame.value, frame.merges, event)
        frame.nodes = self._nodes - frame.nodes
        frame.characters = self._characters - frame.characters
        frame.closed = True
        self._top = self._stack[-1] if self._stack else None
        if self._top is not None and self._top.height <= frame.height:
            self._top.height = frame.height + 1
        self._add(frame.value, event)

    def _name(self, event: Any, frame: _Frame) -> None:
        self._anchors[event.anchor] = frame
        if len(self._anchors) > MAX_ANCHORS:
            raise _refused(
                event, f"more than {MAX_ANCHORS:,} anchors", "alias", "Write out what they stand for."
            )

    def _alias(self, event: Any) -> None:
        anchor = self._anchors.get(event.anchor)
        if anchor is None or not anchor.closed:
            problem = "an alias of something unknown" if anchor is None else "an alias of what it stands in"
            raise _refused(
                event, problem, "alias", "An alias repeats what an anchor named before, as a whole."
            )
        self._nodes += anchor.nodes
        self._characters += anchor.characters
        if self._nodes > self._limits.nodes or self._characters > self._limits.characters:
            raise _too_many(self._limits, event)
        top = self._top
        if top is not None and top.is_map and top.key is _NO_KEY:
            self._key(anchor.value, event)
            return
        if isinstance(anchor.value, dict | list) and top is not None:
            if len(self._stack) + anchor.height + 1 > self._limits.depth:
                raise _too_deep(self._limits, event)
            top.height = max(top.height, anchor.height + 1)
        self._add(_copy(anchor.value), event)

    def _key(self, value: Any, event: Any) -> None:
        top = self._stack[-1]
        key = _key_text(value, event)
        if key in top.value:
            raise _refused(event, f"the key {_shown(key)} twice", "duplicate-key", "Keep one of them.")
        top.key = key

    def _add(self, value: Any, event: Any) -> None:
        top = self._top
        if top is None:
            self._documents.append(value)
        elif not top.is_map:
            top.value.append(value)
        elif top.key is not _MERGE:
            top.value[top.key] = value
            top.key = _NO_KEY
        else:
            if top.merges is not None:
                raise _refused(event, "the key << twice", "duplicate-key", "Merge a list of aliases.")
            top.merges = value if isinstance(value, list) else [value]
            top.key = _NO_KEY


def _merge(target: dict[str, Any], merges: list[Any], event: Any) -> None:
    for merged in merges:
        if not isinstance(merged, dict):
            raise _refused(event, "a merge of what is no map", "alias", "<< takes maps only.")
        for key, value in merged.items():
            target.setdefault(key, value)


def _tagged(event: Any) -> Scalar:
    if "\0" in event.value:
        raise _refused(event, "a NUL character", "control-character", "Remove it.")
    if event.tag == f"{_TAG}str":
        return event.value
    value = resolve(event.value)
    wanted = _SCALAR_TAGS.get(event.tag)
    if wanted is None or type(value) not in wanted:
        raise _refused_tag(event)
    return value


def _json_number(value: Scalar, event: Any) -> Scalar:
    """The number as it leaves Go's JSON: whole floats as integers. What JSON cannot hold exactly is refused."""
    if isinstance(value, float) and value.is_integer() and -(1 << 63) <= value < 1 << 63:
        return int(value)
    if isinstance(value, float) and value - value != 0:
        raise _refused(event, "a number that is not finite", "number", "Put it in quotes.")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise _refused(event, "an integer of more than 64 bits", "number", "Put it in quotes.")
    return value


def _key_text(value: Any, event: Any) -> str:
    match value:
        case str():
            if CONTROL.search(value):
                raise _refused(event, "a control character in a key", "control-character", "Remove it.")
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            raise _refused(event, "a key that is no text", "key", "Put the key in quotes.")


def _copy(value: Any) -> Any:
    """The value without shared parts; its depth has been checked."""
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    return value


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _shown(key: str) -> str:
    return repr(key if len(key) <= 60 else key[:59] + "…")


def _refused(event: Any, what: str, code: str, remedy: str) -> Invalid:
    return Invalid(f"Line {_line(event)} holds {what}.", remedy=remedy, code=code, line=_line(event))


def _refused_tag(event: Any) -> Invalid:
    return _refused(
        event, "a tag that Kubernetes does not take, or that does not fit", "tag", "Remove the tag."
    )


def _too_many(limits: Limits, event: Any) -> TooLarge:
    line = _line(event)
    return TooLarge(
        f"Up to line {line} the text holds more than {limits.nodes:,} values or {limits.characters:,} "
        "characters, with its aliases expanded.",
        remedy="Split it into several smaller ones.",
        code="too-many-nodes",
        line=line,
    )


def too_many_documents(limits: Limits) -> TooLarge:
    """The error for one document more than the limit."""
    return TooLarge(
        f"The text holds more than {limits.documents:,} documents.",
        remedy="Split it into several smaller ones.",
        code="too-many-documents",
    )


def _too_deep(limits: Limits, event: Any) -> TooLarge:
    line = _line(event)
    return TooLarge(
        f"At line {line} the document is more than {limits.depth} levels deep.",
        remedy="Nothing in Kubernetes is nested so deep; check the file.",
        code="too-deep",
        line=line,
    )
