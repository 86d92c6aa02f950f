"""The three-way merge of an object: what one side changed since a base, brought into the other. Pure.

Maps are merged field by field, lists item by item where a merge key tells their
items apart (`differences`), everything else as a whole. What both sides changed to
something else is a conflict, and stays as `ours` has it until somebody decides.

    merge(base, base, x) = merge(base, x, base) = merge(base, x, x) = x
    merge(base, a, b) = merge(base, b, a)        where nothing conflicts

New items of a list stand behind the item that they stood behind on their side;
where both sides put some in the same place, their keys decide, so that neither
side comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from kubelore.common.contracts.branches import Side
from kubelore.common.errors import BadRequest
from kubelore.common.kube.differences import (
    ABSENT,
    MAX_DEPTH,
    Key,
    Order,
    Path,
    keyed,
    keys_told,
    render,
    same,
)


class Clash(msgspec.Struct, frozen=True):
    """A place that both sides changed to something else; a side that does not have it is `ABSENT`."""

    path: Path
    base: Any
    ours: Any
    theirs: Any
    resolved: Side | None = None

    @property
    def where(self) -> str:
        """The path as people read it, and as `resolve` names it."""
        return render(self.path)


class MergeResult(msgspec.Struct, frozen=True):
    """The merged value, and every conflict, resolved or not."""

    value: Any
    conflicts: tuple[Clash, ...] = ()

    @property
    def open(self) -> tuple[Clash, ...]:
        """The conflicts that nobody has decided."""
        return tuple(one for one in self.conflicts if one.resolved is None)


def merge(base: Any, ours: Any, theirs: Any, resolve: Mapping[str, Side] | None = None) -> MergeResult:
    """What `theirs` changed since `base`, in `ours`; the values given stay as they are.

    `resolve` says by rendered path whose value counts where both changed one.
    Raises BadRequest when it names a place where nothing conflicts.
    """
    merging = _Merging(resolve or {})
    value = merging.at((), base, ours, theirs)
    strange = sorted(set(merging.resolve) - {one.where for one in merging.conflicts})
    if strange:
        raise BadRequest(
            f"nothing conflicts at {strange[0][:200]!r}",
            remedy="Resolve only the paths of the conflicts that were named.",
        )
    return MergeResult(value, tuple(merging.conflicts))


class _Merging:
    def __init__(self, resolve: Mapping[str, Side]) -> None:
        self.resolve = resolve
        self.conflicts: list[Clash] = []

    def at(self, path: Path, base: Any, ours: Any, theirs: Any) -> Any:
        if same(ours, theirs) or same(base, theirs):
            return ours
        if same(base, ours):
            return theirs
        if len(path) < MAX_DEPTH:
            if isinstance(ours, dict) and isinstance(theirs, dict):
                return self._maps(path, base if isinstance(base, dict) else {}, ours, theirs)
            if isinstance(ours, list) and isinstance(theirs, list):
                found = keyed(path, base if isinstance(base, list) else [], ours, theirs)
                if found is not None:
                    return self._lists(path, *found)
        return self._clash(path, base, ours, theirs)

    def _clash(self, path: Path, base: Any, ours: Any, theirs: Any) -> Any:
        decided = self.resolve.get(render(path))
        self.conflicts.append(Clash(path, base, ours, theirs, decided))
        return theirs if decided == "theirs" else ours

    def _maps(
        self, path: Path, base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
    ) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name in (*ours, *sorted(theirs.keys() - ours.keys())):
            value = self.at(
                (*path, name), base.get(name, ABSENT), ours.get(name, ABSENT), theirs.get(name, ABSENT)
            )
            if value is not ABSENT:
                merged[name] = value
        return merged

    def _lists(self, path: Path, fields: tuple[str, ...], sides: Sequence[dict[Key, Any]]) -> list[Any]:
        base, ours, theirs = sides
        merged: dict[Key, Any] = {}
        for key in dict.fromkeys((*ours, *theirs)):
            value = self.at(
                (*path, key), base.get(key, ABSENT), ours.get(key, ABSENT), theirs.get(key, ABSENT)
            )
            if value is not ABSENT:
                merged[key] = value
        return [merged[key] for key in self._order(path, fields, sides, merged)]

    def _order(
        self,
        path: Path,
        fields: tuple[str, ...],
        sides: Sequence[dict[Key, Any]],
        merged: Mapping[Key, Any],
    ) -> list[Key]:
        """The keys of the merged items: those that all sides have as whoever moved them has them."""
        base, ours, theirs = (list(side) for side in sides)
        everywhere = set(base) & set(ours) & set(theirs)
        shared = [[key for key in side if key in everywhere] for side in (base, ours, theirs)]
        told = [keys_told(side) for side in shared]
        where = (*path, Order(fields))
        skeleton = self.at(where, *told) if len(everywhere) > 1 else told[1]
        chosen = next(side for side, names in zip(shared[1:], told[1:], strict=True) if names == skeleton)
        return list(_woven(chosen, ours, theirs, merged))


def _woven(
    skeleton: Sequence[Key], ours: Sequence[Key], theirs: Sequence[Key], merged: Mapping[Key, Any]
) -> Iterator[Key]:
    """The skeleton with the other items of either side behind what they stood behind there."""
    placed = set(skeleton)
    left, right = _runs(ours, placed, merged), _runs(theirs, placed, merged)
    done: set[Key] = set()
    for anchor in (None, *skeleton):
        if anchor is not None and anchor in merged:
            yield anchor
        runs = sorted(
            (run for run in (left.get(anchor, []), right.get(anchor, [])) if run),
            key=lambda run: _sortable(run),
        )
        for key in (key for run in runs for key in run):
            if key not in done:
                done.add(key)
                yield key


def _runs(side: Sequence[Key], skeleton: set[Key], merged: Mapping[Key, Any]) -> dict[Key | None, list[Key]]:
    runs: dict[Key | None, list[Key]] = {}
    anchor: Key | None = None
    for key in side:
        if key in skeleton:
            anchor = key
        elif key in merged:
            runs.setdefault(anchor, []).append(key)
    return runs


def _sortable(run: Sequence[Key]) -> str:
    return msgspec.json.encode(keys_told(run)).decode()
