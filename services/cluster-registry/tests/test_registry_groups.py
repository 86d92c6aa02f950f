"""Groups of clusters, as things of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubelore.cluster_registry.repository import GroupRepository, StoredGroup
from kubelore.common.authz import Caller as Somebody
from kubelore.common.authz import Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import (
    CreateGroup,
    Group,
    GroupPage,
    GroupRef,
    ListClusters,
    ListGroups,
    UpdateGroup,
)
from kubelore.common.errors import AlreadyExists, Conflict, Forbidden, NotFound
from kubelore.common.store import open_database


async def groups(registry, **query: Any) -> GroupPage:
    return await registry.bus.request(clusters.LIST_GROUPS, ListGroups(**query))


async def counts(registry) -> dict[str, int]:
    return {group.name: group.clusters for group in (await groups(registry)).items}


async def create(registry, name: str, description: str = "") -> Group:
    return await registry.bus.request(clusters.CREATE_GROUP, CreateGroup(name=name, description=description))


async def change(registry, name: str, **changes: str) -> Group:
    return await registry.bus.request(clusters.UPDATE_GROUP, UpdateGroup(name=name, **changes))


async def members(registry, name: str) -> list[str]:
    return [one.name for one in (await registry.bus.request(clusters.LIST, ListClusters(group=name))).items]


async def test_a_group_comes_with_its_first_member_and_counts_them(registry, fleet) -> None:
    await registry.add("one", group="eu")
    await registry.add("two", fleet[1].kubeconfig)
    await create(registry, "empty", "for later")
    assert await counts(registry) == {"empty": 0, "eu": 1}
    await registry.update("two", group="eu")
    assert await counts(registry) == {"empty": 0, "eu": 2}
    found = await registry.bus.request(clusters.GET_GROUP, GroupRef("empty"))
    assert (found.description, found.created_by) == ("for later", "admin")


async def test_a_rename_takes_all_members_along_and_says_so_of_each(registry, fleet) -> None:
    await registry.add("one", group="eu")
    await registry.add("two", fleet[1].kubeconfig, group="eu")
    await change(registry, "eu", description="Europe")
    renamed = await change(registry, "eu", rename="europe / west")
    assert (renamed.name, renamed.description, renamed.clusters) == ("europe / west", "Europe", 2)
    assert await members(registry, "europe / west") == ["one", "two"]
    assert await members(registry, "eu") == []
    with pytest.raises(NotFound):
        await registry.bus.request(clusters.GET_GROUP, GroupRef("eu"))
    await registry.until_told("one", "added", "updated")
    await registry.until_told("two", "added", "updated")


async def test_a_name_that_is_taken_is_refused_and_nobody_moves(registry, fleet) -> None:
    await registry.add("one", group="eu")
    await registry.add("two", fleet[1].kubeconfig, group="us")
    for refused in (change(registry, "eu", rename="us"), create(registry, "us")):
        with pytest.raises(AlreadyExists):
            await refused
    assert await counts(registry) == {"eu": 1, "us": 1}


async def test_a_rename_that_was_cut_off_is_finished_by_whoever_looks_next(registry, settings) -> None:
    await registry.add("one", group="eu")
    async with await open_database(settings) as database:
        kept = GroupRepository(database)
        await kept.update("eu", renaming_to="europe", description="Europe")
        # As when the process died behind its first write, and once more behind its second.
        assert (await registry.update("one", tags=["x"])).group == "eu"
        assert await counts(registry) == {"europe": 1}
        await kept.insert(StoredGroup(name="eu", renaming_to="europe"))
    found = await groups(registry)
    assert [(group.name, group.description) for group in found.items] == [("europe", "Europe")]


async def test_a_cluster_added_while_its_group_is_renamed_comes_into_the_new_one(registry, settings) -> None:
    async with await open_database(settings) as database:
        await GroupRepository(database).insert(StoredGroup(name="eu", renaming_to="europe"))
    assert (await registry.add("one", group="eu")).group == "europe"


async def test_only_an_empty_group_can_be_deleted(registry) -> None:
    await registry.add("one", group="eu")
    with pytest.raises(Conflict, match="1 clusters"):
        await registry.bus.request(clusters.DELETE_GROUP, GroupRef("eu"))
    await registry.update("one", group="")
    await registry.bus.request(clusters.DELETE_GROUP, GroupRef("eu"))
    assert await counts(registry) == {}
    with pytest.raises(NotFound):
        await registry.bus.request(clusters.DELETE_GROUP, GroupRef("eu"))


async def test_of_many_who_make_one_group_at_once_one_succeeds(registry) -> None:
    outcomes = await asyncio.gather(*(create(registry, "eu") for _ in range(5)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists"] * 4 + ["Group"]


async def test_groups_come_in_pages(registry) -> None:
    for name in ("a", "b", "c"):
        await create(registry, name)
    first = await groups(registry, limit=2)
    assert ([group.name for group in first.items], first.total, first.next) == (["a", "b"], 3, "b")
    second = await groups(registry, limit=2, after=first.next)
    assert ([group.name for group in second.items], second.next) == (["c"], None)


async def test_a_caller_sees_the_groups_of_their_clusters_and_counts_no_others(registry, fleet) -> None:
    await registry.add("one", group="eu")
    await registry.add("two", fleet[1].kubeconfig, group="eu")
    await create(registry, "secret")
    somebody = Somebody(subject="vera", grants=(Grant(role="viewer", clusters=("one",)),))
    with acting_as(somebody):
        assert await counts(registry) == {"eu": 1}
        with pytest.raises(NotFound):
            await registry.bus.request(clusters.GET_GROUP, GroupRef("secret"))
        for refused in (create(registry, "x"), change(registry, "eu", rename="x")):
            with pytest.raises(Forbidden):
                await refused
