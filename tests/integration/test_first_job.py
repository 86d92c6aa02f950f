"""The first job, end to end: two real clusters onboarded, listed, searched and watched as one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

NAMESPACE = "first-job"


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> str:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels or {}}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def new(name: str) -> str:
    """A name that no earlier run of the test has taken."""
    return f"{name}-{time.monotonic_ns()}"


async def first_event(events: AsyncIterator[Any], name: str, of: str = "") -> Any:
    """The first event of that name (and of an object of the name `of`); an error says what came instead."""
    others: list[Any] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(30), aclosing(events) as stream:  # type: ignore[type-var]
            async for event in stream:
                if event[1] == name and event[2].get("id", "").endswith(of):
                    return event
                others.append(event)
    raise AssertionError(f"no {name} but {others}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(kubelore, lab_pair):
    """Both lab clusters onboarded as alpha and beta, with a namespace for these tests."""
    for name, plane in (("alpha", lab_pair.first), ("beta", lab_pair.second)):
        await plane.kubectl()("create", "namespace", NAMESPACE)
        await kubelore.onboard(name, plane.kubeconfig(), tags=["lab", name], group="pair")
    yield kubelore
    for name in ("alpha", "beta"):
        await kubelore.remove(name)


async def apply(plane, *manifests: str) -> None:
    for manifest in manifests:
        await plane.kubectl()("apply", "--server-side", "-f", "-", stdin=manifest)


async def test_the_list_shows_what_kubectl_shows_in_both_clusters(fleet, lab_pair) -> None:
    for name, plane in (("alpha", lab_pair.first), ("beta", lab_pair.second)):
        said = json.loads(
            await plane.kubectl()(
                "get", "namespaces,services,clusterroles", "-A", "-o", "json", "--show-managed-fields"
            )
        )
        expected = {item["metadata"]["uid"]: item for item in said["items"]}

        async def same(name: str = name, expected: dict[str, Any] = expected) -> bool:
            page = await fleet.list(type="namespaces,services,clusterroles", clusters=name, limit=10_000)
            return {item["object"]["metadata"]["uid"]: item["object"] for item in page["items"]} == expected

        await wait_for(same, f"the read model of {name} to equal kubectl", 20)


async def test_a_change_made_with_kubectl_reaches_the_watch(fleet, lab_pair) -> None:
    events = fleet.watch(type="cm", clusters="alpha", namespace=NAMESPACE)
    waiting = asyncio.create_task(first_event(events, "added"))
    page = await fleet.list(type="configmaps", limit=1)
    seen = new("seen")
    await apply(lab_pair.first, config_map(seen))
    event_id, _, data = await waiting
    assert data["id"] == f"alpha:configmaps:{NAMESPACE}:{seen}"
    assert event_id
    assert page["watch_from"]


async def test_a_watch_from_a_list_misses_nothing_that_happened_since(fleet, lab_pair) -> None:
    page = await fleet.list(type="configmaps", namespace=NAMESPACE)
    meanwhile = new("meanwhile")
    await apply(lab_pair.second, config_map(meanwhile))
    await wait_for(lambda: fleet.ids(type="cm", search=meanwhile), "the object to be listed")
    events = fleet.watch(type="cm", namespace=NAMESPACE, since=page["watch_from"])
    _, _, data = await first_event(events, "added", of=f":{meanwhile}")
    assert data["id"] == f"beta:configmaps:{NAMESPACE}:{meanwhile}"


async def test_a_watch_resumes_behind_the_last_event_that_was_seen(fleet, lab_pair) -> None:
    page = await fleet.list(type="cm", namespace=NAMESPACE)
    first, second = new("one"), new("two")
    await apply(lab_pair.first, config_map(first), config_map(second))
    # By name: a list's position may lie a little before the list, where an earlier test was.
    seen, _, _ = await first_event(
        fleet.watch(type="cm", since=page["watch_from"], namespace=NAMESPACE), "added", of=f":{first}"
    )
    _, _, data = await first_event(fleet.watch(type="cm", namespace=NAMESPACE, last_event_id=seen), "added")
    assert data["id"].endswith(f":{second}")


async def test_an_object_that_leaves_the_selector_is_sent_as_removed(fleet, lab_pair) -> None:
    leaving = new("leaving")
    await apply(lab_pair.first, config_map(leaving, {"tier": "front"}))
    await wait_for(lambda: fleet.ids(type="cm", labels="tier=front", clusters="alpha"), "the object")
    page = await fleet.list(type="cm", limit=1)
    await lab_pair.first.kubectl()("label", "cm", leaving, "-n", NAMESPACE, "tier=back", "--overwrite")
    events = fleet.watch(type="cm", labels="tier=front", since=page["watch_from"])
    _, _, data = await first_event(events, "removed", of=f":{leaving}")
    assert data["id"].endswith(f":{leaving}")


async def test_a_deleted_object_is_gone_from_the_list_and_told_with_its_last_state(fleet, lab_pair) -> None:
    await apply(lab_pair.first, config_map("doomed", key="value"))
    await wait_for(lambda: fleet.ids(type="cm", search="doomed"), "the object")
    page = await fleet.list(type="cm", limit=1)
    await lab_pair.first.kubectl()("delete", "cm", "doomed", "-n", NAMESPACE)
    _, _, data = await first_event(fleet.watch(type="cm", since=page["watch_from"]), "deleted", of=":doomed")
    assert data["object"]["data"] == {"key": "value"}

    async def gone() -> bool:
        return not await fleet.ids(type="cm", search="doomed")

    await wait_for(gone, "the object to be gone")


async def test_selectors_and_search_narrow_the_list(fleet, lab_pair) -> None:
    await apply(
        lab_pair.first,
        config_map("web", {"app": "web", "tier": "front"}),
        config_map("api", {"app": "api", "tier": "back"}),
    )
    await wait_for(lambda: fleet.ids(type="cm", labels="app=api"), "the objects")
    where = {"type": "cm", "namespace": NAMESPACE, "clusters": "alpha"}
    assert await fleet.ids(**where, labels="app in (web,api),tier!=back") == [
        f"alpha:configmaps:{NAMESPACE}:web"
    ]
    assert await fleet.ids(**where, fields="metadata.name=api") == [f"alpha:configmaps:{NAMESPACE}:api"]
    assert await fleet.ids(**where, search="APP=WEB") == [f"alpha:configmaps:{NAMESPACE}:web"]


async def test_groups_and_tags_choose_clusters(fleet) -> None:
    async def names(clusters: str) -> list[str]:
        return [
            state["name"] for state in (await fleet.list(type="ns", clusters=clusters, limit=1))["clusters"]
        ]

    assert await names("group:pair") == ["alpha", "beta"]
    assert await names("tag:beta") == ["beta"]
    assert await names("group:nothing") == []


async def test_pages_hold_every_row_once(fleet) -> None:
    whole = await fleet.ids(type="clusterroles", limit=10_000)
    walked: list[str] = []
    token = ""
    while True:
        page = await fleet.list(type="clusterroles", limit=17, **({"continue": token} if token else {}))
        walked += [item["id"] for item in page["items"]]
        token = page["continue"]
        if token is None:
            break
    assert walked == whole
    assert len(set(walked)) == len(walked) > 100


async def test_one_object_comes_as_json_and_as_yaml(fleet, lab_pair) -> None:
    name = f"alpha:configmaps:{NAMESPACE}:one-object"
    await apply(lab_pair.first, config_map("one-object", text="yes", lines="a\nb\n"))
    await wait_for(lambda: fleet.ids(type="cm", search="one-object"), "the object")
    said = json.loads(
        await lab_pair.first.kubectl()(
            "get", "cm", "one-object", "-n", NAMESPACE, "-o", "json", "--show-managed-fields"
        )
    )
    found = (await fleet.http.get(f"/api/k8s/unified/resources/{name}")).json()
    assert found["object"] == said
    text = (
        await fleet.http.get(f"/api/k8s/unified/resources/{name}", headers={"Accept": "application/yaml"})
    ).text
    assert 'text: "yes"' in text
    assert "lines: |" in text


async def test_an_object_that_is_not_there_is_a_problem_document(fleet) -> None:
    answer = await fleet.http.get(f"/api/k8s/unified/resources/alpha:configmaps:{NAMESPACE}:nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "NotFound"


async def test_secrets_are_listed_without_their_values(fleet, lab_pair) -> None:
    kubectl = lab_pair.first.kubectl()
    await kubectl(
        "create", "secret", "generic", "hidden", "-n", NAMESPACE, "--from-literal=password=hunter2hunter2"
    )
    await wait_for(lambda: fleet.ids(type="secrets", search="hidden"), "the secret")
    answer = await fleet.http.get("/api/k8s/unified/resources", params={"type": "secrets"})
    assert "hunter2" not in answer.text
    assert "aHVudGVyMmh1bnRlcjI" not in answer.text


async def test_a_type_is_there_as_soon_as_its_definition_is_and_gone_with_it(fleet, lab_pair) -> None:
    kubectl = lab_pair.first.kubectl()
    await kubectl("apply", "-f", "-", stdin=json.dumps(CRD))
    widget = {
        "apiVersion": "lore.example/v1",
        "kind": "Widget",
        "metadata": {"name": "w1", "namespace": NAMESPACE},
    }

    async def created() -> bool:
        return (await kubectl.run("apply", "-f", "-", stdin=json.dumps(widget))).code == 0

    await wait_for(created, "the API server to serve widgets")

    async def listed() -> bool:
        answer = await fleet.http.get("/api/k8s/unified/resources", params={"type": "widgets"})
        return answer.status_code == 200 and len(answer.json()["items"]) == 1

    await wait_for(listed, "the widget to be listed", 20)
    await kubectl("delete", "crd", "widgets.lore.example")

    async def unknown() -> bool:
        return (
            await fleet.http.get("/api/k8s/unified/resources", params={"type": "widgets"})
        ).status_code == 400

    await wait_for(unknown, "the type to be unknown again", 20)


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.lore.example"},
    "spec": {
        "group": "lore.example",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


async def test_an_unknown_type_is_refused_with_what_was_probably_meant(fleet) -> None:
    answer = await fleet.http.get("/api/k8s/unified/resources", params={"type": "deploymint"})
    assert answer.status_code == 400
    assert "deployments.apps" in answer.json()["remedy"]


async def test_the_table_view_has_the_columns_of_kubectl(fleet, lab_pair) -> None:
    page = await fleet.list(type="namespaces", clusters="alpha", view="table", fields="metadata.name=default")
    assert [column["name"] for column in page["columns"]][:3] == ["Name", "Status", "Age"]
    assert page["items"][0]["object"][:2] == ["default", "Active"]


async def test_a_name_twice_is_a_conflict(fleet, lab_pair) -> None:
    answer = await fleet.add("alpha", lab_pair.first.kubeconfig())
    assert answer.status_code == 409
    assert answer.json()["reason"] == "AlreadyExists"


async def test_the_same_cluster_under_another_name_is_a_conflict(fleet, lab_pair) -> None:
    answer = await fleet.add("alias", lab_pair.first.kubeconfig())
    assert answer.status_code == 409
    assert answer.json()["existing"] == "alpha"


async def test_a_connection_test_tells_its_steps(fleet) -> None:
    report = (await fleet.http.post("/api/k8s/clusters/alpha/test")).json()
    assert report["ok"] is True
    assert {"tcp", "tls", "authentication", "authorization", "version"} <= {
        step["name"] for step in report["steps"]
    }


async def test_a_cluster_that_is_removed_has_no_rows_and_no_credentials(fleet, lab_pair) -> None:
    await fleet.remove("beta")
    try:
        answer = await fleet.http.get("/api/k8s/clusters/beta")
        assert answer.status_code == 404

        async def gone() -> bool:
            return all(not found.startswith("beta:") for found in await fleet.ids(type="ns"))

        await wait_for(gone, "the rows to be gone")
    finally:
        await fleet.onboard("beta", lab_pair.second.kubeconfig(), tags=["lab", "beta"], group="pair")


async def test_a_former_name_is_not_given_to_another_cluster_silently(fleet, lab_pair) -> None:
    await fleet.remove("beta")
    await fleet.remove("alpha")
    try:
        answer = await fleet.add("alpha", lab_pair.second.kubeconfig())
        assert answer.status_code == 409
        assert "new_history" in answer.json()["remedy"]
    finally:
        await fleet.onboard("alpha", lab_pair.first.kubeconfig(), tags=["lab", "alpha"], group="pair")
        await fleet.onboard("beta", lab_pair.second.kubeconfig(), tags=["lab", "beta"], group="pair")


@pytest.mark.parametrize("path", ["/api/k8s/clusters/list", "/api/k8s/unified/resources", "/openapi.json"])
async def test_nothing_answers_without_the_token(fleet, path: str) -> None:
    async with httpx.AsyncClient(base_url=fleet.url) as stranger:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {fleet.token}"}):
            answer = await stranger.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_pulled_plug_is_told_in_time_with_rows_that_say_how_old_they_are(fleet, lab_pair) -> None:
    lab_pair.second.pause("apiserver")
    try:

        async def stale() -> bool:
            started = asyncio.get_running_loop().time()
            page = await fleet.list(type="namespaces")
            assert asyncio.get_running_loop().time() - started < 1.5
            return [state["status"] for state in page["clusters"]] == ["live", "stale"]

        await wait_for(stale, "beta to be called stale", 30)
        page = await fleet.list(type="namespaces")
        state = page["clusters"][1]
        assert page["partial"] is True
        assert state["as_of"]
        assert state["error"]
        assert any(item["cluster"] == "beta" for item in page["items"])
        fresh = await fleet.ids(type="namespaces", stale="exclude")
        assert not any(found.startswith("beta:") for found in fresh)
    finally:
        lab_pair.second.resume("apiserver")
    await fleet.until_live("beta", 75)
