"""What this replica answers on the bus, over its read model and its observers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.resources import (
    ClusterState,
    Fetch,
    Get,
    ListTypes,
    Object,
    Objects,
    ObserverRef,
    ObserverReports,
    Page,
    Query,
    ResolvedTypes,
    ResolveTypes,
    Types,
)
from kubelore.common.errors import BadRequest, DeadlineExceeded, NotFound, Unavailable
from kubelore.common.kube import ResourceType
from kubelore.resource_ops import query as queries
from kubelore.resource_ops.fleet import Fleet
from kubelore.resource_ops.rows import older, version
from kubelore.resource_ops.summary import describe_types
from kubelore.resource_ops.type_names import resolve

AT_LEAST_S = 2.0
_POLL_S = 0.02
_LONGEST_VERSION = 20
_MOVED = "its observer has moved to another replica"


class Answers:
    """Every endpoint as a method. The model never waits, so neither do they, but `get` with `at_least`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def query(self, request: Query) -> Page:
        """One page; clusters that this replica no longer holds are named as such."""
        page = queries.query(self._fleet.model, request, self._state)
        answered = {state.name for state in page.clusters}
        page.clusters += [self._state(name, ()) for name in request.clusters if name not in answered]
        return page

    async def fetch(self, request: Fetch) -> Objects:
        """The objects of these ids."""
        return Objects(queries.fetch(self._fleet.model, request.ids, request.view))

    async def get(self, request: Get) -> Object:
        """One object.

        Raises NotFound, Unavailable when another replica observes the cluster by
        now, and DeadlineExceeded when `at_least` has not arrived within 2 s.
        """
        wanted = ResourceId.parse(request.id)
        if self._fleet.observer(wanted.cluster) is None:
            raise Unavailable(f"{wanted.cluster}: {_MOVED}", remedy="Ask again.", retry_after_s=1)
        name = next(iter(resolve([wanted.type], self._served(wanted.cluster))), wanted.type)
        found = str(ResourceId(wanted.cluster, name, wanted.namespace, wanted.name))
        if request.at_least:
            await self._await_version(found, request.at_least)
        raw = queries.get(self._fleet.model, found, request.view)
        state = self._state(wanted.cluster, {name})
        if not raw:
            detail = f"there is no {found}"
            if state.status != "live":
                detail += f" in what is known of {state.name}, which is {state.status}"
            raise NotFound(detail)
        return Object(id=found, object=raw, state=state)

    async def types(self, request: ListTypes) -> Types:
        """The types of these clusters (all that are held when none is named), with counts."""
        names = [observer.cluster for observer in self._fleet.observers(request.clusters)]
        if not names:
            return Types([])
        return Types(describe_types(self._fleet.model, names))

    async def resolve(self, request: ResolveTypes) -> ResolvedTypes:
        """Canonical names; raises BadRequest for one that no cluster held here serves."""
        served = [model.types for model in self._fleet.model.clusters.values()]
        return ResolvedTypes(sorted(resolve(request.names, served)))

    async def observers(self, request: ObserverRef) -> ObserverReports:
        """How the observers of this replica stand."""
        return ObserverReports([one.report(request.types) for one in self._fleet.observers(request.clusters)])

    def _served(self, cluster: str) -> list[dict[str, ResourceType]]:
        model = self._fleet.model.clusters.get(cluster)
        return [model.types] if model else []

    def _state(self, cluster: str, types: Iterable[str]) -> ClusterState:
        observer = self._fleet.observer(cluster)
        if observer is None:
            return ClusterState(name=cluster, status="error", error=_MOVED)
        return observer.state(types)

    async def _await_version(self, id: str, at_least: str) -> None:
        if not at_least.isdecimal() or len(at_least) > _LONGEST_VERSION:
            raise BadRequest(f"{at_least[:40]!r} is no resourceVersion")
        deadline = time.monotonic() + AT_LEAST_S
        wanted = version(at_least)
        while (row := self._fleet.model.get(id)) is None or older(row.rv, wanted):
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"resourceVersion {at_least} of {id} has not arrived")
            await asyncio.sleep(_POLL_S)
