"""Objects and namespaces of a real cluster made what they were, by whoever might write them by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

SPACE, OTHER = "rewound", "elsewhere"
YAML = "/api/k8s/yaml"


class Cluster:
    """A real cluster that is onboarded as `alpha`."""

    def __init__(self, kubelore, kubectl) -> None:
        self.kubelore = kubelore
        self.kubectl = kubectl
        self.names = 0

    def name(self) -> str:
        """A name that no other test or example has used."""
        self.names += 1
        return f"thing-{self.names}"

    async def apply(self, manifest: dict[str, Any], *words: str) -> dict[str, Any]:
        async def written() -> str:
            said = await self.kubectl.run(
                *(words or ("apply",)), "-f", "-", "-o", "json", stdin=json.dumps(manifest)
            )
            # kubectl reads before it replaces, and a controller may write the status in between.
            busy = "the object has been modified" in said.stderr
            assert said.code == 0 or busy, said.stderr
            return said.stdout if said.code == 0 else ""

        return json.loads(await wait_for(written, f"kubectl to write {manifest['kind']}", 20))

    async def live(self, kind: str, name: str, space: str = SPACE) -> dict[str, Any]:
        return json.loads(await self.kubectl("get", kind, name, "-n", space, "-o", "json"))

    async def versions(self, id_: str) -> list[dict[str, Any]]:
        answer = await self.kubelore.http.get(f"{YAML}/versions/{id_}", params={"limit": 1000})
        return answer.json()["items"] if answer.status_code == 200 else []

    async def recorded(self, id_: str, number: int) -> None:
        async def there() -> bool:
            return len(await self.versions(id_)) >= number

        await wait_for(there, f"{number} versions of {id_}", 20)

    async def version_at(self, id_: str, rv: str) -> int:
        """The number of the version that was in force at a resourceVersion; not every one of them made a version."""
        before = [one for one in await self.versions(id_) if int(one["resource_version"]) <= int(rv)]
        return max(one["version"] for one in before)

    async def roll_back(self, id_: str, version: int, client: httpx.AsyncClient | None = None, **more: Any):
        body = {"version": version, **more}
        return await (client or self.kubelore.http).post(f"{YAML}/versions/{id_}/rollback", json=body)

    async def content(self, id_: str, version: int) -> str:
        return (await self.kubelore.http.get(f"{YAML}/versions/{id_}/{version}")).json()["yaml_content"]

    @asynccontextmanager
    async def caller(self, name: str, **grant: Any) -> AsyncIterator[httpx.AsyncClient]:
        told = {"clusters": ["alpha"], "namespaces": [SPACE], **grant}
        async with self.kubelore.somebody(name, **told) as somebody:
            yield somebody.http


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alpha(kubelore, lab_pair) -> AsyncIterator[Cluster]:
    kubectl = lab_pair.first.kubectl()
    await kubelore.onboard("alpha", lab_pair.first.kubeconfig())
    for space in (SPACE, OTHER):
        await kubectl("create", "namespace", space)
    yield Cluster(kubelore, kubectl)
    for space in (SPACE, OTHER):
        await kubectl("delete", "namespace", space, "--wait=false")
    await kubelore.remove("alpha")


def config_map(name: str, data: dict[str, str], space: str = SPACE, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": space}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, **more}


def deployment(name: str, image: str, replicas: int = 0, **environment: str) -> dict[str, Any]:
    env = [{"name": key, "value": value} for key, value in environment.items()]
    pod = {"containers": [{"name": "web", "image": image, "env": env}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


KEYS = st.sampled_from(["a", "b", "c.d"])
DATA = st.dictionaries(KEYS, st.text("xyz\n:{-", max_size=8), max_size=3)
LABELS = st.dictionaries(st.sampled_from(["one", "example.com/two"]), st.sampled_from(["x", "y"]), max_size=2)
EDITS = st.lists(st.tuples(DATA, LABELS), min_size=2, max_size=5)
ROLLOUTS = st.lists(
    st.tuples(
        st.sampled_from(["web:1", "web:2"]),
        st.integers(0, 2),
        st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["1", "2"])),
    ),
    min_size=2,
    max_size=4,
)
HYPOTHESIS = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@HYPOTHESIS
@given(edits=EDITS, choose=st.data())
async def test_any_edits_of_a_config_map_rolled_back_to_any_version_give_that_content(
    alpha, edits, choose
) -> None:
    name = alpha.name()
    states: list[dict[str, Any]] = []
    for data, labels in edits:
        manifest = config_map(name, data)
        manifest["metadata"]["labels"] = labels
        # Replaced, not applied, so that what an edit leaves out is gone.
        states.append(await alpha.apply(manifest, "replace" if states else "create"))
    await _returns(alpha, f"alpha:configmaps:{SPACE}:{name}", "configmap", name, states, choose)


@HYPOTHESIS
@given(edits=ROLLOUTS, choose=st.data())
async def test_any_edits_of_a_deployment_rolled_back_to_any_version_give_that_content(
    alpha, edits, choose
) -> None:
    name = alpha.name()
    states: list[dict[str, Any]] = []
    for image, replicas, environment in edits:
        manifest = deployment(name, image, replicas, **environment)
        states.append(await alpha.apply(manifest, "replace" if states else "create"))
    await _returns(alpha, f"alpha:deployments.apps:{SPACE}:{name}", "deployment", name, states, choose)


async def test_what_a_rule_of_the_cluster_leaves_out_stays_as_it_is_whenever_the_version_was_made(
    alpha,
) -> None:
    """An autoscaler's replicas: a rollback of the image that set them to what they were would be an outage."""
    name, policy = alpha.name(), f"{YAML}/policies/alpha"
    id_ = f"alpha:deployments.apps:{SPACE}:{name}"
    before = await alpha.apply(deployment(name, "web:1", 1), "create")
    await alpha.recorded(id_, 1)
    rule = {"types": "deployments.apps", "paths": [["spec", "replicas"]]}
    set_ = await alpha.kubelore.http.put(policy, json={"rules": [rule]})
    assert set_.status_code == 200, set_.text
    try:
        under = await alpha.apply(deployment(name, "web:2", 2), "replace")
        await alpha.apply(deployment(name, "web:3", 0), "replace")
        await alpha.recorded(id_, 3)
        for wanted, image in ((under, "web:2"), (before, "web:1")):
            number = await alpha.version_at(id_, wanted["metadata"]["resourceVersion"])
            preview = await alpha.roll_back(id_, number, dry_run=True)
            assert "replicas" not in preview.json()["diff_content"]
            answer = await alpha.roll_back(id_, number, reason="back")
            assert answer.status_code == 200, answer.text
            spec = (await alpha.live("deployment", name))["spec"]
            assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (0, image)
    finally:
        await alpha.kubelore.http.delete(policy)


