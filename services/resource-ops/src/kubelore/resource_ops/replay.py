"""What went by of each object while changes are replayed which the model, filled by a list, is ahead of.

The model cannot say what an object was before such a change, since it holds
what came after. What passed by in the same replay can; of the first change of
an object nobody knows, and the record says so by naming no version before it.
"""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.changes import Was
from kubelore.common.kube.facts import Facts, field_paths
from kubelore.resource_ops.records import Manifest
from kubelore.resource_ops.rows import older, version

MAX_OBJECTS = 50_000
"""Objects remembered at once (about 20 MB with ten labels each); of those behind it nothing is known."""


class Before(msgspec.Struct, frozen=True):
    """The version before a change, empty when it is not known, and what selectors saw of it where that differs."""

    rv: str = ""
    was: Was | None = None


class _Passed(msgspec.Struct, frozen=True):
    rv: str
    looks: Was


class Replay:
    """The versions that went by, for as long as the model is ahead: until the resourceVersion of its list."""

    def __init__(self, until: str = "", max_objects: int = MAX_OBJECTS) -> None:
        self._until = version(until)
        self._max = max_objects
        self._last: dict[str, _Passed] | None = {} if until else None

    def pass_by(self, type_name: str, manifest: Manifest) -> Before | None:
        """What came before this version of its object, and remember it; None once the model is no longer ahead."""
        if self._last is None:
            return None
        meta = manifest.meta
        passed = self._last.get(meta.uid)
        looks = _looks(type_name, manifest.facts)
        if not older(version(meta.resource_version), self._until):
            self._last = None
        elif passed is not None or len(self._last) < self._max:
            self._last[meta.uid] = _Passed(meta.resource_version, looks)
        if passed is None:
            # The first that is not older than the list has been taken in by the model like any other.
            return Before() if self._last is not None else None
        return Before(passed.rv, passed.looks if passed.looks != looks else None)


def _looks(type_name: str, facts: Facts) -> Was:
    fields = dict(zip(field_paths(type_name), facts.fields, strict=False))
    return Was(dict(facts.meta.labels or {}), fields)
