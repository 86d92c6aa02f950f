"""YAML with comments, changed in some places: what is not touched stays as somebody wrote it. Pure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.util import load_yaml_guess_indent

from kubelore.common.errors import KubeloreError
from kubelore.common.kube.differences import ABSENT, Difference, Key, Segment, differences, same, value_at
from kubelore.common.kube.documents import dump, load_documents

WIDTH = 4096
"""Lines are not folded: folding would change lines that nobody touched."""
MAX_TEXT = 256 * 1024
MAX_NODES = 10_000
"""Of what is changed in place: reading with comments takes 0.3 ms for each, in a thread that nobody can stop."""


def revised(text: str, wanted: dict[str, Any]) -> str:
    """The text of one object, made to say what is wanted, its comments kept.

    The text has been read before (`load_documents`), and holds one document. Where
    it cannot be changed in place (anchors, items in another order) it is written
    anew, without comments; so is what is too large for that.
    """
    (held,) = load_documents(text)
    changes = differences(held, wanted)
    if not changes:
        return text
    if len(text) > MAX_TEXT or not _is_small(held):
        return dump(wanted)
    try:
        changed = _changed(text, changes)
        if same(load_documents(changed), [wanted]):
            return changed
    except (LookupError, TypeError, ValueError, YAMLError, KubeloreError):
        pass
    return dump(wanted)


def _is_small(value: Any) -> bool:
    """Whether it has at most `MAX_NODES` values, names counted too."""
    waiting, seen = [value], 0
    while waiting and seen <= MAX_NODES:
        one = waiting.pop()
        seen += 1
        if isinstance(one, dict):
            seen += len(one)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return seen <= MAX_NODES


def _changed(text: str, changes: Sequence[Difference]) -> str:
    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=indent or 2, offset=offset or 0)
    document = yaml.load(text)
    removed = [one for one in changes if one.new is ABSENT]
    rest = [one for one in changes if one.new is not ABSENT]
    for change in (*reversed(removed), *rest):
        _change(document, change)
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _change(document: Any, change: Difference) -> None:
    """Carry out one difference in place. Raises LookupError where that cannot be done."""
    *way, last = change.path
    parent: Any = value_at(document, tuple(way))
    place: Any = _place(parent, last)
    if change.new is ABSENT:
        del parent[place]
    elif place is None:
        parent.append(_written(change.new))
    else:
        parent[place] = _written(change.new)


def _place(parent: Any, last: Segment) -> Any:
    """Where in its parent something lies, None behind the end of a list. Raises LookupError."""
    if isinstance(last, str) and isinstance(parent, dict):
        return last if last in parent else _written(last)
    if isinstance(last, Key) and isinstance(parent, list):
        item = value_at(parent, (last,))
        return next((at for at, one in enumerate(parent) if one is item), None)
    if isinstance(last, int) and isinstance(parent, list):
        return last if last < len(parent) else None
    raise LookupError("this cannot be changed in place")


def _written(value: Any) -> Any:
    """A value such that YAML 1.1, which Kubernetes reads, takes strings like `yes` for strings."""
    if isinstance(value, dict):
        return {_written(name): _written(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_written(one) for one in value]
    if isinstance(value, str) and dump({"v": value}) != f"v: {value}\n":
        return DoubleQuotedScalarString(value)
    return value
