"""One comparison over several replicas: names merged, differences shown, silence told apart from absence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubelore.common.errors import Unavailable

KIND = "configmaps"


def put(replica, found: str, **data: str) -> None:
    replica.objects[found] = {"metadata": {"name": found.rsplit(":", 1)[1], "labels": {}}, "data": data}


@pytest.fixture
def two(world):
    """Two replicas with a cluster each: `same` and `other` in both, `only` in the left one."""

    async def make():
        left, right = await world.replica("left"), await world.replica("right")
        for replica, cluster in ((left, "left"), (right, "right")):
            put(replica, f"{cluster}:{KIND}:shop:same", color="red")
            put(replica, f"{cluster}:{KIND}:shop:other", color=cluster, size="1")
        put(left, f"left:{KIND}:shop:only")
        return left, right

    return make


async def compare(world, **query: Any) -> dict[str, Any]:
    answer = await world.http.get("/api/k8s/unified/compare", params={"type": "cm", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(page: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["name"], item["status"]) for item in page["items"]]


async def test_objects_are_same_different_or_missing(world, two) -> None:
    await two()
    page = await compare(world)
    assert told(page) == [("only", "missing"), ("other", "different"), ("same", "same")]
    only, other, _ = page["items"]
    assert only["clusters"] == {"left": "present", "right": "absent"}
    assert other["changes"] == [{"path": "data.color", "values": {"left": "left", "right": "right"}}]
    assert page["summary"] == {"same": 1, "different": 1, "missing": 1, "unknown": 0}
    assert page["partial"] is False
    assert page["continue"] is None
    assert "status" in page["ignored"]


async def test_only_what_differs_is_fetched_one_object_for_each_digest(world, two) -> None:
    left, right = await two()
    await world.replica("third")
    put(world.replicas[2], f"third:{KIND}:shop:other", color="left", size="1")
    await compare(world, name="other")
    fetched = [
        found
        for replica in (left, right, world.replicas[2])
        for endpoint, request in replica.asked
        if endpoint == "meant"
        for found in request.ids
    ]
    assert len(fetched) == 2


async def test_equal_values_are_shown_for_every_cluster(world, two) -> None:
    await two()
    third = await world.replica("third")
    put(third, f"third:{KIND}:shop:other", color="left", size="1")
    page = await compare(world, name="other")
    assert page["items"][0]["changes"][0]["values"] == {"left": "left", "right": "right", "third": "left"}


async def test_a_status_narrows_the_items_and_not_the_summary(world, two) -> None:
    await two()
    for status, expected in (
        ("same", ["same"]),
        ("different", ["other"]),
        ("missing", ["only"]),
        ("unknown", []),
    ):
        page = await compare(world, status=status)
        assert [item["name"] for item in page["items"]] == expected
        assert sum(page["summary"].values()) == 3


async def test_pages_hold_every_name_once_whatever_the_replicas_pages(world, two) -> None:
    left, right = await two()
    for number in range(17):
        put(left, f"left:{KIND}:shop:n{number:02}")
        if number % 3:
            put(right, f"right:{KIND}:shop:n{number:02}")
    left.names_a_page, right.names_a_page = 2, 5
    whole = told(await compare(world, limit=1000))
    walked, token = [], None
    while True:
        page = await compare(world, limit=3, **({"continue": token} if token else {}))
        assert len(page["items"]) <= 3
        walked += told(page)
        token = page["continue"]
        if token is None:
            break
    assert walked == whole
    assert len(walked) == 20


async def test_a_token_of_another_comparison_is_refused(world, two) -> None:
    await two()
    token = (await compare(world, limit=1))["continue"]
    assert token
    for changed in ({"status": "same"}, {"type": "pods"}, {"clusters": "left,right"}, {"ignore": "data"}):
        status, problem = await world.refused(
            "/api/k8s/unified/compare", **{"type": "cm", "continue": token, **changed}
        )
        assert (status, problem["reason"]) == (400, "BadRequest")


async def test_what_a_silent_replica_has_is_unknown_and_not_missing(world, two) -> None:
    _, right = await two()

    async def silence(endpoint: str) -> None:
        raise Unavailable("restarting")

    right.before = silence
    page = await compare(world)
    assert {item["status"] for item in page["items"]} == {"unknown"}
    assert page["items"][0]["clusters"] == {"left": "present", "right": "unknown"}
    assert page["partial"] is True
    assert {state["name"]: state["status"] for state in page["clusters"]} == {
        "left": "live",
        "right": "error",
    }


async def test_what_has_not_arrived_yet_is_unknown_and_not_missing(world, two) -> None:
    _, right = await two()
    right.status["right"] = "syncing"
    page = await compare(world, name="only")
    assert page["items"][0]["clusters"] == {"left": "present", "right": "unknown"}
    right.status["right"] = "stale"
    page = await compare(world, name="only")
    assert page["items"][0]["status"] == "missing"


async def test_a_type_that_one_cluster_does_not_serve_is_missing_there(world, two) -> None:
    left, _ = await two()
    left.types.add("widgets")
    put(left, "left:widgets:shop:w")
    page = await compare(world, type="widgets")
    assert told(page) == [("w", "missing")]
    status, problem = await world.refused("/api/k8s/unified/compare", type="gadgets")
    assert (status, "gadgets" in problem["detail"]) == (400, True)


async def test_an_object_that_vanishes_between_the_phases_is_told_without_changes(world, two) -> None:
    _, right = await two()

    async def vanish(endpoint: str) -> None:
        if endpoint == "meant":
            right.objects.pop(f"right:{KIND}:shop:other", None)

    right.before = vanish
    page = await compare(world, name="other")
    assert told(page) == [("other", "different")]
    assert page["items"][0]["changes"] == []


async def test_values_too_long_to_show_are_cut_and_say_so(world, two) -> None:
    left, right = await two()
    put(left, f"left:{KIND}:shop:long", text="a" * 10_000)
    put(right, f"right:{KIND}:shop:long", text="b" * 10_000)
    (change,) = (await compare(world, name="long"))["items"][0]["changes"]
    assert change["truncated"] is True
    assert all(len(value) <= 4096 for value in change["values"].values())


async def test_no_more_than_a_hundred_changes_are_listed(world, two) -> None:
    left, right = await two()
    put(left, f"left:{KIND}:shop:wide", **{f"k{number:03}": "1" for number in range(130)})
    put(right, f"right:{KIND}:shop:wide", **{f"k{number:03}": "2" for number in range(130)})
    (item,) = (await compare(world, name="wide"))["items"]
    assert (len(item["changes"]), item["more_changes"]) == (100, 30)


@pytest.mark.parametrize(
    "query", [{"clusters": "left"}, {"type": ""}, {"limit": "0"}, {"limit": "1001"}, {"ignore": "a["}]
)
async def test_what_cannot_be_compared_is_refused(world, two, query: dict[str, str]) -> None:
    await two()
    status, _ = await world.refused("/api/k8s/unified/compare", **{"type": "cm", **query})
    assert status == 400


async def test_counts_of_all_replicas_are_added_up(world, two) -> None:
    left, _ = await two()
    left.hold("left:pods:cart:web")
    found = (await world.http.get("/api/k8s/unified/summary")).json()
    assert found["total"] == 6
    assert found["types"] == {"configmaps": 5, "pods": 1}
    assert found["namespaces"] == {"shop": 5, "cart": 1}
    assert {state["name"]: state["count"] for state in found["clusters"]} == {"left": 4, "right": 2}
    narrowed = (await world.http.get("/api/k8s/unified/summary", params={"type": "po"})).json()
    assert narrowed["total"] == 1
    status, _ = await world.refused("/api/k8s/unified/summary", type="gadgets")
    assert status == 400


async def test_a_silent_replica_leaves_the_counts_partial(world, two) -> None:
    _, right = await two()
    right.before = lambda endpoint: asyncio.Event().wait()
    found = (await world.http.get("/api/k8s/unified/summary")).json()
    assert (found["partial"], found["total"]) == (True, 3)


async def test_types_of_all_replicas_come_once_with_their_clusters(world, two) -> None:
    left, _ = await two()
    left.types.add("widgets")
    found = (await world.http.get("/api/k8s/unified/types")).json()
    assert [(item["name"], item["clusters"], item["count"]) for item in found["items"]] == [
        ("configmaps", ["left", "right"], 5),
        ("pods", ["left", "right"], 0),
        ("widgets", ["left"], 0),
    ]
    one = (await world.http.get("/api/k8s/unified/types", params={"clusters": "right"})).json()
    assert [item["name"] for item in one["items"]] == ["configmaps", "pods"]
