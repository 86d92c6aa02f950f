"""How a checkpoint names what was published: a type, or a type in one of the namespaces that are observed.

Resource versions belong to the type, whatever part of it is watched. So a
watch of one namespace can go on from where the watch of all of them stood, and
narrowing what is observed loses nothing. The other way round it cannot: nobody
knows what happened in the namespaces between, so that the type begins with a
gap. A position that is of no use at the moment is kept: it is where to go on
from should the whole be observed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubelore.resource_ops.rows import older, version

_SEPARATOR = "@"


def position_key(type_name: str, namespace: str = "") -> str:
    """`pods`, or `pods@shop` for what is observed of one namespace."""
    return f"{type_name}{_SEPARATOR}{namespace}" if namespace else type_name


def type_of(key: str) -> str:
    """The type that a position belongs to."""
    return key.partition(_SEPARATOR)[0]


def namespace_of(key: str) -> str:
    """The namespace that a position belongs to; empty for all of them."""
    return key.partition(_SEPARATOR)[2]


def beginnings(keys: Iterable[str], positions: Mapping[str, str]) -> dict[str, str]:
    """The positions from which these begin, where that is not their own.

    An empty position stands for something published whose present is not known:
    it begins with a gap.
    """
    partly = {type_of(key) for key in positions if namespace_of(key)}
    found: dict[str, str] = {}
    for key in keys:
        own = positions.get(key)
        whole = positions.get(type_of(key)) if namespace_of(key) else None
        if whole is not None and (own is None or (own and older(version(own), version(whole)))):
            found[key] = whole
        elif own is None and not namespace_of(key) and key in partly:
            found[key] = ""
    return found
