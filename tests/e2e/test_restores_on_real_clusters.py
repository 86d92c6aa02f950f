"""What a backup of one real cluster holds is there again in another, and only what must differ does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
import yaml

from kubelore.common.backups import BackupReader, LocalFolder, Record, with_values
from kubelore.common.crypto import Keyring
from kubelore.lab.waiting import wait_for
from kubelore.stack.layout import DataDirectory

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SHOP = "restored-shop"
CANARY = "c4nary-of-a-password"
CRD = "widgets.restores.example.org"

TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "none"}]},
}
SELECTOR = {"matchLabels": {"app": "web"}}


def manifest(api_version: str, kind: str, name: str, namespace: str = SHOP, **body: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **body.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def crd() -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": "restores.example.org", "scope": "Namespaced", "names": names, "versions": [version]}
    return manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", CRD, "", spec=spec)


FURNITURE = [
    manifest("v1", "Namespace", SHOP, "", metadata={"labels": {"team": "shop"}}),
    crd(),
    manifest("v1", "ConfigMap", "motd", data={"text": "hello"}, binaryData={"raw": "AAEC"}),
    manifest("v1", "Secret", "login", stringData={"password": CANARY}, type="Opaque"),
    manifest("v1", "ServiceAccount", "worker"),
    manifest(
        "rbac.authorization.k8s.io/v1",
        "Role",
        "reader",
        rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    ),
    manifest(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "reader",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        subjects=[
            {"kind": "ServiceAccount", "name": "worker", "namespace": SHOP},
            {
                "kind": "Group",
                "apiGroup": "rbac.authorization.k8s.io",
                "name": f"system:serviceaccounts:{SHOP}",
            },
        ],
    ),
    manifest(
        "v1", "Service", "web", spec={"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}
    ),
    manifest(
        "v1",
        "Service",
        "db",
        spec={"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 5432}]},
    ),
    manifest(
        "apps/v1", "Deployment", "web", spec={"replicas": 2, "selector": SELECTOR, "template": TEMPLATE}
    ),
    manifest(
        "apps/v1",
        "StatefulSet",
        "db",
        spec={
            "serviceName": "db",
            "selector": SELECTOR,
            "template": TEMPLATE,
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Gi"}},
                        "storageClassName": "none",
                    },
                }
            ],
        },
    ),
    manifest(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "web",
        spec={
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ],
        },
    ),
    manifest(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "own",
        spec={
            "podSelector": {},
            "ingress": [
                {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SHOP}}}]}
            ],
        },
    ),
    manifest(
        "batch/v1",
        "Job",
        "once",
        spec={
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "none"}]}}
        },
    ),
    manifest("v1", "ResourceQuota", "most", spec={"hard": {"configmaps": "3000"}}),
]
WIDGETS = [
    manifest("restores.example.org/v1", "Widget", f"w{number}", spec={"size": number}) for number in range(3)
]

MAY_DIFFER: dict[str, set[str]] = {
    "*": {
        "metadata.uid",
        "metadata.resourceVersion",
        "metadata.creationTimestamp",
        "metadata.generation",
        "metadata.managedFields",
        "status",
        "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
    },
    "services": {"spec.clusterIP", "spec.clusterIPs", "spec.ports.0.nodePort"},
    "jobs.batch": {
        "spec.selector.matchLabels.batch.kubernetes.io/controller-uid",
        "spec.template.metadata.labels.batch.kubernetes.io/controller-uid",
        "spec.template.metadata.labels.controller-uid",
        "metadata.labels.batch.kubernetes.io/controller-uid",
        "metadata.labels.controller-uid",
    },
    "deployments.apps": {"metadata.annotations.deployment.kubernetes.io/revision"},
}
"""Where an object that was restored may differ from the one that was backed up, by type; nowhere else."""
MADE_ANEW = {
    "configmaps": "kube-root-ca.crt",
    "serviceaccounts": "default",
}
"""What each cluster makes itself: it is in both backups, and is not compared."""
BY_CONTROLLERS = {"pods", "replicasets.apps", "controllerrevisions.apps"}
"""Controllers make these anew under other names; how many there are is compared."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clusters(kubelore, lab_pair) -> AsyncIterator[tuple[Any, Any]]:
    """Two real clusters, the first with everything that is backed up."""
    first, second = lab_pair.first.kubectl(), lab_pair.second.kubectl()
    await kubelore.onboard("alpha", lab_pair.first.kubeconfig())
    await kubelore.onboard("beta", lab_pair.second.kubeconfig())
    await apply(first, FURNITURE)
    await first("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
    await apply(first, WIDGETS)
    await wait_for(lambda: _settled(first), "the controllers to have made what they make", 60)
    yield first, second
    for kubectl in (first, second):
        await kubectl("delete", "namespace", SHOP, "--ignore-not-found", "--wait=false")
        await kubectl("delete", "crd", CRD, "--ignore-not-found", "--wait=false")
    for name in ("alpha", "beta"):
        await kubelore.remove(name)


async def apply(kubectl: Any, manifests: list[dict[str, Any]]) -> None:
    await kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))