async def _returns(alpha: Cluster, id_: str, kind: str, name: str, states, choose) -> None:
    # Of one type everything is recorded in order, so that before the mark all is in.
    mark = {**states[0], "metadata": {"name": f"{name}-mark", "namespace": SPACE}}
    await alpha.apply({key: value for key, value in mark.items() if key != "status"}, "create")
    await alpha.recorded(f"{id_}-mark", 1)
    # By its place: what the API server answers is another thing in each run.
    wanted = states[choose.draw(st.integers(0, len(states) - 1))]
    number = await alpha.version_at(id_, wanted["metadata"]["resourceVersion"])
    preview = await alpha.roll_back(id_, number, dry_run=True)
    assert preview.status_code == 200, preview.text
    answer = await alpha.roll_back(
        id_, number, expected={"content_hash": preview.json()["content_hash"]}, reason="property"
    )
    assert answer.status_code == 200, answer.text
    assert meant(await alpha.live(kind, name)) == meant(wanted)
    again = (await alpha.roll_back(id_, number, dry_run=True)).json()
    assert (again["method"], again["diff_content"]) == ("none", "")


def meant(found: dict[str, Any]) -> dict[str, Any]:
    """What somebody asked for of an object, as the API server holds it."""
    metadata = {key: found["metadata"].get(key) for key in ("name", "labels")}
    annotations = found["metadata"].get("annotations") or {}
    own = {
        key: value for key, value in annotations.items() if not key.startswith("deployment.kubernetes.io/")
    }
    rest = {key: value for key, value in found.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": metadata, "annotations": own}


async def test_a_rollback_shows_first_what_it_changes_and_is_a_version_of_its_caller(alpha) -> None:
    id_ = f"alpha:configmaps:{SPACE}:shown"
    await alpha.apply(config_map("shown", {"text": "old", "gone": "1"}))
    changed = await alpha.apply(config_map("shown", {"text": "new"}))
    await alpha.recorded(id_, 2)
    preview = (await alpha.roll_back(id_, 1, dry_run=True)).json()
    assert (preview["method"], preview["operation"]) == ("replace", "")
    assert preview["resource_version"] == changed["metadata"]["resourceVersion"]
    assert {(one["path"], one.get("old"), one.get("new")) for one in preview["changes"]} == {
        ("data.text", "new", "old"),
        ("data.gone", None, "1"),
    }
    assert "-  text: new" in preview["diff_content"]
    assert (await alpha.live("configmap", "shown"))["data"] == {"text": "new"}
    answer = (await alpha.roll_back(id_, 1, reason="it was better before")).json()
    live = await alpha.live("configmap", "shown")
    assert live["data"] == {"text": "old", "gone": "1"}
    assert answer["new_resource_version"] == live["metadata"]["resourceVersion"]
    # kubectl goes on from what it applied last, which is no part of any version.
    assert "last-applied-configuration" in str(live["metadata"]["annotations"])

    async def attributed() -> bool:
        newest = (await alpha.versions(id_))[0]
        return (newest["version"], newest["created_by"]) == (3, "admin")

    await wait_for(attributed, "the rollback to be a version of the administrator", 20)
    newest = (await alpha.versions(id_))[0]
    assert newest["change_log"] == "it was better before"
    assert newest["operation_id"] == answer["operation"]
    drift = (
        await alpha.kubelore.http.get(f"{YAML}/versions/{id_}/diff", params={"from": 2, "to": "live"})
    ).json()
    assert {one["path"] for one in drift["changes"]} == {"data.text", "data.gone"}


async def test_what_changed_since_the_preview_is_not_overwritten_unless_told(alpha) -> None:
    id_ = f"alpha:configmaps:{SPACE}:raced"
    await alpha.apply(config_map("raced", {"n": "1"}))
    await alpha.apply(config_map("raced", {"n": "2"}))
    await alpha.recorded(id_, 2)
    preview = (await alpha.roll_back(id_, 1, dry_run=True)).json()
    await alpha.apply(config_map("raced", {"n": "3"}))
    for expected in ("resource_version", "content_hash"):
        refused = await alpha.roll_back(id_, 1, expected={expected: preview[expected]})
        assert refused.status_code == 409, refused.text
        assert refused.json()["code"] == "changed-since-preview"
        assert refused.json()["remedy"]
    assert (await alpha.live("configmap", "raced"))["data"] == {"n": "3"}
    forced = await alpha.roll_back(id_, 1, expected={"content_hash": preview["content_hash"]}, force=True)
    assert forced.status_code == 200, forced.text
    assert (await alpha.live("configmap", "raced"))["data"] == {"n": "1"}


async def test_what_was_deleted_is_made_anew_and_deleted_again_only_when_told(alpha) -> None:
    id_ = f"alpha:services:{SPACE}:back"
    ports = [{"port": 80, "targetPort": 8080}]
    metadata = {"name": "back", "namespace": SPACE}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}
    made = await alpha.apply(manifest, "create")
    await alpha.recorded(id_, 1)
    await alpha.kubectl("delete", "service", "back", "-n", SPACE)
    await alpha.recorded(id_, 2)
    preview = (await alpha.roll_back(id_, 1, dry_run=True)).json()
    assert (preview["method"], preview["recreates"], preview["refusal"]) == ("create", True, None)
    answer = await alpha.roll_back(id_, 1, expected={"content_hash": preview["content_hash"]})
    assert answer.status_code == 200, answer.text
    live = await alpha.live("service", "back")
    assert live["spec"] == made["spec"]
    assert live["metadata"]["uid"] == answer.json()["uid"] != made["metadata"]["uid"]
    refused = await alpha.roll_back(id_, 2)
    assert (refused.status_code, refused.json()["code"]) == (400, "deleted-version")
    assert (await alpha.roll_back(id_, 2, delete=True)).json()["method"] == "delete"
    assert "back" not in await alpha.kubectl("get", "services", "-n", SPACE, "-o", "name")


