"""Counts and types over all clusters: every replica's own, added up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import ClusterState, Counts, ListTypes, Query, TypeInfo
from kubelore.common.errors import BadRequest, KubeloreError, TooLarge
from kubelore.common.telemetry import get_logger
from kubelore.gateway.fanout import SILENT, UNOWNED, FanOut, lost_state, without_unknown
from kubelore.gateway.roster import Roster

log = get_logger(__name__)

T = TypeVar("T")

MAX_GROUPS = 2000
"""Namespaces named in one answer, those with most objects first."""


@dataclass(slots=True)
class _Heard(Generic[T]):
    """What one replica said, if it did, and how far its clusters can be trusted."""

    answer: T | None
    clusters: list[ClusterState]
    unknown: dict[str, BadRequest]
    silent: bool = False


class Counting:
    """Asks the owners of clusters for figures, and adds them up."""

    def __init__(self, bus: Bus, roster: Roster, fan_out: FanOut) -> None:
        self._bus = bus
        self._roster = roster
        self._fan_out = fan_out

    async def count(self, query: Query) -> tuple[Counts, int]:
        """Counts of what matches, and how many namespaces had to be left out of them.

        Clusters that do not answer are named as such. Raises BadRequest when
        the query is refused, or a type is unknown to everybody.
        """

        async def ask(owner: str, clusters: list[str]) -> _Heard[Counts]:
            async def known(types: list[str]) -> Counts:
                narrowed = msgspec.structs.replace(query, clusters=clusters, types=types)
                return await self._bus.request(resources.COUNT, narrowed, target=owner)

            answer, unknown = await without_unknown(query.types, known)
            if answer is None:
                return _Heard(None, await self._states(owner, clusters), unknown)
            return _Heard(answer, answer.clusters, unknown)

        heard, orphans = await self._everybody(query.clusters, ask)
        if not orphans:
            _raise_if_unknown(query.types, heard)
        answers = [one.answer for one in heard if one.answer is not None]
        namespaces = Counter[str]()
        types, phases = Counter[str](), Counter[str]()
        for answer in answers:
            types.update(answer.types)
            phases.update(answer.phases)
            namespaces.update(answer.namespaces)
        shown = dict(namespaces.most_common(MAX_GROUPS))
        counts = Counts(
            total=sum(answer.total for answer in answers),
            clusters=_states(heard, orphans),
            types=dict(types.most_common()),
            namespaces=shown,
            phases=dict(phases.most_common()),
        )
        return counts, len(namespaces) - len(shown)

    async def types(self, clusters: list[str]) -> tuple[list[TypeInfo], list[ClusterState]]:
        """The types that any of these clusters serves, by name, with their counts in all of them."""

        async def ask(owner: str, names: list[str]) -> _Heard[list[TypeInfo]]:
            states = await self._states(owner, names)
            answer = await self._bus.request(resources.TYPES, ListTypes(names), target=owner)
            return _Heard(answer.items, states, {})

        heard, orphans = await self._everybody(clusters, ask)
        merged: dict[str, TypeInfo] = {}
        for found in (found for one in heard for found in one.answer or ()):
            held = merged.get(found.name)
            merged[found.name] = (
                found
                if held is None
                else msgspec.structs.replace(
                    held, clusters=sorted([*held.clusters, *found.clusters]), count=held.count + found.count
                )
            )
        return [merged[name] for name in sorted(merged)], _states(heard, orphans)

    async def _everybody(
        self, clusters: list[str], ask: Callable[[str, list[str]], Awaitable[_Heard[T]]]
    ) -> tuple[list[_Heard[T]], list[str]]:
        """What each owner says, at once, and the clusters that have none."""
        owned, orphans = self._roster.by_owner(clusters)

        async def safely(owner: str, names: list[str]) -> _Heard[T]:
            try:
                return await ask(owner, names)
            except (BadRequest, TooLarge):
                raise
            except KubeloreError as error:
                log.warning("replica not heard", replica=owner, reason=error.reason, detail=error.detail)
                return _Heard(None, [lost_state(name, SILENT) for name in names], {}, silent=True)

        return list(await asyncio.gather(*(safely(*one) for one in owned.items()))), orphans

    async def _states(self, owner: str, clusters: list[str]) -> list[ClusterState]:
        until = asyncio.get_running_loop().time() + resources.OBSERVERS.deadline_s
        return (await self._fan_out.states(owner, clusters, until)).clusters


def _raise_if_unknown(types: Sequence[str], heard: Sequence[_Heard[Counts]]) -> None:
    for name in types:
        refusals = [one.unknown[name] for one in heard if name in one.unknown]
        if refusals and len(refusals) == len(heard):
            raise refusals[0]


def _states(heard: Sequence[_Heard[T]], orphans: Sequence[str]) -> list[ClusterState]:
    known = [state for one in heard for state in one.clusters]
    return sorted([*known, *(lost_state(name, UNOWNED) for name in orphans)], key=lambda state: state.name)
