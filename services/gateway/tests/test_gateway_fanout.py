"""One list over several replicas: merged pages, silent replicas, unknown types, objects that vanish."""

from __future__ import annotations

import asyncio

import pytest

from kubelore.common.contracts.resources import QUERY
from kubelore.common.errors import BadRequest, KubeloreError, TooLarge, TooManyRequests, Unavailable
from kubelore.lab.waiting import wait_for

PODS = [f"{cluster}:pods:shop:{name}" for name in "abcdefg" for cluster in ("left", "right")]


@pytest.fixture
def two(world):
    """Two replicas, each with a cluster of seven pods of the same names."""

    async def make():
        left, right = await world.replica("left"), await world.replica("right")
        left.hold(*(found for found in PODS if found.startswith("left")))
        right.hold(*(found for found in PODS if found.startswith("right")))
        return left, right

    return make


async def walk(world, **query) -> list[str]:
    found, token = [], None
    while True:
        page = await world.list(**query, **({"continue": token} if token else {}))
        found += [item["id"] for item in page["items"]]
        token = page["continue"]
        if token is None:
            return found


async def silence(endpoint: str) -> None:
    await asyncio.Event().wait()


async def test_one_replica_is_asked_once_and_for_whole_objects(world) -> None:
    replica = await world.replica("left")
    replica.hold(*PODS[::2])
    assert len((await world.list(type="pods"))["items"]) == 7
    assert [endpoint for endpoint, _ in replica.asked] == ["query"]


async def test_several_replicas_give_keys_first_and_objects_of_the_winners_only(world, two) -> None:
    left, right = await two()
    page = await world.list(type="pods", limit=3)
    assert [item["id"] for item in page["items"]] == PODS[:3]
    assert all(item["object"]["metadata"]["name"] for item in page["items"])
    assert page["total"] == 14
    assert [(state["name"], state["count"]) for state in page["clusters"]] == [("left", 7), ("right", 7)]
    assert page["partial"] is False
    asked = [request.ids for endpoint, request in left.asked + right.asked if endpoint == "fetch"]
    assert sorted(found for ids in asked for found in ids) == sorted(PODS[:3])


@pytest.mark.parametrize("limit", [1, 3, 7, 14, 100])
async def test_pages_hold_every_row_once_in_order_up_and_down(world, two, limit: int) -> None:
    await two()
    assert await walk(world, type="pods", limit=limit) == PODS
    assert await walk(world, type="pods", limit=limit, sort="-name") == PODS[::-1]


async def test_rows_that_come_and_go_between_pages_do_not_shift_the_others(world, two) -> None:
    left, right = await two()
    first = await world.list(type="pods", limit=5)
    left.hold("left:pods:shop:a0")
    del right.objects[PODS[1]], right.objects[PODS[7]]
    rest = await world.list(type="pods", limit=100, **{"continue": first["continue"]})
    seen = [item["id"] for item in first["items"] + rest["items"]]
    assert seen == [found for found in PODS if found != PODS[7]]


async def test_a_token_belongs_to_its_query(world, two) -> None:
    await two()
    token = (await world.list(type="pods", limit=5))["continue"]
    for other in (
        {"type": "configmaps"},
        {"type": "pods", "labels": "a=b"},
        {"type": "pods", "clusters": "left"},
    ):
        status, problem = await world.refused(**other, limit=5, **{"continue": token})
        assert (status, problem["reason"]) == (400, "BadRequest")
    assert len((await world.list(type="pods", limit=9, **{"continue": token}))["items"]) == 9


async def test_a_replica_that_does_not_answer_costs_its_deadline_and_its_rows(world, two) -> None:
    _, right = await two()
    right.before = silence
    started = asyncio.get_running_loop().time()
    page = await world.list(type="pods")
    assert asyncio.get_running_loop().time() - started >= QUERY.deadline_s
    assert {item["cluster"] for item in page["items"]} == {"left"}
    assert page["partial"] is True
    states = {state["name"]: (state["status"], state["error"]) for state in page["clusters"]}
    assert states == {"left": ("live", None), "right": ("error", "its observer does not answer")}


