"""One question to every replica that observes a chosen cluster, in parallel, and one merged answer.

With a single replica the objects come back at once. With several, phase one
returns only keys, the merge finds the winners, and phase two fetches those.
Rows of a replica that does not answer within its second are missing, and its
clusters say so.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from itertools import islice

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.contracts import resources
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.resources import (
    ClusterState,
    Fetch,
    Get,
    Object,
    Page,
    Query,
    ResolvedTypes,
    ResolveTypes,
    Row,
    SortKey,
)
from kubelore.common.errors import BadRequest, DeadlineExceeded, KubeloreError, NotFound, Unavailable
from kubelore.gateway.roster import Roster

_UNOWNED = "no observer holds this cluster yet"


class FanOut:
    """Asks the owners of clusters and merges what they answer."""

    def __init__(self, bus: Bus, roster: Roster) -> None:
        self._bus = bus
        self._roster = roster

    async def query(self, query: Query) -> tuple[Page, SortKey | None]:
        """The page over all clusters of the query, whoever observes them, and the key behind which the next begins.

        Raises BadRequest when the replicas refuse the query itself (an unknown
        type, a malformed selector).
        """
        owned, orphans = self._roster.by_owner(query.clusters)
        direct = len(owned) <= 1
        pages = await self._ask(owned, msgspec.structs.replace(query, objects=direct and query.objects))
        lost = [_lost(name, _UNOWNED) for name in orphans]
        merged = _merge(pages, query, lost)
        last = merged.rows[-1].key if len(merged.rows) == query.limit < merged.total else None
        if not direct and query.objects:
            await self._fetch(merged.rows, query)
        return merged, last

    async def get(self, request: Get) -> Object:
        """One object from the replica that observes its cluster."""
        cluster = ResourceId.parse(request.id).cluster
        if not self._roster.known(cluster):
            raise NotFound(f"there is no cluster named {cluster!r}")
        owner = self._roster.owner(cluster)
        if owner is None:
            raise Unavailable(f"{_UNOWNED}: {cluster}", remedy="Try again in a few seconds.", retry_after_s=5)
        return await self._bus.request(resources.GET, request, target=owner)

    async def resolve_types(self, names: Sequence[str]) -> list[str]:
        """Canonical names (`deployments.apps`) of types written in any way that kubectl accepts.

        Raises BadRequest for one that no observed cluster serves.
        """
        owned, _ = self._roster.by_owner(self._roster.select(()))
        request = ResolveTypes(names=list(names))
        asked = [self._bus.request(resources.RESOLVE, request, target=owner) for owner in owned]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found = [answer for answer in answers if isinstance(answer, ResolvedTypes)]
        if not found:
            refusal = next((answer for answer in answers if isinstance(answer, KubeloreError)), None)
            raise refusal or Unavailable("no observer answers", remedy="Try again in a few seconds.")
        return sorted({name for answer in found for name in answer.names})

    async def _ask(self, owned: dict[str, list[str]], query: Query) -> list[Page]:
        requests = [
            self._ask_one(owner, msgspec.structs.replace(query, clusters=names))
            for owner, names in owned.items()
        ]
        answers = await asyncio.gather(*requests)
        refused = [answer for answer in answers if isinstance(answer, BadRequest)]
        if refused and len(refused) == len(answers):
            raise refused[0]
        return [answer for answer in answers if isinstance(answer, Page)]

    async def _ask_one(self, owner: str, query: Query) -> Page | BadRequest:
        try:
            return await self._bus.request(resources.QUERY, query, target=owner)
        except BadRequest as error:
            return error
        except (Unavailable, DeadlineExceeded):
            states = [_lost(name, "its observer does not answer") for name in query.clusters]
            return Page(rows=[], clusters=states, total=0)

    async def _fetch(self, rows: list[Row], query: Query) -> None:
        """Phase two: fill in the winners' objects; a row whose object has gone meanwhile is dropped."""
        by_owner: dict[str, list[Row]] = {}
        for row in rows:
            owner = self._roster.owner(row.id.partition(":")[0])
            if owner is not None:
                by_owner.setdefault(owner, []).append(row)
        await asyncio.gather(*(self._fetch_one(owner, part, query) for owner, part in by_owner.items()))
        rows[:] = [row for row in rows if row.object]

    async def _fetch_one(self, owner: str, rows: Sequence[Row], query: Query) -> None:
        request = Fetch(ids=[row.id for row in rows], view=query.view)
        try:
            answer = await self._bus.request(resources.FETCH, request, target=owner)
        except KubeloreError:
            return
        for row, raw in zip(rows, answer.objects, strict=True):
            row.object = raw


def _lost(cluster: str, error: str) -> ClusterState:
    return ClusterState(name=cluster, status="error", error=error)


def _merge(pages: Sequence[Page], query: Query, lost: list[ClusterState]) -> Page:
    descending = query.sort.startswith("-")
    ordered = heapq.merge(*(page.rows for page in pages), key=lambda row: row.key, reverse=descending)
    rows = list(islice(ordered, query.limit))
    states = sorted(
        [*lost, *(state for page in pages for state in page.clusters)], key=lambda state: state.name
    )
    columns = next((page.columns for page in pages if page.columns), [])
    return Page(rows=rows, clusters=states, total=sum(page.total for page in pages), columns=columns)