async def test_an_address_that_somebody_else_has_by_now_is_given_anew(alpha) -> None:
    id_ = f"alpha:services:{SPACE}:moved"
    spec: dict[str, Any] = {"ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": "moved", "namespace": SPACE}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    made = await alpha.apply(manifest, "create")
    await alpha.recorded(id_, 1)
    await alpha.kubectl("delete", "service", "moved", "-n", SPACE)
    await alpha.recorded(id_, 2)
    taken = {**spec, "clusterIP": made["spec"]["clusterIP"]}
    await alpha.apply({**manifest, "metadata": {**metadata, "name": "taker"}, "spec": taken}, "create")
    answer = await alpha.roll_back(id_, 1)
    assert answer.status_code == 200, answer.text
    assert any(one.startswith("cluster-ip") for one in answer.json()["notes"])
    live = await alpha.live("service", "moved")
    assert live["spec"]["clusterIP"] != made["spec"]["clusterIP"]


async def test_a_field_that_cannot_be_changed_is_named_with_what_would_help(alpha) -> None:
    id_ = f"alpha:deployments.apps:{SPACE}:stuck"
    await alpha.apply(deployment("stuck", "web:1"), "create")
    await alpha.recorded(id_, 1)
    await alpha.kubectl("delete", "deployment", "stuck", "-n", SPACE)
    other = deployment("stuck", "web:1")
    other["spec"]["selector"]["matchLabels"] = {"app": "another"}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "another"}
    await alpha.apply(other, "create")
    await alpha.recorded(id_, 3)
    preview = (await alpha.roll_back(id_, 1, dry_run=True)).json()
    assert preview["refusal"]["fields"] == ["spec.selector"]
    assert "Delete the object" in preview["refusal"]["remedy"]
    refused = await alpha.roll_back(id_, 1)
    assert (refused.status_code, refused.json()["fields"]) == (422, ["spec.selector"])
    await alpha.kubectl("delete", "deployment", "stuck", "-n", SPACE)
    assert (await alpha.roll_back(id_, 1)).status_code == 200
    assert (await alpha.live("deployment", "stuck"))["spec"]["selector"] == {"matchLabels": {"app": "stuck"}}