async def test_a_replica_that_does_not_answer_costs_no_other_page_a_second(world, two) -> None:
    _, right = await two()
    right.before = silence
    await world.list(type="pods")
    page = await world.list(type="pods")
    assert [endpoint for endpoint, _ in right.asked].count("query") == 1
    assert {item["cluster"] for item in page["items"]} == {"left"}
    assert [state["error"] for state in page["clusters"]] == [None, "its observer does not answer"]


async def test_a_replica_that_answers_again_is_asked_again(world, two) -> None:
    _, right = await two()
    right.before = silence
    assert (await world.list(type="pods"))["partial"] is True
    right.before = None

    async def whole() -> bool:
        return (await world.list(type="pods"))["partial"] is False

    await wait_for(whole, "a whole page")


async def test_a_replica_that_falls_silent_in_phase_two_is_named_too(world, two) -> None:
    _, right = await two()

    async def no_fetch(endpoint: str) -> None:
        if endpoint == "fetch":
            await silence(endpoint)

    right.before = no_fetch
    page = await world.list(type="pods")
    assert {item["cluster"] for item in page["items"]} == {"left"}
    assert page["partial"] is True
    assert [state["status"] for state in page["clusters"]] == ["live", "error"]


async def test_an_object_that_vanishes_between_the_phases_is_left_out(world, two) -> None:
    _, right = await two()

    async def vanish(endpoint: str) -> None:
        if endpoint == "fetch":
            right.objects.pop(PODS[3], None)

    right.before = vanish
    page = await world.list(type="pods")
    assert [item["id"] for item in page["items"]] == [found for found in PODS if found != PODS[3]]
    assert page["partial"] is False


async def test_a_cluster_that_nobody_observes_is_named(world) -> None:
    await world.replica("left")
    await world.registry.put("alone")
    await until_known(world, "alone")
    page = await world.list(clusters="alone")
    assert [state["status"] for state in page["clusters"]] == ["error"]
    assert "no observer" in page["clusters"][0]["error"]
    assert (await world.http.get("/api/k8s/unified/resources/alone:pods:a:b")).status_code == 503


async def until_known(world, name: str) -> None:
    async def listed() -> bool:
        return any(state["name"] == name for state in (await world.list(limit=1))["clusters"])

    await wait_for(listed, f"{name} to be known", 10, every=0.02)


async def test_stale_rows_stay_unless_they_are_excluded(world, two) -> None:
    left, _ = await two()
    left.status["left"] = "stale"
    page = await world.list(type="pods")
    assert (page["partial"], page["total"]) == (True, 14)
    fresh = await world.list(type="pods", stale="exclude")
    assert {item["cluster"] for item in fresh["items"]} == {"right"}
    assert fresh["partial"] is True


async def test_a_type_that_only_one_replica_knows_has_rows_there_and_none_elsewhere(world, two) -> None:
    left, _ = await two()
    left.types.add("widgets")
    left.hold("left:widgets:shop:w")
    page = await world.list(type="widgets")
    assert [item["id"] for item in page["items"]] == ["left:widgets:shop:w"]
    assert [(state["name"], state["status"], state["count"]) for state in page["clusters"]] == [
        ("left", "live", 1),
        ("right", "live", 0),
    ]
    assert page["partial"] is False
    both = await world.list(type="widgets,pods")
    assert len(both["items"]) == 15


async def test_types_that_each_replica_knows_one_of_are_all_found(world, two) -> None:
    left, right = await two()
    left.types, right.types = {"pods", "widgets"}, {"pods", "gadgets"}
    left.hold("left:widgets:shop:w")
    right.hold("right:gadgets:shop:g")
    page = await world.list(type="widgets,gadgets")
    assert [item["id"] for item in page["items"]] == ["right:gadgets:shop:g", "left:widgets:shop:w"]


async def test_a_type_that_no_replica_knows_is_refused_also_beside_a_known_one(world, two) -> None:
    await two()
    for asked in ("gizmos", "pods,gizmos"):
        status, problem = await world.refused(type=asked)
        assert (status, problem["unknown_type"]) == (400, "gizmos")


async def test_whether_a_silent_replica_knows_a_type_is_left_open(world, two) -> None:
    _, right = await two()
    right.before = silence
    page = await world.list(type="gizmos")
    assert (page["items"], page["partial"]) == ([], True)


