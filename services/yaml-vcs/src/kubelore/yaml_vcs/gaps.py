"""What is not known of an object, shown where it belongs: between which versions, and of which snapshots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from kubelore.common.contracts.versions import HistoryGap
from kubelore.yaml_vcs import packing, rendering
from kubelore.yaml_vcs.gap_repository import Mark, parked_scope
from kubelore.yaml_vcs.history import Entry
from kubelore.yaml_vcs.recorder import gap_scope
from kubelore.yaml_vcs.rendering import iso
from kubelore.yaml_vcs.repository import Resource, VersionRepository, resource_key


def scopes_of(resource: Resource) -> list[str]:
    """Every scope whose marks concern an object."""
    namespaces = {"", resource.namespace}
    kinds = [gap_scope(resource.cluster, resource.type, one) for one in sorted(namespaces)]
    return [*kinds, parked_scope(resource.id)]


class Gaps:
    """Reads the marks that concern what is being shown."""

    def __init__(self, repository: VersionRepository) -> None:
        self._repository = repository

    async def among(
        self, resource: Resource, entries: Sequence[Entry], *, first: bool, content: bool = False
    ) -> list[HistoryGap]:
        """What is not known between consecutive versions of main (oldest first) and up to the next one.

        `first`: nothing is kept before them, so that what lies before them is theirs.
        """
        if not entries:
            return []
        following = await self._following(resource, entries[-1])
        known = [*entries, *([following] if following is not None else [])]
        since = 0 if first else entries[0].at
        until = following.at if following is not None else None
        marks = await self._repository.marks.of(scopes_of(resource), since, until)
        placed = [(mark, *place(mark, known)) for mark in marks]
        # Of what lay before an object was met, only the last may hide something of it.
        begun = [one for one in placed if not one[1]][-1:] if first and known[0].kind == "observed" else []
        return [
            told(mark, resource, after, before, content=content)
            for mark, after, before in [*begun, *(one for one in placed if one[1])]
        ]

    async def around(self, resource: Resource, entry: Entry) -> list[HistoryGap]:
        """What is not known right before and right behind a version of main, with what late changes held."""
        key = resource_key(resource.id)
        before = await self._repository.page(key, 0, before=entry.number, since=0, until=None, limit=1)
        return await self.among(resource, [*before, entry], first=not before, content=True)

    async def at(self, resources: Sequence[tuple[Resource, Entry]], at: float) -> list[list[HistoryGap]]:
        """What makes uncertain that each version was in force at a time (seconds since 1970)."""
        if not resources:
            return []
        scopes = sorted({scope for one, _ in resources for scope in scopes_of(one)})
        marks = await self._repository.marks.of(scopes, min(entry.at for _, entry in resources), None)
        return [await self._uncertain(one, entry, marks, at) for one, entry in resources]

    async def _uncertain(
        self, resource: Resource, entry: Entry, marks: Sequence[Mark], at: float
    ) -> list[HistoryGap]:
        own = set(scopes_of(resource))
        later = [mark for mark in marks if mark.scope in own and _ms(mark) > entry.at]
        if not later:
            return []
        following = await self._following(resource, entry)
        number = following.number if following is not None else None
        return [told(mark, resource, entry.number, number) for mark in later if touches(mark, following, at)]

    async def _following(self, resource: Resource, entry: Entry) -> Entry | None:
        found = await self._repository.all_of(resource_key(resource.id), after=entry.number, limit=1)
        return found[0] if found else None


def place(mark: Mark, known: Sequence[Entry]) -> tuple[int, int | None]:
    """Between which versions a mark lies, by the observer's time: 0 for before the first, None for no later one."""
    index = bisect_left([entry.at for entry in known], _ms(mark))
    before = known[index - 1].number if index else 0
    return before, known[index].number if index < len(known) else None


def touches(mark: Mark, following: Entry | None, at: float) -> bool:
    """Whether a mark behind a version makes uncertain what was there at a time (seconds since 1970).

    A gap that ended without a new version has confirmed the old one.
    """
    if following is not None and following.at < _ms(mark):
        return False
    if mark.parked:
        return mark.at <= at
    if mark.until and mark.until <= at:
        return False
    return not mark.until or following is not None


def told(
    mark: Mark, resource: Resource, after: int, before: int | None, *, content: bool = False
) -> HistoryGap:
    """A mark as it is shown."""
    shown = ""
    if content and mark.frame:
        shown = rendering.yaml_of(packing.unpack(mark.frame, None))
    namespace = resource.namespace if mark.parked else mark.scope.rpartition("/")[2]
    return HistoryGap(
        kind="late" if mark.late else "missing" if mark.parked else "gap",
        type=resource.type,
        namespace=namespace,
        since=iso(_ms(mark)),
        until=iso(int(mark.until * 1000)) if mark.until else None,
        resource_version=mark.after_rv,
        after_version=after,
        before_version=before,
        happened=mark.kind,
        parked=mark.parked,
        reason=mark.reason,
        yaml_content=shown,
    )


def _ms(mark: Mark) -> int:
    return int(mark.at * 1000)