async def test_a_secret_is_rolled_back_with_its_values_by_who_has_the_right_and_shows_none(alpha) -> None:
    id_ = f"alpha:secrets:{SPACE}:login"
    await alpha.kubectl(
        "create", "secret", "generic", "login", "-n", SPACE, "--from-literal=password=c4nary-one"
    )
    await alpha.kubectl(
        "patch", "secret", "login", "-n", SPACE, "-p", '{"stringData":{"password":"c4nary-two","user":"u"}}'
    )
    await alpha.recorded(id_, 2)
    async with alpha.caller("no-secrets", role="operator") as operator:
        refused = await alpha.roll_back(id_, 1, operator)
        assert refused.status_code == 403, refused.text
        assert (await alpha.roll_back(id_, 1, operator, dry_run=True)).status_code == 403
    answers = []
    async with alpha.caller("with-secrets", role="operator", rights=["secrets"]) as operator:
        answers.append(await alpha.roll_back(id_, 1, operator, dry_run=True))
        answers.append(await alpha.roll_back(id_, 1, operator))
    assert [one.status_code for one in answers] == [200, 200], answers[-1].text
    assert {one["path"] for one in answers[0].json()["changes"]} == {"data.password", "data.user"}
    data = (await alpha.live("secret", "login"))["data"]
    assert {key: base64.b64decode(value) for key, value in data.items()} == {"password": b"c4nary-one"}
    for answer in answers:
        assert "c4nary" not in answer.text
        assert "YzRuYXJ5" not in answer.text