@pytest.mark.parametrize("sort", ["name", "-name"])
async def test_a_table_comes_in_one_phase_with_its_columns(world, two, sort: str) -> None:
    left, right = await two()
    page = await world.list(type="pods", view="table", limit=4, sort=sort)
    assert [column["name"] for column in page["columns"]] == ["Name"]
    assert len(page["items"]) == 4
    assert {endpoint for endpoint, _ in left.asked + right.asked} == {"query"}


async def test_a_malformed_selector_is_refused(world, two) -> None:
    await two()
    status, problem = await world.refused(labels="a in (")
    assert (status, problem["reason"]) == (400, "BadRequest")


async def failing(replica, error: Exception) -> None:
    async def fail(endpoint: str) -> None:
        raise error

    replica.before = fail


@pytest.mark.parametrize(
    "error", [TooManyRequests("busy"), KubeloreError("unexpected error 1a2b"), Unavailable("x")]
)
async def test_what_goes_wrong_with_one_replica_does_not_take_the_others_rows(world, two, error) -> None:
    _, right = await two()
    await failing(right, error)
    page = await world.list(type="pods")
    assert (len(page["items"]), page["partial"]) == (7, True)
    assert page["clusters"][1]["status"] == "error"


@pytest.mark.parametrize("error", [TooManyRequests("busy"), KubeloreError("unexpected error 1a2b")])
async def test_what_goes_wrong_with_every_replica_is_the_answer(world, two, error) -> None:
    for replica in await two():
        await failing(replica, error)
    assert (await world.refused(type="pods"))[0] == error.status


async def test_a_page_that_is_too_large_says_so_instead_of_losing_rows(world, two) -> None:
    _, right = await two()
    await failing(right, TooLarge("an answer of 200 MB", remedy="Ask for less."))
    status, problem = await world.refused(type="pods")
    assert (status, problem["remedy"]) == (413, "Ask for less.")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"clusters": "nothing"}, 404),
        ({"clusters": "No-Name"}, 400),
        ({"limit": 0}, 400),
        ({"limit": 10_001}, 400),
        ({"view": "yaml"}, 400),
        ({"stale": "maybe"}, 400),
        ({"continue": "AAAA"}, 400),
        ({"continue": "é"}, 400),
        ({"search": "x" * 501}, 400),
    ],
    ids=str,
)
async def test_a_query_out_of_bounds_is_refused(world, query, status: int) -> None:
    assert (await world.refused(**query))[0] == status


async def test_without_clusters_a_list_is_empty_and_a_watch_of_a_type_says_why_not(world) -> None:
    page = await world.list()
    assert (page["items"], page["clusters"], page["partial"], page["total"]) == ([], [], False, 0)
    status, problem = await world.refused("/api/k8s/unified/watch", type="pods")
    assert (status, "Add a cluster" in problem["remedy"]) == (503, True)


async def test_one_object_comes_from_its_owner_as_json_or_yaml(world, two) -> None:
    await two()
    path = f"/api/k8s/unified/resources/{PODS[1]}"
    found = (await world.http.get(path)).json()
    assert (found["id"], found["cluster"], found["state"]["status"]) == (PODS[1], "right", "live")
    for answer in (
        await world.http.get(path, params={"output": "yaml"}),
        await world.http.get(path, headers={"Accept": "application/yaml"}),
    ):
        assert answer.headers["content-type"].startswith("application/yaml")
        assert "name: a\n" in answer.text
    assert (
        await world.http.get(path, params={"output": "json"}, headers={"Accept": "application/yaml"})
    ).json()


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ("left:pods:shop:nothing", 404),
        ("elsewhere:pods:shop:a", 404),
        ("pods", 400),
        ("left:pods:sh%2Fop:a", 404),
        ("left:pods:*:a", 400),
        ("*:pods:shop:a", 400),
    ],
)
async def test_an_id_that_leads_nowhere_is_refused(world, two, found: str, status: int) -> None:
    await two()
    assert (await world.refused(f"/api/k8s/unified/resources/{found}"))[0] == status


async def test_an_unknown_query_of_a_replica_is_no_unknown_type(world, two) -> None:
    left, _ = await two()
    await failing(left, BadRequest("cannot sort by 'x'"))
    status, problem = await world.refused(type="pods", sort="x")
    assert (status, problem["detail"]) == (400, "cannot sort by 'x'")
