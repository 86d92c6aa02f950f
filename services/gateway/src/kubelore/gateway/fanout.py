"""One question to every replica that observes a chosen cluster, in parallel, and one merged answer.

With a single replica the objects come back at once. With several, phase one
returns only keys, the merge finds the winners, and phase two fetches those.
Objects come packed, as the replicas hold them, and are unpacked while they are sent.
Rows of a replica that does not answer within its second are missing, and its
clusters say so; until it answers again no page waits for it. A type is unknown when every replica says so; where some know
it, the clusters of the others just have no rows of it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import resources
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.resources import (
    ClusterState,
    Column,
    Fetch,
    Get,
    Object,
    ObserverRef,
    Packed,
    Page,
    Query,
    ResolvedTypes,
    ResolveTypes,
    SortKey,
    View,
)
from kubelore.common.errors import (
    BadRequest,
    DeadlineExceeded,
    IntegrityError,
    KubeloreError,
    TooLarge,
    Unavailable,
)
from kubelore.common.frames import Buffer, Unpacker
from kubelore.common.telemetry import get_logger
from kubelore.gateway.dictionaries import Unpackers
from kubelore.gateway.items import Items, Unpacked
from kubelore.gateway.roster import UNOWNED, Roster
from kubelore.gateway.silence import Silence

log = get_logger(__name__)

T = TypeVar("T")

SILENT = "its observer does not answer"


@dataclass(slots=True)
class Found:
    """An answer over all clusters: the objects, how far they can be trusted, and where the next page begins."""

    items: Items
    clusters: list[ClusterState]
    total: int
    columns: list[Column]
    last: SortKey | None


@dataclass(slots=True)
class _Heard:
    """What came of asking one replica: a page, or a page of nothing and why."""

    page: Page
    unpacked: Unpacked | None = None
    unknown: dict[str, BadRequest] = field(default_factory=dict)
    failure: KubeloreError | None = None


class FanOut:
    """Asks the owners of clusters and merges what they answer."""

    def __init__(self, bus: Bus, roster: Roster) -> None:
        self._bus = bus
        self._roster = roster
        self._unpackers = Unpackers(bus)
        self._silence = Silence(bus)

    async def query(self, query: Query) -> Found:
        """The page over all clusters of the query, whoever observes them.

        Raises BadRequest when the query itself is refused (an unknown type, a
        malformed selector), TooLarge when the page would be, and what went wrong
        when it went wrong with every replica.
        """
        owned, orphans = self._roster.by_owner(query.clusters)
        # Cells belong to the columns of their page, so a table comes in one phase.
        at_once = len(owned) <= 1 or query.view == "table"
        first = msgspec.structs.replace(query, objects=at_once and query.objects, packed=at_once)
        asked = [
            self._ask(owner, msgspec.structs.replace(first, clusters=names)) for owner, names in owned.items()
        ]
        heard = await asyncio.gather(*asked) if len(asked) > 1 else [await one for one in asked]
        if not orphans:
            _raise_if_all_refuse(query.types, heard)
        merged = _merge([one.page for one in heard], query, [lost_state(name, UNOWNED) for name in orphans])
        items = Items(query.view)
        packed = next((one for one in heard if one.unpacked), None)
        if packed and packed.unpacked and packed.page.packed:
            items.extend(packed.page.packed.ids, packed.unpacked)
            last, taken = packed.page.packed.last, len(items)
        else:
            last, taken = (merged.rows[-1].key if merged.rows else None), len(merged.rows)
            await self._fill(items, merged, at_once, owned)
        return Found(
            items=items,
            clusters=merged.clusters,
            total=merged.total,
            columns=merged.columns,
            last=last if taken == query.limit < merged.total else None,
        )

    async def get(self, caller: Caller, request: Get) -> Object:
        """One object from the replica that observes its cluster."""
        cluster = ResourceId.parse(request.id).cluster
        self._roster.select(caller, [cluster])
        owner = self._roster.owner(cluster)
        if owner is None:
            raise Unavailable(f"{UNOWNED}: {cluster}", remedy="Try again in a few seconds.", retry_after_s=5)
        return await self._bus.request(resources.GET, request, target=owner)

    async def resolve_types(self, caller: Caller, names: Sequence[str]) -> list[str]:
        """Canonical names (`deployments.apps`) of types written in any way that kubectl accepts.

        Raises BadRequest for one that no observed cluster serves, and
        Unavailable where only an observer that does not answer could know it.
        """
        owned, orphans = self._roster.by_owner(self._roster.select(caller, ()))
        outcomes = await asyncio.gather(
            *(self._resolve(owner, names) for owner in owned), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        for name in names:
            if all(name in unknown for _, unknown in answers):
                if failures:
                    raise failures[0]
                if not answers or orphans:
                    raise Unavailable(
                        f"no observer that answers knows the type {name[:253]!r}",
                        remedy="Add a cluster first, or try again in a few seconds.",
                        retry_after_s=5,
                    )
                raise answers[0][1][name]
        return sorted({name for found, _ in answers for name in found})

    async def _resolve(self, owner: str, names: Sequence[str]) -> tuple[list[str], dict[str, BadRequest]]:
        until = _now() + resources.RESOLVE.deadline_s

        def ask(known: list[str]) -> Awaitable[ResolvedTypes]:
            request = ResolveTypes(names=known)
            return self._bus.request(resources.RESOLVE, request, target=owner, deadline_s=_left(until))

        answer, unknown = await without_unknown(names, ask)
        return (answer.names if answer else []), unknown

    async def _ask(self, owner: str, query: Query) -> _Heard:
        if self._silence.holds(owner):
            failure = Unavailable(f"{owner} does not answer", remedy="Try again in a few seconds.")
            return _Heard(_lost_page(query.clusters, SILENT), failure=failure)
        until = _now() + resources.QUERY.deadline_s

        def ask(known: list[str]) -> Awaitable[Page]:
            narrowed = msgspec.structs.replace(query, types=known)
            return self._bus.request(resources.QUERY, narrowed, target=owner, deadline_s=_left(until))

        try:
            page, unknown = await without_unknown(query.types, ask)
            if page is None:
                return _Heard(await self.states(owner, query.clusters, until), unknown=unknown)
            rows = page.packed
            unpacked = await self._unpacked(owner, rows.objects, len(rows.ids), until) if rows else None
            return _Heard(page, unpacked, unknown)
        except (BadRequest, TooLarge):
            raise
        except KubeloreError as error:
            silent = isinstance(error, Unavailable | DeadlineExceeded)
            if isinstance(error, DeadlineExceeded):
                self._silence.note(owner)
            log.warning("replica not heard", replica=owner, reason=error.reason, detail=error.detail)
            why = SILENT if silent else f"its observer failed: {error.detail}"
            return _Heard(_lost_page(query.clusters, why), failure=error)

    async def states(self, owner: str, clusters: list[str], until: float) -> Page:
        """A page without rows, for clusters that serve none of the types asked for."""
        request = ObserverRef(clusters=clusters)
        reports = await self._bus.request(resources.OBSERVERS, request, target=owner, deadline_s=_left(until))
        states = [
            ClusterState(name=one.cluster, status=one.status, as_of=one.as_of, error=one.error)
            for one in reports.items
        ]
        missing = set(clusters).difference(state.name for state in states)
        return Page(rows=[], clusters=[*states, *(lost_state(name, SILENT) for name in missing)], total=0)

    async def _fill(self, items: Items, page: Page, at_once: bool, owned: dict[str, list[str]]) -> None:
        """The objects of a merged page's rows, which have them already, or are fetched (phase two).

        Asked is who gave the key, even where another replica has taken over since.
        A row whose object has gone meanwhile is dropped.
        """
        if at_once:
            for row in page.rows:
                items.add(row.id, row.object, None)
            return
        owners = {name: owner for owner, names in owned.items() for name in names}
        by_owner: dict[str, list[str]] = {}
        for row in page.rows:
            by_owner.setdefault(owners[_cluster_of(row.id)], []).append(row.id)
        replies = await asyncio.gather(
            *(self._fetch_from(owner, ids, items.view) for owner, ids in by_owner.items())
        )
        found: dict[str, tuple[Buffer, Unpacker]] = {}
        silent: set[str] = set()
        for ids, unpacked in zip(by_owner.values(), replies, strict=True):
            if unpacked is None:
                silent.update(map(_cluster_of, ids))
            else:
                found.update(zip(ids, zip(unpacked.frames, unpacked.unpackers, strict=True), strict=True))
        page.clusters = [lost_state(one.name, SILENT) if one.name in silent else one for one in page.clusters]
        for row in page.rows:
            if row.id in found:
                items.add(row.id, *found[row.id])

    async def _fetch_from(self, owner: str, ids: list[str], view: View) -> Unpacked | None:
        """The objects of one replica in the order of the ids; None when they did not come."""
        until = _now() + resources.FETCH.deadline_s
        request = Fetch(ids=ids, view=view, packed=True)
        try:
            answer = await self._bus.request(resources.FETCH, request, target=owner)
            if answer.packed is None:
                raise IntegrityError(f"{owner} did not pack what it was asked for")
            return await self._unpacked(owner, answer.packed, len(ids), until)
        except TooLarge:
            raise
        except KubeloreError as error:
            log.warning("replica not heard", replica=owner, reason=error.reason, detail=error.detail)
            return None

    async def _unpacked(self, owner: str, packed: Packed, count: int, until: float) -> Unpacked:
        """So many objects of a reply with what unpacks them, which the replica is asked for when it is new."""
        return Unpacked(packed, await self._unpackers.of(owner, packed.dictionaries, _left(until)), count)


async def without_unknown(
    types: Sequence[str], ask: Callable[[list[str]], Awaitable[T]]
) -> tuple[T | None, dict[str, BadRequest]]:
    """Ask for types, leaving out those the replica does not know; its answer (None when it knows none), and those."""
    known, unknown = list(types), dict[str, BadRequest]()
    while known or not unknown:
        try:
            return await ask(known), unknown
        except BadRequest as error:
            culprit = error.extra.get("unknown_type")
            if culprit not in known:
                raise
            unknown[culprit] = error
            known = [name for name in known if name != culprit]
    return None, unknown


def _raise_if_all_refuse(types: Sequence[str], heard: Sequence[_Heard]) -> None:
    if not heard:
        return
    # A replica that only did not answer leaves a partial page: the others' rows are worth having.
    failures = [one.failure for one in heard if one.failure is not None]
    refused = [error for error in failures if not isinstance(error, Unavailable | DeadlineExceeded)]
    if len(refused) == len(heard):
        raise refused[0]
    for name in types:
        refusals = [one.unknown[name] for one in heard if name in one.unknown]
        if len(refusals) == len(heard):
            raise refusals[0]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _left(until: float) -> float:
    """Seconds until then; never none, so that what is late ends as DeadlineExceeded."""
    return max(until - _now(), 0.001)


def _cluster_of(id: str) -> str:
    return id.partition(":")[0]


def lost_state(cluster: str, error: str) -> ClusterState:
    return ClusterState(name=cluster, status="error", error=error)


def _lost_page(clusters: Sequence[str], error: str) -> Page:
    return Page(rows=[], clusters=[lost_state(name, error) for name in clusters], total=0)


def _merge(pages: Sequence[Page], query: Query, lost: list[ClusterState]) -> Page:
    descending = query.sort.startswith("-")
    ordered = heapq.merge(*(page.rows for page in pages), key=lambda row: row.key, reverse=descending)
    rows = list(islice(ordered, query.limit))
    states = sorted(
        [*lost, *(state for page in pages for state in page.clusters)], key=lambda state: state.name
    )
    columns = next((page.columns for page in pages if page.columns), [])
    return Page(rows=rows, clusters=states, total=sum(page.total for page in pages), columns=columns)