async def test_nobody_rolls_back_what_they_might_not_write_by_hand(alpha) -> None:
    mine, other = f"alpha:configmaps:{SPACE}:guarded", f"alpha:configmaps:{OTHER}:guarded"
    for space, id_ in ((SPACE, mine), (OTHER, other)):
        await alpha.apply(config_map("guarded", {"n": "1"}, space))
        await alpha.apply(config_map("guarded", {"n": "2"}, space))
        await alpha.recorded(id_, 2)
    quota, body = f"alpha:resourcequotas:{SPACE}:quota", {"hard": {"pods": "1000"}}
    metadata = {"name": "quota", "namespace": SPACE}
    for pods in ("1000", "2000"):
        body["hard"]["pods"] = pods
        await alpha.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": body})
    await alpha.recorded(quota, 2)
    async with alpha.caller("looking", role="viewer") as viewer:
        assert (await alpha.roll_back(mine, 1, viewer)).status_code == 403
        assert (await alpha.roll_back(mine, 1, viewer, dry_run=True)).status_code == 403
        at = {"cluster": "alpha", "namespace": SPACE, "at": "2026-01-01"}
        assert (await viewer.post(f"{YAML}/snapshot/rollback", json=at)).status_code == 403
    async with alpha.caller("working", role="operator") as operator:
        assert (await alpha.roll_back(other, 1, operator)).status_code == 404
        assert (await alpha.roll_back(quota, 1, operator)).status_code == 403
        assert (await alpha.roll_back(mine, 1, operator)).status_code == 200
    assert (await alpha.live("configmap", "guarded", OTHER))["data"] == {"n": "2"}
    await alpha.kubectl("delete", "resourcequota", "quota", "-n", SPACE)


async def test_a_namespace_is_brought_back_to_what_it_held_as_one_plan(alpha) -> None:
    space = "brought-back"
    await alpha.kubectl("create", "namespace", space)
    kept, lost = config_map("kept", {"n": "1"}, space), config_map("lost", {"n": "1"}, space)
    workload = deployment("web", "web:1", 1)
    workload["metadata"]["namespace"] = space
    for one in (kept, lost, workload):
        await alpha.apply(one, "create")
    ids = {name: f"alpha:configmaps:{space}:{name}" for name in ("kept", "lost", "added")}
    pods = await _first_pod(alpha, space)
    await alpha.recorded(f"alpha:pods:{space}:{pods}", 1)
    at = datetime.now(UTC).isoformat()
    await alpha.apply(config_map("kept", {"n": "2"}, space), "replace")
    await alpha.kubectl("delete", "configmap", "lost", "-n", space)
    await alpha.apply(config_map("added", {}, space), "create")
    await alpha.kubectl("delete", "deployment", "web", "-n", space, "--cascade=foreground", "--wait")
    for name, number in (("kept", 2), ("lost", 2), ("added", 1)):
        await alpha.recorded(ids[name], number)
    await alpha.recorded(f"alpha:pods:{space}:{pods}", 2)
    await alpha.recorded(f"alpha:deployments.apps:{space}:web", 2)
    told = {"cluster": "alpha", "namespace": space, "from": at}
    diff = (await alpha.kubelore.http.get(f"{YAML}/snapshot/diff", params={**told, "limit": 200})).json()
    changes = {one["id"]: one["change"] for one in diff["items"]}
    assert [changes[ids[name]] for name in ("kept", "lost", "added")] == ["changed", "removed", "added"]

    body = {"cluster": "alpha", "namespace": space, "at": at, "reason": "as it was"}
    dry = await alpha.kubelore.http.post(f"{YAML}/snapshot/rollback", json={**body, "dry_run": True})
    assert dry.status_code == 200, dry.text
    steps = {one["id"]: one["step"] for one in dry.json()["items"]}
    assert [steps[ids[name]] for name in ("kept", "lost", "added")] == ["replace", "create", "delete"]
    assert steps[f"alpha:deployments.apps:{space}:web"] == "create"
    assert steps[f"alpha:pods:{space}:{pods}"] == "leave"
    assert not [one for one in dry.json()["items"] if one["refusal"]]
    assert (await alpha.live("configmap", "kept", space))["data"] == {"n": "2"}

    await alpha.apply(config_map("kept", {"n": "3"}, space), "replace")
    stale = await alpha.kubelore.http.post(
        f"{YAML}/snapshot/rollback", json={**body, "expected": dry.json()["plan"]}
    )
    assert (stale.status_code, stale.json()["code"]) == (409, "changed-since-preview")
    plan = (
        await alpha.kubelore.http.post(f"{YAML}/snapshot/rollback", json={**body, "dry_run": True})
    ).json()
    done = await alpha.kubelore.http.post(
        f"{YAML}/snapshot/rollback", json={**body, "expected": plan["plan"]}
    )
    assert done.status_code == 200, done.text
    assert not [one for one in done.json()["items"] if one["error"] or one["skipped"]]
    found = json.loads(await alpha.kubectl("get", "configmaps", "-n", space, "-o", "json"))["items"]
    data = {one["metadata"]["name"]: one.get("data") for one in found if one["metadata"]["name"] in ids}
    assert data == {"kept": {"n": "1"}, "lost": {"n": "1"}}
    live = await alpha.live("deployment", "web", space)
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1"
    await alpha.kubectl("delete", "namespace", space, "--wait=false")


