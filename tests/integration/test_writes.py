"""Two real clusters changed as one, by requests and by the command line, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.bus import Feed, connect
from kubelore.common.contracts.changes import Applied
from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

NAMESPACE = "written"
BATCH = "/api/k8s/unified/batch"


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"containers": [{"name": "web", "image": "example.invalid/web:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            **spec,
        },
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Fleet:
    """Both clusters of the pair, as `west` and `east`."""

    def __init__(self, kubelore, planes: dict[str, Any]) -> None:
        self.kubelore = kubelore
        self.planes = planes

    async def batch(self, *operations: dict[str, Any], **more: Any) -> dict[str, Any]:
        answer = await self.kubelore.http.post(BATCH, json={"operations": operations, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def one(self, operation: dict[str, Any], **more: Any) -> dict[str, Any]:
        (result,) = (await self.batch(operation, **more))["results"]
        return result

    async def live(self, cluster: str, what: str, *more: str) -> dict[str, Any]:
        said = await self.planes[cluster].kubectl()("get", what, "-n", NAMESPACE, "-o", "json", *more)
        return json.loads(said)

    def cli(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBELORE_URL": self.kubelore.url, "KUBELORE_TOKEN": self.kubelore.token}
        return subprocess.run(
            [sys.executable, "-m", "kubelore.cli", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=False,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(kubelore, lab_pair):
    planes = {"west": lab_pair.first, "east": lab_pair.second}
    for name, plane in planes.items():
        await plane.kubectl()("create", "namespace", NAMESPACE)
        await kubelore.onboard(name, plane.kubeconfig(), group="coast")
    yield Fleet(kubelore, planes)
    for name in planes:
        await kubelore.remove(name)


async def test_one_manifest_goes_to_every_cluster_of_a_group_and_is_there_at_the_version_told(fleet) -> None:
    text = "---\n".join(json.dumps(one) + "\n" for one in (config_map("both", a="1"), deployment("web")))
    report = await fleet.batch({"action": "apply", "clusters": ["group:coast"], "manifest": text})
    assert (report["succeeded"], report["failed"]) == (4, 0)
    for result in report["results"]:
        got = await fleet.kubelore.http.get(
            f"/api/k8s/unified/resources/{result['id']}", params={"at_least": result["rv"]}
        )
        assert got.status_code == 200, got.text
        assert got.json()["object"]["metadata"]["uid"] == result["uid"]
    for cluster in fleet.planes:
        live = await fleet.live(cluster, "configmap/both", "--show-managed-fields")
        assert [entry["manager"] for entry in live["metadata"]["managedFields"]] == ["kubelore"]


async def test_a_conflict_with_kubectl_names_it_with_its_fields_and_force_takes_them(fleet) -> None:
    manifest = json.dumps(deployment("owned", replicas=2))
    await fleet.planes["west"].kubectl()("create", "-f", "-", stdin=manifest)
    operation = {"action": "apply", "cluster": "west", "manifest": deployment("owned", replicas=5)}
    error = (await fleet.one(operation))["error"]
    assert error["status"] == 409
    (owner,) = error["conflicts"]
    assert (owner["manager"], owner["operation"]) == ("kubectl-create", "Update")
    assert owner["fields"] == ["spec.replicas"]
    assert owner["at"]
    forced = await fleet.one({**operation, "force": True})
    assert {change["path"]: (change["old"], change["new"]) for change in forced["changes"]} == {
        "spec.replicas": (2, 5)
    }


async def test_a_dry_run_changes_nothing_anywhere(fleet) -> None:
    await fleet.batch({"action": "apply", "clusters": ["west", "east"], "manifest": config_map("dry", a="1")})
    before = {cluster: await fleet.live(cluster, "configmap/dry") for cluster in fleet.planes}
    report = await fleet.batch(
        {"action": "apply", "clusters": ["west", "east"], "manifest": config_map("dry", a="2")},
        {"action": "delete", "id": f"west:configmaps:{NAMESPACE}:dry"},
        {"action": "label", "id": f"east:configmaps:{NAMESPACE}:dry", "labels": {"x": "y"}},
        dry_run=True,
    )
    assert report["succeeded"] == 4
    assert report["results"][0]["changes"] == [{"path": "data.a", "old": "1", "new": "2"}]
    assert {cluster: await fleet.live(cluster, "configmap/dry") for cluster in fleet.planes} == before


async def test_a_delete_spares_what_is_no_longer_the_same(fleet) -> None:
    made = await fleet.one({"action": "apply", "cluster": "east", "manifest": config_map("doomed")})
    wrong = await fleet.one({"action": "delete", "id": made["id"], "uid": "0"})
    assert wrong["error"]["status"] == 409
    right = await fleet.one({"action": "delete", "id": made["id"], "uid": made["uid"], "rv": made["rv"]})
    assert (right["ok"], right["result"]) == (True, "deleted")


async def test_scale_and_restart_reach_the_workload_and_others_are_refused_by_name(fleet) -> None:
    made = await fleet.one({"action": "apply", "cluster": "west", "manifest": deployment("moving")})
    scaled = await fleet.one({"action": "scale", "id": made["id"], "replicas": 3})
    assert scaled["changes"] == [{"path": "spec.replicas", "old": 1, "new": 3}]
    restarted = await fleet.one({"action": "restart", "id": made["id"]})
    assert restarted["ok"]
    live = await fleet.live("west", "deployment/moving")
    assert live["spec"]["replicas"] == 3
    assert "kubectl.kubernetes.io/restartedAt" in live["spec"]["template"]["metadata"]["annotations"]

    async def rolled() -> bool:
        return len((await fleet.live("west", "replicasets", "-l", "app=moving"))["items"]) == 2

    await wait_for(rolled, "the controller to roll the deployment", 30)
    flat = await fleet.one({"action": "apply", "cluster": "west", "manifest": config_map("flat")})
    for action in ({"action": "restart"}, {"action": "scale", "replicas": 1}):
        error = (await fleet.one({**action, "id": flat["id"]}))["error"]
        assert (error["status"], "configmaps" in error["detail"]) == (501, True)


async def test_of_a_secret_no_value_comes_back_neither_as_a_change_nor_in_an_error(fleet) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key", "namespace": NAMESPACE},
        "stringData": {"password": "correct-horse-battery"},
    }
    await fleet.one({"action": "apply", "cluster": "west", "manifest": secret})
    secret["stringData"] = {"password": "correct-horse-staple"}
    changed = await fleet.one({"action": "apply", "cluster": "west", "manifest": secret})
    assert changed["changes"] == [{"path": "data.password", "old": None, "new": None, "hidden": True}]
    broken = {**secret, "stringData": {"password": 123456789}}
    failed = await fleet.one({"action": "apply", "cluster": "west", "manifest": broken})
    assert failed["error"]["status"] in (400, 422, 500, 502)
    for result in (changed, failed):
        assert "123456789" not in json.dumps(result)
        assert "correct-horse" not in json.dumps(result)


async def test_what_a_batch_did_is_told_on_the_change_stream_and_found_by_its_operation(fleet) -> None:
    bus = await connect(fleet.kubelore.bus_settings(), name="witness")
    told: list[Applied] = []
    feed = Feed(bus)

    async def follow(position: str) -> None:
        async for _, record in feed.follow(position):
            if isinstance(record, Applied):
                told.append(record)

    following = asyncio.create_task(follow(await feed.position()))
    report = await fleet.batch(
        {"action": "apply", "clusters": ["west", "east"], "manifest": config_map("told", a="1")},
        {"action": "restart", "id": f"west:configmaps:{NAMESPACE}:nowhere"},
        reason="the reason",
    )
    done = {(one["uid"], one["rv"], one["operation"]) for one in report["results"] if one["ok"]}

    async def arrived() -> bool:
        return done <= {(one.uid, one.rv, one.operation_id) for one in told}

    await wait_for(arrived, "both writes on the stream", 20)
    assert {(one.actor, one.reason) for one in told} == {("admin", "the reason")}
    recorded = (await fleet.kubelore.http.get(f"/api/k8s/operations/{report['operation']}")).json()["items"]
    assert [(one["state"], one["action"]) for one in recorded] == [("done", "apply"), ("done", "apply")]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await bus.close()


async def test_namespaces_and_definitions_are_there_before_what_needs_them(fleet) -> None:
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fresh"}}]
    made += [
        {**config_map(f"n{number}"), "metadata": {"name": f"n{number}", "namespace": "fresh"}}
        for number in range(8)
    ]
    text = "---\n".join(json.dumps(one) + "\n" for one in made)
    report = await fleet.batch({"action": "apply", "clusters": ["group:coast"], "manifest": text})
    assert (report["succeeded"], report["failed"]) == (18, 0), report


def test_the_command_line_applies_labels_scales_patches_and_deletes_with_exit_codes(
    fleet, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps(config_map("typed", a="1")))
    (tmp_path / "b.yml").write_text(json.dumps(deployment("typed")))
    (tmp_path / "notes.txt").write_text("no manifest")
    refused = fleet.cli("apply", "-f", str(tmp_path), "-c", "west,east")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    applied = fleet.cli("apply", "-f", str(tmp_path), "-c", "west,east", "--yes", "--reason", "by hand")
    assert applied.returncode == 0, applied.stderr
    assert f"west: configmaps/typed in {NAMESPACE} created" in applied.stdout.splitlines()
    piped = fleet.cli(
        "apply", "-f", "-", "-c", "west", "--diff", "--dry-run", stdin=json.dumps(config_map("typed", a="2"))
    )
    assert '~ data.a: "1" -> "2"' in piped.stdout
    assert "changed (dry run)" in piped.stdout
    where = ("-n", NAMESPACE, "-c", "west")
    assert fleet.cli("label", "cm", "typed", "tier=front", *where).returncode == 0
    taken = fleet.cli("label", "cm", "typed", "tier=back", *where)
    assert (taken.returncode, "tier (in labels)" in taken.stderr) == (1, True)
    assert fleet.cli("annotate", "cm/typed", "note=x", "other-", *where).returncode == 0
    assert fleet.cli("scale", "deploy/typed", "--replicas", "2", *where).returncode == 0
    assert fleet.cli("rollout", "restart", "deploy/typed", *where).returncode == 0
    patched = fleet.cli("patch", "cm", "typed", "-p", '{"data":{"b":"2"}}', "--diff", *where, "-o", "json")
    assert json.loads(patched.stdout)["results"][0]["changes"] == [{"path": "data.b", "new": "2"}]
    gone = fleet.cli("delete", "cm,deploy", "typed", *where, "-o", "name")
    assert sorted(gone.stdout.split()) == [
        f"west:configmaps:{NAMESPACE}:typed",
        f"west:deployments.apps:{NAMESPACE}:typed",
    ]
    assert fleet.cli("delete", "cm", "typed", *where).returncode == 1
    east = ("-n", NAMESPACE, "-c", "east")
    named = fleet.cli("delete", "-f", str(tmp_path), *east, "-o", "name")
    assert sorted(named.stdout.split()) == [
        f"east:configmaps:{NAMESPACE}:typed",
        f"east:deployments.apps:{NAMESPACE}:typed",
    ]
    again = fleet.cli("delete", "-f", str(tmp_path / "a.yaml"), *east)
    assert (again.returncode, "there is no" in again.stderr) == (1, True)
    assert fleet.cli("delete", *east).returncode == 2
