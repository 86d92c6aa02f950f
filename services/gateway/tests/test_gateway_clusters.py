"""`/api/k8s/clusters` over a registry that answers by contract."""

from __future__ import annotations

import pytest

from kubelore.common.errors import AlreadyExists, DeadlineExceeded, KubeconfigRefused, Unavailable

BODY = {"name": "prod", "kubeconfig": "token: hunter2", "tags": ["a"], "group": "g"}


async def test_a_kubeconfig_leaves_the_gateway_sealed_to_the_registry(world) -> None:
    answer = await world.http.post("/api/k8s/clusters/add", json=BODY)
    assert answer.status_code == 201
    assert world.registry.boxes == {"prod": "token: hunter2"}
    assert answer.json()["created_by"] == "admin"
    assert not {"kubeconfig", "sealed", "kube_system_uid", "generation"} & answer.json().keys()
    assert "hunter2" not in answer.text


async def test_an_added_cluster_can_be_chosen_at_once(world) -> None:
    await world.http.post("/api/k8s/clusters/add", json=BODY)
    for chosen in ("prod", "group:g", "tag:a"):
        page = await world.list(clusters=chosen)
        assert [state["name"] for state in page["clusters"]] == ["prod"]
    assert (await world.http.delete("/api/k8s/clusters/prod")).status_code == 204
    assert (await world.refused(clusters="prod"))[0] == 404


async def test_an_addition_that_happened_is_no_failure_when_the_list_cannot_be_read(world) -> None:
    world.registry.failure = Unavailable("the database is away")
    assert (await world.http.post("/api/k8s/clusters/add", json=BODY)).status_code == 201


@pytest.mark.parametrize(
    ("error", "status", "members"),
    [
        (KubeconfigRefused("no exec", code="exec", remedy="r"), 422, {"code": "exec", "remedy": "r"}),
        (AlreadyExists("taken", existing="other"), 409, {"existing": "other", "reason": "AlreadyExists"}),
        (Unavailable("out of reach"), 503, {"reason": "ServiceUnavailable"}),
        (DeadlineExceeded("too slow"), 504, {"reason": "Timeout"}),
        (Unavailable("later", retry_after_s=2.5), 503, {"retry_after_s": 2.5}),
    ],
)
async def test_what_the_registry_refuses_arrives_as_a_problem(world, error, status: int, members) -> None:
    world.registry.failure = error
    found, problem = await world.refused("/api/k8s/clusters/list")
    assert found == status
    assert members.items() <= problem.items()


async def test_when_to_come_back_is_said_in_whole_seconds(world) -> None:
    world.registry.failure = Unavailable("later", retry_after_s=2.5)
    assert (await world.http.get("/api/k8s/clusters/list")).headers["retry-after"] == "3"


async def test_one_cluster_is_read_tested_and_removed(world) -> None:
    await world.http.post("/api/k8s/clusters/add", json=BODY)
    assert (await world.http.get("/api/k8s/clusters/prod")).json()["name"] == "prod"
    assert (await world.http.post("/api/k8s/clusters/prod/test")).json()["ok"] is True
    assert (await world.http.delete("/api/k8s/clusters/prod")).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test")):
        answer = await world.http.request(method, f"/api/k8s/clusters/prod{path}")
        assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")


async def test_what_is_no_name_never_reaches_the_bus(world) -> None:
    for name in ("*", ">", "a.b", "A", "a%20b", "%00", "x" * 64):
        assert (await world.refused(f"/api/k8s/clusters/{name}"))[0] == 400, name


async def test_inspecting_seals_for_inspection_only(world) -> None:
    answer = await world.http.post("/api/k8s/clusters/inspect", json={"kubeconfig": "x: y"})
    assert answer.json() == {"contexts": [], "current_context": None}
    assert world.registry.boxes == {"inspect": "x: y"}


