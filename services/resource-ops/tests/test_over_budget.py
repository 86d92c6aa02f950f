"""A replica over its budgets: what it still answers, what it says of it, and that the stream of changes stays whole."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kubelore.common.bus import Feed
from kubelore.common.contracts import resources
from kubelore.common.contracts.changes import Change
from kubelore.common.contracts.resources import Fetch, Get, ObserverRef, Query
from kubelore.common.errors import NotFound
from kubelore.common.kube import KubeClient, ResourceType, read_kubeconfig
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for

CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
ROLES = ResourceType(
    group="rbac.authorization.k8s.io", version="v1", plural="roles", kind="Role", namespaced=True
)
TYPE = "roles.rbac.authorization.k8s.io"
LARGE = 300
"""Roles of 8 KB that do not compress: 2.4 MB, where all the rest of a small cluster is less than half of one."""


@dataclass
class Short:
    """A replica that is short of something, and its cluster."""

    house: Any
    replica: Any
    client: KubeClient

    @property
    def observer(self) -> Any:
        return self.replica.fleet.observer("sim-01")

    @property
    def cluster(self) -> Any:
        return self.house.clusters[0]

    async def ask(self, endpoint, request):
        return await self.house.bus.request(endpoint, request, target=self.replica.bus.replica)

    async def list(self, **query: Any):
        return await self.ask(resources.QUERY, Query(clusters=["sim-01"], **query))

    def status(self, type_name: str) -> tuple[str, str]:
        states = {state.type: state for state in self.observer.report(with_types=True).types}
        return (states[type_name].status, states[type_name].detail) if type_name in states else ("", "")

    def is_held_as(self, status: str, type_name: str = TYPE):
        async def held() -> bool:
            return self.observer is not None and self.status(type_name)[0] == status

        return held


def role(name: str, size: int = 4_000) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": [os.urandom(size).hex()], "verbs": ["get"]}],
    }


@asynccontextmanager
async def short_of(house, policy, **budgets: int) -> AsyncIterator[Short]:
    house.add(0)
    cluster = house.clusters[0]
    for number in range(LARGE):
        cluster.state.seed_object(TYPE, role(f"r-{number:03}"))
    client = KubeClient(read_kubeconfig(cluster.kubeconfig, None, policy), policy)
    async with client, house.replica("a", **budgets) as replica:
        short = Short(house, replica, client)

        async def live() -> bool:
            return short.observer is not None and short.observer.state().status == "live"

        await wait_for(live, "the cluster to be live", 20)
        yield short


MEMORY = {"memory_budget_bytes": 1_500_000}
WATCHES = {"watch_budget": 30}


async def test_over_the_memory_budget_the_largest_type_is_held_as_metadata_and_says_so(house, policy) -> None:
    async with short_of(house, policy, **MEMORY) as short:
        await wait_for(short.is_held_as("metadata"), "the type to be held as metadata", 20)
        assert short.status(TYPE) == ("metadata", "over the memory budget")
        assert short.status("pods")[0] == "live"
        page = await short.list(types=["roles"], view="metadata", limit=5)
        assert (page.clusters[0].status, page.clusters[0].count) == ("live", LARGE)
        assert page.clusters[0].note == f"{TYPE}: metadata only (over the memory budget)"
        reports = await short.ask(resources.OBSERVERS, ObserverRef())
        assert 0 < reports.memory_bytes <= reports.memory_budget_bytes == 1_500_000
        assert (await short.list(types=["pods"])).clusters[0].note is None


async def test_whole_objects_of_a_type_held_as_metadata_are_fetched(house, policy) -> None:
    async with short_of(house, policy, **MEMORY) as short:
        await wait_for(short.is_held_as("metadata"), "the type to be held as metadata", 20)
        page = await short.list(types=["roles"], limit=20)
        assert [json.loads(row.object)["rules"][0]["verbs"] for row in page.rows] == [["get"]] * 20
        ids = [f"sim-01:{TYPE}:default:r-{number:03}" for number in (100, 200)]
        fetched = await short.ask(resources.FETCH, Fetch(ids=ids))
        assert [json.loads(raw)["kind"] for raw in fetched.objects] == ["Role"] * 2
        one = await short.ask(resources.GET, Get(id=ids[0]))
        assert json.loads(one.object)["rules"]
        table = short.observer.model.tables[TYPE]

        async def given_back() -> bool:
            return len(table.partial) == LARGE

        await wait_for(given_back, "what was fetched to be let go of", 20)


async def test_an_api_server_that_does_not_answer_costs_whole_objects_and_no_rows(house, policy) -> None:
    async with short_of(house, policy, **MEMORY) as short:
        await wait_for(short.is_held_as("metadata"), "the type to be held as metadata", 20)
        await short.cluster.inject(Faults(latency=5.0, paths="/roles/"))
        page = await short.list(types=["roles"], limit=20)
        assert [json.loads(row.object)["kind"] for row in page.rows] == ["PartialObjectMetadata"] * 20


async def test_the_stream_of_changes_of_a_type_held_as_metadata_is_whole(house, policy) -> None:
    async with short_of(house, policy, **MEMORY) as short:
        await wait_for(short.is_held_as("metadata"), "the type to be held as metadata", 20)
        told: list[Change] = []
        feed = Feed(house.bus)
        following = asyncio.create_task(_follow(feed, await feed.position(), told))
        await short.client.create(ROLES, "default", json.dumps(role("new", 10)).encode())
        await short.client.delete(ROLES, "default", "new")

        async def arrived() -> bool:
            return [change.kind for change in told] == ["created", "deleted"]

        await wait_for(arrived, "both changes")
        assert all(change.object for change in told)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_type_is_whole_again_when_there_is_room(house, policy) -> None:
    async with short_of(house, policy, **MEMORY) as short:
        await wait_for(short.is_held_as("metadata"), "the type to be held as metadata", 20)
        for number in range(LARGE - 20):
            await short.client.delete(ROLES, "default", f"r-{number:03}")
        await wait_for(short.is_held_as("live"), "the type to be held whole again", 20)
        table = short.observer.model.tables[TYPE]

        async def whole() -> bool:
            return not table.partial and table.count == 20

        await wait_for(whole, "every object to be whole", 20)


async def test_over_the_watch_budget_the_least_important_types_are_listed_on_demand(house, policy) -> None:
    async with short_of(house, policy, **WATCHES) as short:
        assert short.observer.watches <= 30
        assert short.status("pods")[0] == "live"
        assert short.status("leases.coordination.k8s.io") == ("on-demand", "over the watch budget")
        lease = "leases.coordination.k8s.io"
        page = await short.list(types=["leases"])
        there = await short.client.list(short.observer.model.types[lease])
        assert page.clusters[0].status == "live"
        assert "listed on demand (over the watch budget)" in (page.clusters[0].note or "")
        assert len(page.rows) == len(there.items)
        assert short.observer.state().status == "live"
        reports = await short.ask(resources.OBSERVERS, ObserverRef())
        assert (reports.watches, reports.watch_budget) == (short.observer.watches, 30)


async def test_one_object_of_a_type_that_is_not_watched_is_fetched(house, policy) -> None:
    async with short_of(house, policy, watch_budget=10) as short:
        assert short.status(TYPE)[0] == "on-demand"
        one = await short.ask(resources.GET, Get(id=f"sim-01:{TYPE}:default:r-007"))
        assert json.loads(one.object)["metadata"]["name"] == "r-007"
        with pytest.raises(NotFound):
            await short.ask(resources.GET, Get(id=f"sim-01:{TYPE}:default:nobody"))


async def test_a_refused_list_on_demand_is_an_error_to_who_asked(house, policy) -> None:
    async with short_of(house, policy, watch_budget=10) as short:
        await short.cluster.inject(Faults(error_rate=1.0, error_code=403, paths="/roles"))
        page = await short.list(types=["roles"])
        assert (page.clusters[0].status, page.rows) == ("error", [])
        assert short.observer.state().status == "live"


async def _follow(feed: Feed, position: str, told: list[Change]) -> None:
    async for _, record in feed.follow(position):
        if isinstance(record, Change) and record.type == TYPE:
            told.append(record)
