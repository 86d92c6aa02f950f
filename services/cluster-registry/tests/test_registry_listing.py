"""Listing clusters: pages, filters, and nothing secret in them."""

from __future__ import annotations

import pytest

from kubelore.cluster_registry.lifetimes import Lifetime
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import (
    ClusterConnection,
    ClusterEvent,
    ListClusters,
    cluster_event_subject,
)
from kubelore.common.errors import BadRequest


def connection(name: str, **fields) -> ClusterConnection:
    return ClusterConnection(id=name, name=name, display_name=name, context="c", server="https://x", **fields)


@pytest.fixture
def listed(registry):
    async def ask(**query) -> tuple[list[str], int, str | None]:
        page = await registry.bus.request(clusters.LIST, ListClusters(**query))
        return [item.name for item in page.items], page.total, page.next

    return ask


async def test_pages_follow_each_other_by_name(repository, listed) -> None:
    for name in ("c", "a", "e", "b", "d"):
        await repository.insert(connection(name), b"sealed", Lifetime(), exclusive=False)
    assert await listed(limit=2) == (["a", "b"], 5, "b")
    assert await listed(limit=2, after="b") == (["c", "d"], 5, "d")
    assert await listed(limit=2, after="d") == (["e"], 5, None)
    assert await listed(limit=5) == (["a", "b", "c", "d", "e"], 5, None)


async def test_filters_narrow_the_list_and_its_total(repository, listed) -> None:
    await repository.insert(
        connection("a", group="eu", tags=["x"], provider="aws"), b"", Lifetime(), exclusive=False
    )
    await repository.insert(connection("b", group="eu", tags=["y", "x"]), b"", Lifetime(), exclusive=False)
    await repository.insert(connection("c", status="connected"), b"", Lifetime(), exclusive=False)
    assert await listed(group="eu") == (["a", "b"], 2, None)
    assert await listed(tag="y") == (["b"], 1, None)
    assert await listed(provider="aws", tag="x") == (["a"], 1, None)
    assert await listed(status="connected") == (["c"], 1, None)
    assert await listed(group="none") == ([], 0, None)


@pytest.mark.parametrize("limit", [-1, 0, 10**9])
async def test_a_limit_out_of_bounds_is_brought_back_into_them(repository, listed, limit: int) -> None:
    await repository.insert(connection("a"), b"", Lifetime(), exclusive=False)
    assert (await listed(limit=limit))[0] == ["a"]


async def test_a_filter_is_a_value_and_never_an_operator(listed) -> None:
    assert await listed(group='{"$ne": null}') == ([], 0, None)
    with pytest.raises(BadRequest):
        await listed(group={"$ne": None})


async def test_what_an_observer_reports_is_recorded(registry) -> None:
    await registry.add("prod")
    at = 1_700_000_000.0
    for cluster, as_of, count in (
        ("gone", at, 42),
        ("prod", None, None),
        ("prod", at, None),
        ("prod", at, 42),
    ):
        event = ClusterEvent(cluster=cluster, happened="synced", at=at + 9, as_of=as_of, resource_count=count)
        await registry.bus.publish_event(cluster_event_subject(event), event)
    found = await registry.until("prod", resource_count=42)
    assert found.last_sync_time == "2023-11-14T22:13:20.000Z"
    assert (await registry.bus.request(clusters.LIST, ListClusters())).total == 1