async def test_the_list_comes_in_pages(world) -> None:
    for name in ("a", "b", "c"):
        await world.registry.put(name)
    first = (await world.http.get("/api/k8s/clusters/list", params={"limit": 2})).json()
    assert ([item["name"] for item in first["items"]], first["total"]) == (["a", "b"], 3)
    further = {"limit": 2, "continue": first["continue"]}
    second = (await world.http.get("/api/k8s/clusters/list", params=further)).json()
    assert ([item["name"] for item in second["items"]], second["continue"]) == (["c"], None)
    for query in ({**further, "tag": "x"}, {"continue": "b"}):
        assert (await world.refused("/api/k8s/clusters/list", **query))[0] == 400, query


async def test_groups_come_in_pages(world) -> None:
    for name in ("a", "b"):
        await world.registry.put(name, group=f"group-{name}")
    first = (await world.http.get("/api/k8s/groups", params={"limit": 1})).json()
    assert [one["name"] for one in first["items"]] == ["group-a"]
    further = {"limit": 1, "continue": first["continue"]}
    second = (await world.http.get("/api/k8s/groups", params=further)).json()
    assert ([one["name"] for one in second["items"]], second["continue"]) == (["group-b"], None)
    assert (await world.refused("/api/k8s/groups", **{"continue": "group-a"}))[0] == 400


async def test_a_list_out_of_bounds_is_refused(world) -> None:
    for name, value in (
        ("limit", 0),
        ("limit", 1001),
        ("limit", "x"),
        ("status", "fine"),
        ("provider", "nobody"),
        ("continue", "A"),
    ):
        assert (await world.refused("/api/k8s/clusters/list", **{name: value}))[0] == 400, name


async def test_a_patch_changes_what_it_names(world) -> None:
    await world.http.post("/api/k8s/clusters/add", json=BODY)
    answer = await world.http.patch(
        "/api/k8s/clusters/prod",
        json={"tags": ["b"], "group": None, "description": "", "namespaces": ["shop"]},
    )
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["tags"], changed["group"], changed["namespaces"]) == (["b"], "g", ["shop"])
    page = await world.list(clusters="tag:b")
    assert [state["name"] for state in page["clusters"]] == ["prod"]
    for wrong in ({"name": "x"}, {"namespaces": ["No"]}, {"tags": ["a,b"]}, {"provider": "nobody"}):
        assert (await world.http.patch("/api/k8s/clusters/prod", json=wrong)).status_code == 400, wrong


async def test_a_rotated_kubeconfig_leaves_the_gateway_sealed(world) -> None:
    await world.http.post("/api/k8s/clusters/add", json=BODY)
    answer = await world.http.put("/api/k8s/clusters/prod/kubeconfig", json={"kubeconfig": "token: hunter3"})
    assert (answer.status_code, answer.json()["name"]) == (200, "prod")
    assert world.registry.boxes["prod"] == "token: hunter3"
    assert "hunter3" not in answer.text


async def test_sync_and_metrics_are_asked_of_the_replica_that_observes(world) -> None:
    await world.http.post("/api/k8s/clusters/add", json=BODY)
    assert (await world.http.post("/api/k8s/clusters/prod/sync")).status_code == 503
    await world.replica("prod")
    report = (await world.http.post("/api/k8s/clusters/prod/sync")).json()
    assert (report["cluster"], report["status"]) == ("prod", "live")
    assert report["as_of"].startswith("1970-01-01T00:00:01")
    assert "replica" not in report
    metrics = (await world.http.get("/api/k8s/clusters/prod/metrics")).json()
    assert metrics["usage"] is None
    assert metrics["missing"] == {"usage": "metrics-server is not installed"}
    assert (await world.refused("/api/k8s/clusters/nope/metrics"))[0] == 404


async def test_groups_are_things_of_their_own_whatever_their_names(world) -> None:
    await world.http.post("/api/k8s/clusters/add", json=BODY)
    groups = (await world.http.get("/api/k8s/groups")).json()
    assert [(one["name"], one["clusters"]) for one in groups["items"]] == [("g", 1)]
    renamed = await world.http.patch("/api/k8s/groups/g", json={"name": "eu / west"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "eu / west")
    assert (await world.http.get("/api/k8s/groups/eu%20%2F%20west")).json()["clusters"] == 1
    page = await world.list(clusters="group:eu / west")
    assert [state["name"] for state in page["clusters"]] == ["prod"]
    assert (await world.http.patch("/api/k8s/groups/g", json={"name": "a,b"})).status_code == 400