async def _first_pod(alpha: Cluster, space: str) -> str:
    found: list[str] = []

    async def there() -> bool:
        found[:] = (await alpha.kubectl("get", "pods", "-n", space, "-o", "name")).split()
        return bool(found)

    await wait_for(there, "the controller to make a pod", 30)
    return found[0].removeprefix("pod/")


async def test_what_was_there_before_anybody_looked_is_not_taken_for_made_since(alpha) -> None:
    # The service of the API server is older than Kubelore's first look at the cluster.
    body = {"cluster": "alpha", "namespace": "default", "at": "2026-01-01", "dry_run": True}
    answer = await alpha.kubelore.http.post(f"{YAML}/snapshot/rollback", json=body)
    assert answer.status_code == 200, answer.text
    told = {one["id"]: (one["step"], one["why"].partition(":")[0]) for one in answer.json()["items"]}
    # Other tests may have made something here since, which a rollback rightly takes away.
    assert told["alpha:services:default:kubernetes"] == ("leave", "not-known")


async def test_a_namespace_that_was_deleted_comes_back_with_what_it_held(alpha) -> None:
    space = "lost-and-found"
    await alpha.kubectl("create", "namespace", space)
    await alpha.apply(config_map("inside", {"n": "1"}, space), "create")
    inside = f"alpha:configmaps:{space}:inside"
    await alpha.recorded(inside, 1)
    await alpha.recorded(f"alpha:namespaces::{space}", 1)
    at = datetime.now(UTC).isoformat()
    await alpha.kubectl("delete", "namespace", space, "--wait")
    await alpha.recorded(inside, 2)
    body = {"cluster": "alpha", "namespace": space, "at": at}
    answer = await alpha.kubelore.http.post(f"{YAML}/snapshot/rollback", json=body)
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert (items[0]["id"], items[0]["step"]) == (f"alpha:namespaces::{space}", "create")
    assert not [one for one in items if one["error"]], answer.text
    assert (await alpha.live("configmap", "inside", space))["data"] == {"n": "1"}
    await alpha.kubectl("delete", "namespace", space, "--wait=false")


async def test_yaml_is_applied_document_by_document_and_its_change_log_recorded(alpha) -> None:
    texts = [json.dumps(config_map(name, {"n": "1"})) for name in ("first", "second")]
    body = {"content": "\n---\n".join(texts), "clusters": ["alpha"], "change_log": "two maps\nfor the shop"}
    tried = (await alpha.kubelore.http.post(f"{YAML}/apply", json={**body, "dry_run": True})).json()
    assert [one["result"] for one in tried["results"]] == ["created", "created"]
    answer = (await alpha.kubelore.http.post(f"{YAML}/apply", json=body)).json()
    assert (answer["succeeded"], answer["failed"]) == (2, 0)

    async def logged() -> bool:
        found = [await alpha.versions(f"alpha:configmaps:{SPACE}:{name}") for name in ("first", "second")]
        return all(one and one[0]["change_log"] == "two maps\nfor the shop" for one in found)

    await wait_for(logged, "the change log to stand in both histories", 20)
