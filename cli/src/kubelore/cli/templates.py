"""`-o jsonpath=TEMPLATE` and `-o custom-columns=SPEC`, as kubectl understands them. Pure.

A template is text with `{...}` in it: a path, a quoted text, or `{range PATH}`
to `{end}`, within which paths begin at each value of PATH.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer

from kubelore.common.jsonpath import JsonPath

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
_PIECE = re.compile(
    r"\{\s*(?P<inside>(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^{}\"'])*)\s*\}|(?P<text>[^{}]+)"
)


@dataclass
class _Text:
    text: str


@dataclass
class _Value:
    path: JsonPath


@dataclass
class _Range:
    path: JsonPath
    parts: list[_Text | _Value | _Range] = field(default_factory=list)


class Template:
    """A parsed template. Raises BadParameter for what cannot be read."""

    def __init__(self, text: str) -> None:
        # kubectl takes a bare path too.
        text = text if "{" in text else "{" + text + "}"
        open_ranges = [_Range(JsonPath(""))]
        position = 0
        while position < len(text):
            found = _PIECE.match(text, position)
            if found is None:
                raise typer.BadParameter(
                    f"the template cannot be read from {text[position : position + 20]!r} on"
                )
            position = found.end()
            self._take(open_ranges, found["text"], (found["inside"] or "").strip())
        if len(open_ranges) > 1:
            raise typer.BadParameter("a {range} of the template has no {end}")
        self._root = open_ranges[0]

    def _take(self, open_ranges: list[_Range], text: str | None, inside: str) -> None:
        parts = open_ranges[-1].parts
        if text is not None:
            parts.append(_Text(text))
        elif inside == "end":
            if len(open_ranges) == 1:
                raise typer.BadParameter("the template has an {end} without a {range}")
            open_ranges.pop()
        elif inside.startswith("range "):
            inner = _Range(_path(inside.removeprefix("range ")))
            parts.append(inner)
            open_ranges.append(inner)
        elif inside[:1] in ("'", '"') and inside[-1:] == inside[:1]:
            parts.append(
                _Text(re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), inside[1:-1]))
            )
        else:
            parts.append(_Value(_path(inside)))

    def render(self, value: Any) -> str:
        """The template filled in; several values of one path with spaces between them."""
        return "".join(_render(self._root.parts, value))


def _path(text: str) -> JsonPath:
    text = text.strip().removeprefix("$").removeprefix("@")
    path = JsonPath(text if text[:1] in ("", ".", "[") else f".{text}")
    if not path.understood:
        raise typer.BadParameter(f"{text[:80]!r} is no path")
    return path


def _render(parts: list[_Text | _Value | _Range], value: Any) -> Iterator[str]:
    for part in parts:
        if isinstance(part, _Text):
            yield part.text
        elif isinstance(part, _Value):
            yield " ".join(_told(found) for found in part.path.find(value))
        else:
            for each in part.path.find(value):
                yield from _render(part.parts, each)


def _told(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class CustomColumns:
    """`NAME:.metadata.name,IMAGE:.spec.containers[*].image`. Raises BadParameter for what cannot be read."""

    def __init__(self, text: str) -> None:
        self.header: list[str] = []
        self._paths: list[JsonPath] = []
        # A comma inside of [...] is part of a path.
        for part in re.split(r",(?![^\[]*\])", text):
            name, colon, path = part.partition(":")
            if not (name and colon and path):
                raise typer.BadParameter(f"{part[:80]!r} is no column: write HEADER:PATH")
            self.header.append(name)
            self._paths.append(_path(path.strip().removeprefix("{").removesuffix("}")))

    def cells(self, value: Any) -> list[str]:
        """One row; `<none>` where a path finds nothing."""
        return [",".join(_told(one) for one in path.find(value)) or "<none>" for path in self._paths]
