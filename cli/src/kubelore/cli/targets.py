"""What a person means by the words behind `get`: types, types with names, `TYPE/NAME`, or whole ids."""

from __future__ import annotations

from dataclasses import dataclass

import typer


@dataclass(frozen=True)
class Target:
    """One question: types, and perhaps names. An id fixes its cluster and namespace as well."""

    types: str
    names: tuple[str, ...] = ()
    cluster: str = ""
    namespace: str | None = None


def parse_targets(words: list[str]) -> list[Target]:
    """Every form that kubectl takes, and the ids that `-o name` prints.

    Raises BadParameter for a mixture, as kubectl does.
    """
    if any(not word.strip() for word in words):
        raise typer.BadParameter("a type or name is empty; `all` names the usual types")
    if any(word.count(":") >= 3 for word in words):
        return [_id(word) for word in words]
    if "/" in words[0]:
        return [_slashed(word) for word in words]
    if any("/" in word for word in words[1:]):
        raise typer.BadParameter("write TYPE NAME ..., or TYPE/NAME for each")
    return [Target(words[0], tuple(dict.fromkeys(words[1:])))]


def _id(word: str) -> Target:
    parts = word.split(":", 3)
    if len(parts) != 4:
        raise typer.BadParameter(f"{word!r} is no id: cluster:type:namespace:name")
    cluster, kind, namespace, name = parts
    return Target(kind, (name,), cluster, namespace)


def _slashed(word: str) -> Target:
    kind, slash, name = word.partition("/")
    if not (kind and slash and name) or "/" in name:
        raise typer.BadParameter(f"{word!r} is not TYPE/NAME")
    return Target(kind, (name,))