async def _settled(kubectl: Any) -> bool:
    pods = json.loads(await kubectl("get", "pods", "-n", SHOP, "-o", "json"))["items"]
    claims = json.loads(await kubectl("get", "pvc", "-n", SHOP, "-o", "json"))["items"]
    return len(pods) == 4 and len(claims) == 1


async def back_up(kubelore, cluster: str, namespaces: list[str], **more: Any) -> str:
    body = {"clusters": [cluster], "namespaces": namespaces, **more}
    answer = await kubelore.http.post("/api/k8s/yaml/backup/create", json=body)
    assert answer.status_code == 202, answer.text
    id_ = answer.json()["id"]

    async def made() -> bool:
        found = (await kubelore.http.get(f"/api/k8s/yaml/backup/{id_}")).json()
        assert found["status"] not in ("failed", "cancelled"), found
        return found["status"] == "completed"

    await wait_for(made, "the backup to be made", 60)
    return id_


async def begin(kubelore, backup: str, **asked: Any) -> str:
    body = {"backup_id": backup, **asked}
    answer = await kubelore.http.post("/api/k8s/yaml/backup/restore", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def ended(kubelore, id_: str, seconds: float = 120) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        answer = await kubelore.http.get(f"/api/k8s/yaml/restore/{id_}")
        found = answer.json() if answer.status_code == 200 else {"state": ""}
        return found if found["state"] in ("completed", "failed", "cancelled") else None

    return await wait_for(over, "the restore to end", seconds)


async def restored(kubelore, backup: str, **asked: Any) -> dict[str, Any]:
    return await ended(kubelore, await begin(kubelore, backup, **asked))


async def items(kubelore, id_: str, result: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 500, **({"result": result} if result else {})}
    while True:
        page = (await kubelore.http.get(f"/api/k8s/yaml/restore/{id_}/items", params=query)).json()
        found += page["items"]
        if not page["continue"]:
            return found
        query["continue"] = page["continue"]


async def held(kubelore, backup: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a backup with their values, by type and name, as its files hold them."""
    directory = DataDirectory(kubelore.data)
    keyring = Keyring.load(directory.keyring / "versions.json")
    reader = await BackupReader.open(LocalFolder(directory.blobs / "backups" / backup), keyring, backup)
    records: list[Record] = [record async for record in reader.records()]
    return {(one.type, one.name): json.loads(with_values(one, keyring)) for one in records}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its path; an empty map is as good as none."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if members is None:
        return {path: value}
    found: dict[str, Any] = {}
    for name, member in members:
        found |= flat(member, f"{path}.{name}".lstrip("."))
    return found


def differing(type_name: str, one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Paths where two objects differ though they must not."""
    before, after = flat(one), flat(other)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    allowed = MAY_DIFFER["*"] | MAY_DIFFER.get(type_name, set())
    return {path for path in paths if not any(path == may or path.startswith(f"{may}.") for may in allowed)}


def compared(found: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (type_name, name): one
        for (type_name, name), one in found.items()
        if type_name not in BY_CONTROLLERS and MADE_ANEW.get(type_name) != name
    }


async def test_a_backup_taken_under_change_is_restored_into_an_empty_cluster_and_backed_up_again_equal(
    kubelore, clusters
) -> None:
    first, second = clusters

    async def change() -> None:
        for number in range(1000):
            await first("annotate", "configmap", "motd", "-n", SHOP, f"turn={number}", "--overwrite")

    changing = asyncio.create_task(change())
    try:
        backup = await back_up(kubelore, "alpha", [SHOP])
        whole = await back_up(kubelore, "alpha", [], types=["customresourcedefinitions"])
    finally:
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
    first_of_all = await restored(kubelore, whole, cluster="beta", names=[CRD], reason="move the shop")
    assert first_of_all["counts"]["created"] == 1, first_of_all
    done = await restored(kubelore, backup, cluster="beta", reason="move the shop")
    assert (done["state"], done["counts"]["failed"]) == ("completed", 0), await items(
        kubelore, done["id"], "failed"
    )
    await wait_for(lambda: _settled(second), "the controllers to have made what they make", 60)

    again = await back_up(kubelore, "beta", [SHOP])
    before, after = await held(kubelore, backup), await held(kubelore, again)
    assert compared(before).keys() == compared(after).keys()
    types = {type_name for type_name, _ in compared(before)}
    assert {
        "configmaps",
        "deployments.apps",
        "horizontalpodautoscalers.autoscaling",
        "jobs.batch",
        "namespaces",
        "networkpolicies.networking.k8s.io",
        "persistentvolumeclaims",
        "rolebindings.rbac.authorization.k8s.io",
        "secrets",
        "services",
        "statefulsets.apps",
        CRD,
    } <= types
    for (type_name, name), one in compared(before).items():
        assert differing(type_name, one, after[type_name, name]) == set(), f"{type_name}/{name}"
    for type_name in BY_CONTROLLERS:
        counts = [sum(key[0] == type_name for key in found) for found in (before, after)]
        assert counts[0] == counts[1]
    value = after["secrets", "login"]["data"]["password"]
    assert base64.b64decode(value).decode() == CANARY
    told = json.dumps([done, await items(kubelore, done["id"])])
    assert CANARY not in told
    assert value not in told


async def test_each_object_that_was_restored_has_who_and_why_in_its_history(kubelore, clusters) -> None:
    backup = await back_up(kubelore, "alpha", [SHOP], types=["configmaps", "namespaces"])
    done = await restored(
        kubelore,
        backup,
        cluster="beta",
        namespace_map={SHOP: f"{SHOP}-2"},
        reason="look at it",
        types=["configmaps", "namespaces"],
    )
    assert done["counts"]["created"] == 2, await items(kubelore, done["id"])
    id_ = f"beta:configmaps:{SHOP}-2:motd"

    async def attributed() -> bool:
        answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}")
        found = answer.json()["items"] if answer.status_code == 200 else []
        return bool(found) and (found[-1]["created_by"], found[-1]["operation_id"].partition(".")[0]) == (
            "admin",
            done["id"],
        )

    await wait_for(attributed, "the history to say who restored it", 15)
    (version,) = (await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}")).json()["items"]
    assert version["change_log"] == f"restored from backup {backup}"
    await clusters[1]("delete", "namespace", f"{SHOP}-2", "--wait=false")


async def test_roles_follow_a_namespace_that_is_renamed(kubelore, clusters) -> None:
    backup = await back_up(kubelore, "alpha", [SHOP])
    copy = f"{SHOP}-copy"
    done = await restored(
        kubelore,
        backup,
        namespace_map={SHOP: copy},
        types=["namespaces", "*.rbac.*", "services", "networkpolicies"],
    )
    assert done["counts"]["failed"] == 0, await items(kubelore, done["id"], "failed")
    found = json.loads(await clusters[0]("get", "rolebinding", "reader", "-n", copy, "-o", "json"))
    assert [one.get("namespace", one["name"]) for one in found["subjects"]] == [
        copy,
        f"system:serviceaccounts:{copy}",
    ]
    policy = json.loads(await clusters[0]("get", "networkpolicy", "own", "-n", copy, "-o", "json"))
    assert f'"{copy}"' in json.dumps(policy["spec"])
    await clusters[0]("delete", "namespace", copy, "--wait=false")


async def test_what_exists_is_skipped_updated_or_a_failure_by_the_word_of_the_caller(
    kubelore, clusters
) -> None:
    first = clusters[0]
    await first("create", "configmap", "price", "-n", SHOP, "--from-literal=eur=1")
    backup = await back_up(kubelore, "alpha", [SHOP])
    await first("patch", "configmap", "price", "-n", SHOP, "-p", '{"data":{"eur":"2","more":"x"}}')

    async def data() -> dict[str, str]:
        return json.loads(await first("get", "configmap", "price", "-n", SHOP, "-o", "json"))["data"]

    only = {"types": ["configmaps"], "names": ["price"]}
    skipped = await restored(kubelore, backup, existing="skip", **only)
    assert (skipped["counts"]["skipped"], (await data())["eur"]) == (1, "2")
    failed = await restored(kubelore, backup, existing="fail", **only)
    assert (failed["counts"]["failed"], (await data())["eur"]) == (1, "2")
    tried = await restored(kubelore, backup, existing="update", dry_run=True, **only)
    assert (tried["counts"]["changed"], (await data())["eur"]) == (1, "2")
    updated = await restored(kubelore, backup, existing="update", **only)
    assert updated["counts"]["changed"] == 1
    assert await data() == {"eur": "1"}


async def test_a_damaged_backup_writes_nothing(kubelore, clusters) -> None:
    backup = await back_up(kubelore, "alpha", [SHOP])
    chunk = DataDirectory(kubelore.data).blobs / "backups" / backup / "chunks" / "00000000"
    raw = bytearray(chunk.read_bytes())
    raw[-20] ^= 1
    chunk.chmod(0o600)
    chunk.write_bytes(raw)
    done = await restored(kubelore, backup, namespace_map={SHOP: "never"})
    assert done["state"] == "failed"
    assert "altered" in done["error"]
    assert done["total"] == 0
    assert "never" not in await clusters[0]("get", "namespaces", "-o", "name")


async def test_kill_nine_of_either_service_leaves_nothing_out_and_does_nothing_twice(
    own_kubelore, lab_pair
) -> None:
    kubectl = lab_pair.first.kubectl()
    space, count = "restored-many", 1500
    await own_kubelore.onboard("alpha", lab_pair.first.kubeconfig())
    maps = [
        manifest("v1", "ConfigMap", f"c{number:04}", space, data={"n": str(number)})
        for number in range(count)
    ]
    await kubectl("create", "namespace", space)
    await kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": maps}))
    backup = await back_up(own_kubelore, "alpha", [space], types=["namespaces", "configmaps"])
    copy = f"{space}-copy"
    id_ = await begin(own_kubelore, backup, namespace_map={space: copy})
    for service, at in (("yaml-vcs", 200), ("resource-ops", 700)):
        await wait_for(_has(kubectl, copy, at), f"{at} objects", 60)
        os.kill(own_kubelore.pid(service), signal.SIGKILL)
    done = await ended(own_kubelore, id_, 120)
    assert done["state"] == "completed", done
    assert (done["counts"]["failed"], done["total"]) == (0, count + 2), await items(
        own_kubelore, id_, "failed"
    )
    told = [one["number"] for one in await items(own_kubelore, id_)]
    assert sorted(told) == list(range(count + 2))
    listed = await kubectl("get", "configmaps", "-n", copy, "-o", "json", "--show-managed-fields")
    found = json.loads(listed)["items"]
    there = {one["metadata"]["name"]: one["data"] for one in found if one["metadata"]["name"].startswith("c")}
    assert there == {one["metadata"]["name"]: one["data"] for one in maps}
    # Written once: nothing has touched any of them since.
    assert {len(one["metadata"]["managedFields"]) for one in found if one["metadata"]["name"] in there} == {1}
    for namespace in (space, copy):
        await kubectl("delete", "namespace", namespace, "--wait=false")


def _has(kubectl: Any, namespace: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        found = await kubectl("get", "configmaps", "-n", namespace, "-o", "name", "--ignore-not-found")
        return len(found.splitlines()) >= count

    return has


async def test_a_restore_writes_no_more_than_its_caller_may_and_a_revoked_token_begins_none(
    kubelore, clusters, command_line
) -> None:
    backup = await back_up(kubelore, "alpha", [SHOP])
    grant = {"role": "operator", "rights": ["backup"], "clusters": ["alpha"], "namespaces": [SHOP]}
    async with kubelore.somebody("restores-operator", **grant) as somebody:
        run = command_line(kubelore.url, somebody.token)
        await _restores_what_it_may(run, backup)
    refused = await run("backup", "restore", backup)
    assert (refused.code, "token" in refused.err) == (1, True)


async def _restores_what_it_may(run: Any, backup: str) -> None:
    outcome = await run(
        "backup",
        "restore",
        backup,
        "--existing",
        "update",
        "--type",
        "secrets",
        "--type",
        "roles",
        "--type",
        "configmaps",
        "-o",
        "json",
    )
    assert outcome.code == 1, outcome.err
    results = {one["id"].split(":", 1)[1]: one for one in json.loads(outcome.out)["items"]}
    assert results[f"secrets:{SHOP}:login"]["reasons"][0]["rule"] == "secrets-right"
    role = results[f"roles.rbac.authorization.k8s.io:{SHOP}:reader"]
    assert (role["result"], role["error"]) == ("failed", "Forbidden")
    assert results[f"configmaps:{SHOP}:motd"]["result"] in ("changed", "unchanged")
