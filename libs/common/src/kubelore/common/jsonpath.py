"""The JSONPath of Kubernetes: printer columns of custom resources, and `-o jsonpath` and `custom-columns`.

`.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `.a[0]`,
`.a[*].b`, `['key']`, `\\.` inside a name: what kubectl's JSONPath is used for
there in practice. A path that cannot be read finds nothing, as an absent field;
`understood` tells the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>(?:[^.\[\\]|\\.)+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<slice>-?\d*:-?\d*)\]
      | \[(?P<all>\*)\] | \.(?P<star>\*)
      | \['(?P<key>[^']*)'\]
      | \[\?\(\s*@(?P<path>[^=!<>()\s]*)\s*(?P<operator>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]""",
    re.VERBOSE,
)
Step = Callable[[Any], Iterable[Any]]


class JsonPath:
    """A parsed path."""

    def __init__(self, text: str) -> None:
        self._steps = _parse(text.strip().removeprefix("{").removesuffix("}").removeprefix("$"))

    @property
    def understood(self) -> bool:
        """Whether the path could be read."""
        return self._steps is not None

    def find(self, value: Any) -> list[Any]:
        """Everything that the path finds, in order."""
        if self._steps is None:
            return []
        found = [value]
        for step in self._steps:
            found = [inner for outer in found for inner in step(outer)]
        return found


def _parse(text: str) -> list[Step] | None:
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            return None
        steps.append(_step(match))
        position = match.end()
    return steps


def _step(match: re.Match[str]) -> Step:
    if match["all"] or match["star"] or match["name"] == "*":
        return _every
    if match["index"] is not None:
        return _index(int(match["index"]))
    if match["slice"] is not None:
        first, _, last = match["slice"].partition(":")
        return _slice(slice(int(first) if first else None, int(last) if last else None))
    if match["operator"]:
        return _filter(JsonPath(match["path"]), match["value"].strip("\"'"), match["operator"] == "==")
    name = match["key"] if match["key"] is not None else re.sub(r"\\(.)", r"\1", match["name"])
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _every(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else []


def _index(place: int) -> Step:
    def step(value: Any) -> Iterable[Any]:
        return [value[place]] if isinstance(value, list) and -len(value) <= place < len(value) else []

    return step


def _slice(part: slice) -> Step:
    return lambda value: value[part] if isinstance(value, list) else []


def _filter(path: JsonPath, wanted: str, equal: bool) -> Step:
    def step(value: Any) -> Iterable[Any]:
        items = value if isinstance(value, list) else []
        return [item for item in items if (wanted in map(_text, path.find(item))) is equal]

    return step


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
