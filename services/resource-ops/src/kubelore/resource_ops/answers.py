"""What this replica answers on the bus, over its read model and its observers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial

import msgspec

from kubelore.common.authz import Caller, no_such_cluster
from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.resources import (
    AreYouThere,
    ClusterState,
    Counts,
    Dictionaries,
    DigestPage,
    Fetch,
    FetchMeant,
    Get,
    ListDigests,
    ListTypes,
    NamedDictionaries,
    Object,
    Objects,
    ObserverRef,
    ObserverReport,
    ObserverReports,
    Page,
    Present,
    Query,
    ResolvedTypes,
    ResolveTypes,
    Types,
    View,
)
from kubelore.common.errors import BadRequest, DeadlineExceeded, NotFound, Unavailable
from kubelore.common.kube import ResourceType
from kubelore.common.kube.type_names import resolve
from kubelore.resource_ops import comparing
from kubelore.resource_ops import query as queries
from kubelore.resource_ops.fleet import Fleet
from kubelore.resource_ops.rows import Row, older, version
from kubelore.resource_ops.summary import count, describe_types
from kubelore.resource_ops.visibility import Visible, may_list, visible_to

AT_LEAST_S = 2.0
_POLL_S = 0.02
_LONGEST_VERSION = 20
_MOVED = "its observer has moved to another replica"


class Answers:
    """Every endpoint as a method, each showing what the current caller may see and nothing else.

    The model never waits, so neither do they, but `get` with `at_least`.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def query(self, request: Query) -> Page:
        """One page; clusters that this replica no longer holds are named as such."""
        caller = current_caller()
        request.clusters = [name for name in request.clusters if caller.sees(name)]
        await self._bring(request)
        page = queries.query(self._fleet.model, request, self._state, visible=self._visible())
        page.clusters += self._moved(request.clusters, page.clusters)
        return page

    async def count(self, request: Query) -> Counts:
        """How many objects match, by cluster, type, namespace and phase."""
        caller = current_caller()
        request.clusters = [name for name in request.clusters if caller.sees(name)]
        await self._fill(request)
        selection, states = queries.select(self._fleet.model, request, self._state, self._visible())
        counted = count(self._fleet.model, selection.rows, states)
        counted.clusters += self._moved(request.clusters, states)
        return counted

    async def digests(self, request: ListDigests) -> DigestPage:
        """By what objects of one name are compared, a page of names."""
        caller = current_caller()
        # Digests name clusters by their place, so one that is not for the caller leaves a gap.
        request.clusters = [name if caller.sees(name) else "" for name in request.clusters]
        page = await comparing.digests(self._fleet.model, request, self._state, visible=self._visible())
        page.clusters += self._moved(filter(None, request.clusters), page.clusters)
        return page

    async def meant(self, request: FetchMeant) -> Objects:
        """Objects as they are compared; nothing where one has gone, or is not for the caller."""
        caller = current_caller()

        def may_read(id: str) -> bool:
            return caller.unrestricted or _may_read(caller, ResourceId.parse(id))

        return Objects(await comparing.as_meant(self._fleet.model, request, may_read))

    async def fetch(self, request: Fetch) -> Objects:
        """The objects of these ids; nothing where one has gone, or is not for the caller."""
        caller, models = current_caller(), self._fleet.model
        ids: list[str | None] = [
            id if caller.unrestricted or _may_read(caller, ResourceId.parse(id)) else None
            for id in request.ids  # noqa: A001
        ]
        if request.view != "metadata" and self._reduced():
            await self._complete(queries.held_rows(models, ids))
        if request.packed and request.view != "table":
            return Objects([], queries.fetch_packed(models, ids, request.view))
        return Objects(queries.fetch(models, ids, request.view))

    async def dictionaries(self, request: NamedDictionaries) -> Dictionaries:
        """What packed objects of this replica need to be unpacked."""
        return Dictionaries(self._fleet.model.dictionaries(request.fingerprints))

    async def get(self, request: Get) -> Object:
        """One object.

        Raises NotFound, Unavailable when another replica observes the cluster by
        now, and DeadlineExceeded when `at_least` has not arrived within 2 s.
        """
        wanted, caller = ResourceId.parse(request.id), current_caller()
        if not caller.sees(wanted.cluster):
            raise no_such_cluster(wanted.cluster)
        if self._fleet.observer(wanted.cluster) is None:
            raise Unavailable(f"{wanted.cluster}: {_MOVED}", remedy="Ask again.", retry_after_s=1)
        name = next(iter(resolve([wanted.type], self._served(wanted.cluster))), wanted.type)
        identity = ResourceId(wanted.cluster, name, wanted.namespace, wanted.name)
        if not _may_read(caller, identity):
            raise NotFound(f"there is no {identity}")
        found = str(identity)
        if request.at_least:
            await self._await_version(found, request.at_least)
        raw = await self._not_held(identity, request.view) or queries.get(
            self._fleet.model, found, request.view
        )
        state = self._state(wanted.cluster, {name})
        if not raw:
            detail = f"there is no {found}"
            if state.status != "live":
                detail += f" in what is known of {state.name}, which is {state.status}"
            raise NotFound(detail)
        return Object(id=found, object=raw, state=state)

    async def types(self, request: ListTypes) -> Types:
        """The types of these clusters (all that are held when none is named), with counts."""
        caller = current_caller()
        held = [observer.cluster for observer in self._fleet.observers(request.clusters)]
        names = [name for name in held if caller.sees(name)]
        if not names:
            return Types([])
        described = describe_types(
            self._fleet.model, names, visible=self._visible(), may_list=partial(may_list, caller)
        )
        return Types(described)

    async def resolve(self, request: ResolveTypes) -> ResolvedTypes:
        """Canonical names; raises BadRequest for one that no cluster held here serves."""
        caller = current_caller()
        served = [model.types for name, model in self._fleet.model.clusters.items() if caller.sees(name)]
        return ResolvedTypes(sorted(resolve(request.names, served)))

    async def observers(self, request: ObserverRef) -> ObserverReports:
        """How the observers of this replica stand."""
        caller = current_caller()
        observers = [one for one in self._fleet.observers(request.clusters) if caller.sees(one.cluster)]
        reports = [one.report(request.types and _reads_all(caller, one.cluster)) for one in observers]
        shown = [_shown_to(caller, report) for report in reports]
        if not caller.unrestricted:
            return ObserverReports(shown)
        fleet = self._fleet
        return ObserverReports(
            shown,
            memory_bytes=fleet.memory_bytes(),
            memory_budget_bytes=fleet.budget.memory_bytes,
            watches=sum(observer.watches for observer in fleet.observers()),
            watch_budget=fleet.budget.watches,
        )

    def _reduced(self, clusters: Iterable[str] = ()) -> bool:
        """Whether some type is not held whole, so that something may have to be fetched."""
        return any(observer.reduced for observer in self._fleet.observers(clusters))

    async def _not_held(self, wanted: ResourceId, view: View) -> bytes | None:
        """One object that the model does not hold whole; None when the model may answer."""
        observer = self._fleet.observer(wanted.cluster)
        if observer is None or not observer.reduced or view == "metadata":
            return None
        if view == "object":
            raw = await observer.look_up(wanted.type, wanted.namespace, wanted.name)
            if raw is not None:
                return raw
        await observer.fill([wanted.type])
        await observer.complete(queries.held_rows(self._fleet.model, [str(wanted)]))
        return None

    async def _fill(self, request: Query) -> None:
        """Have the types listed that are asked for by name and not watched."""
        observers = [one for one in self._fleet.observers(request.clusters) if one.reduced]
        if observers and request.clusters and request.types:
            names = resolve(
                request.types, [one.model.types for one in self._fleet.observers(request.clusters)]
            )
            await asyncio.gather(*(observer.fill(names) for observer in observers))

    async def _bring(self, request: Query) -> None:
        """Have at hand what a page shows and the model does not hold."""
        if not request.clusters or not self._reduced(request.clusters):
            return
        await self._fill(request)
        if request.objects and request.view != "metadata":
            rows = queries.page_rows(self._fleet.model, request, self._state, self._visible())
            await self._complete(rows)

    async def _complete(self, rows: Iterable[Row]) -> None:
        """Fetch the objects of rows of which only the metadata is held."""
        by_cluster: dict[str, list[Row]] = {}
        for row in rows:
            if row.number in row.home.partial:
                by_cluster.setdefault(row.home.cluster, []).append(row)
        if by_cluster:
            observers = self._fleet.observers(by_cluster)
            await asyncio.gather(*(one.complete(by_cluster[one.cluster]) for one in observers))

    def _moved(self, asked: Iterable[str], answered: Iterable[ClusterState]) -> list[ClusterState]:
        """The clusters asked for that this replica no longer holds."""
        held = {state.name for state in answered}
        return [self._state(name, ()) for name in asked if name not in held]

    async def present(self, _: AreYouThere) -> Present:
        """That this replica is there."""
        return Present(len(self._fleet.observers()))

    def _visible(self) -> Visible:
        return visible_to(current_caller(), self._fleet.model.index)

    def _served(self, cluster: str) -> list[dict[str, ResourceType]]:
        model = self._fleet.model.clusters.get(cluster)
        return [model.types] if model else []

    def _state(self, cluster: str, types: Iterable[str]) -> ClusterState:
        observer = self._fleet.observer(cluster)
        if observer is None:
            return ClusterState(name=cluster, status="error", error=_MOVED)
        state = observer.state(types)
        if state.error:
            state.error = current_caller().told(cluster, state.error)
        return state

    async def _await_version(self, id: str, at_least: str) -> None:
        if not at_least.isdecimal() or len(at_least) > _LONGEST_VERSION:
            raise BadRequest(f"{at_least[:40]!r} is no resourceVersion")
        deadline = time.monotonic() + AT_LEAST_S
        wanted = version(at_least)
        while (row := self._fleet.model.get(id)) is None or older(row.rv, wanted):
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"resourceVersion {at_least} of {id} has not arrived")
            await asyncio.sleep(_POLL_S)


def _may_read(caller: Caller, identity: ResourceId) -> bool:
    return caller.may_read(identity.cluster, identity.type, identity.namespace, identity.name)


def _reads_all(caller: Caller, cluster: str) -> bool:
    return caller.namespaces(cluster).everything


def _shown_to(caller: Caller, report: ObserverReport) -> ObserverReport:
    """Counts of a whole cluster are for those who may see all of it, and so is why it is not live."""
    if _reads_all(caller, report.cluster):
        return report
    error = caller.told(report.cluster, report.error) if report.error else None
    return msgspec.structs.replace(report, objects=0, published=0, held_bytes=0, watches=0, error=error)
