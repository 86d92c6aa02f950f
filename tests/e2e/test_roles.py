"""An administrator, an operator and a viewer with tokens of their own, at terminals, on two real clusters.

The tests stand in the order of the day: the tokens are made, the operator works,
the viewer looks, the audit tells it all, and at last a token is revoked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

OURS, OTHER = "roles-ours", "roles-other"
OPERATOR, VIEWER = "olga", "viktor"
VALUE = "correct-horse-battery"
ENCODED = base64.b64encode(VALUE.encode()).decode()
HERE = ("-n", "team-a", "-c", OURS)


@dataclass
class Day:
    """Who is there, and what they said and heard."""

    kubelore: Any
    planes: dict[str, Any]
    admin: Any
    operator: Any = None
    viewer: Any = None
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def create_token(self, name: str, role: str, namespace: str) -> dict[str, Any]:
        made = await self.admin(
            *("tokens", "create", name, "--role", role, "-c", OURS, "-n", namespace),
            *("--expires", "1h", "-o", "json"),
        )
        assert made.code == 0, made.err
        self.tokens[name] = json.loads(made.out)
        return self.tokens[name]

    async def audit(self, who: Any, *more: str) -> list[dict[str, Any]]:
        said = await who("audit", "-o", "json", "--limit", "1000", *more)
        assert said.code == 0, said.err
        return json.loads(said.out)["items"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def day(kubelore, command_line, lab_pair) -> AsyncIterator[Day]:
    planes = {OURS: lab_pair.first, OTHER: lab_pair.second}
    for namespace in ("team-a", "team-b", "apart"):
        await planes[OURS].kubectl()("create", "namespace", namespace)
    await planes[OTHER].kubectl()("create", "namespace", "team-a")
    for plane, namespace in ((planes[OURS], "apart"), (planes[OTHER], "team-a")):
        await plane.kubectl()("create", "configmap", "theirs", "-n", namespace)
    for name, plane in planes.items():
        await kubelore.onboard(name, plane.kubeconfig())
    made = Day(kubelore, planes, command_line(kubelore.url, kubelore.token))
    for name, role, namespace in ((OPERATOR, "operator", "team-*"), (VIEWER, "viewer", "team-a")):
        token = await made.create_token(name, role, namespace)
        setattr(made, role, command_line(kubelore.url, token["token"]))
    yield made
    for token in made.tokens.values():
        await kubelore.http.delete(f"/api/tokens/{token['id']}")
    for name in planes:
        await kubelore.remove(name)


def manifest(kind: str, name: str, namespace: str = "", api: str = "v1", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}


def text(*manifests: dict[str, Any]) -> str:
    return "---\n".join(json.dumps(one) + "\n" for one in manifests)


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"containers": [{"name": "web", "image": "example.invalid/web:1"}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return manifest("Deployment", name, "team-a", "apps/v1", spec=spec)


RBAC = "rbac.authorization.k8s.io"
NOT_FOR_OPERATORS = (
    manifest("Role", "more", "team-a", f"{RBAC}/v1", rules=[]),
    manifest(
        "RoleBinding",
        "more",
        "team-a",
        f"{RBAC}/v1",
        roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        subjects=[{"kind": "User", "apiGroup": RBAC, "name": OPERATOR}],
    ),
    manifest("ClusterRole", "more", "", f"{RBAC}/v1", rules=[]),
    manifest("ResourceQuota", "more", "team-a", spec={"hard": {"pods": "100"}}),
    manifest("Namespace", "team-c"),
    manifest("ConfigMap", "more", "apart", data={}),
    manifest("ConfigMap", "more", "default", data={}),
)


async def test_an_operator_applies_scales_and_deletes_in_their_namespaces(day) -> None:
    made = text(
        deployment("web"),
        manifest("ConfigMap", "settings", "team-a", data={"size": "1"}),
        manifest("ConfigMap", "settings", "team-b", data={"size": "1"}),
        manifest("Secret", "key", "team-a", stringData={"password": VALUE}),
    )
    applied = await day.operator("apply", "-f", "-", "-c", OURS, "--reason", "first release", stdin=made)
    assert applied.code == 0, applied.err
    await _shown(day.operator, "deploy/web", "cm/settings")
    for words in (
        ("scale", "deploy/web", "--replicas", "3", *HERE),
        ("restart", "deploy/web", *HERE),
        ("delete", "cm/settings", *HERE),
    ):
        done = await day.operator(*words)
        assert done.code == 0, (words, done.err)
    kubectl = day.planes[OURS].kubectl()
    assert await kubectl("get", "deploy/web", "-n", "team-a", "-o", "jsonpath={.spec.replicas}") == "3"
    left = await kubectl("get", "cm/settings", "-n", "team-a", "--ignore-not-found", "-o", "name")
    assert left == ""


async def _shown(who: Any, *objects: str) -> None:
    """Wait until what was just written has come back by the watch."""

    async def there() -> bool:
        found = await asyncio.gather(*(who("get", one, *HERE, "-o", "name") for one in objects))
        return all(one.code == 0 for one in found)

    await wait_for(there, f"{objects} to be shown", 20)


async def test_an_operator_is_refused_what_edit_does_not_contain_and_what_is_not_theirs(day) -> None:
    tried = await day.operator("apply", "-f", "-", "-c", OURS, "-o", "json", stdin=text(*NOT_FOR_OPERATORS))
    assert tried.code == 1
    results = json.loads(tried.out)["results"]
    assert [one["error"]["status"] for one in results] == [403] * len(NOT_FOR_OPERATORS)
    assert all("remedy" in one["error"] for one in results)
    kubectl = day.planes[OURS].kubectl()
    there = await kubectl("get", "role,rolebinding,clusterrole,resourcequota,cm,ns", "-A", "-o", "name")
    assert "/more" not in there
    assert "team-c" not in there


async def test_what_is_not_granted_does_not_exist_for_an_operator(day) -> None:
    assert (await day.operator("clusters", "list", "-o", "name")).out.split() == [OURS]
    applied = await day.operator(
        "apply", "-f", "-", "-c", OTHER, stdin=text(manifest("ConfigMap", "more", "team-a"))
    )
    assert (applied.code, f"no cluster named '{OTHER}'" in applied.err) == (1, True)
    for target in (f"{OTHER}:configmaps:team-a:theirs", f"{OURS}:configmaps:apart:theirs"):
        deleted = await day.operator("delete", target)
        assert (deleted.code, "not found" in deleted.err or "no cluster" in deleted.err) == (1, True), deleted
    # The command looks before it acts; somebody who does not, gets no further.
    headers = {"Authorization": f"Bearer {day.tokens[OPERATOR]['token']}"}
    async with httpx.AsyncClient(base_url=day.kubelore.url, headers=headers, timeout=30) as client:
        elsewhere = await client.delete(f"/api/k8s/unified/resources/{OTHER}:configmaps:team-a:theirs")
        assert elsewhere.status_code == 404
        apart = await client.delete(f"/api/k8s/unified/resources/{OURS}:configmaps:apart:theirs")
        assert apart.status_code == 403
    for plane, namespace in ((day.planes[OURS], "apart"), (day.planes[OTHER], "team-a")):
        assert await plane.kubectl()("get", "cm/theirs", "-n", namespace, "-o", "name")


async def test_a_viewer_reads_their_namespace_and_nothing_else(day) -> None:
    everything = await day.viewer("get", "cm,secrets,deploy,ns,nodes,clusterroles", "-A", "-o", "json")
    assert everything.code == 0, everything.err
    items = json.loads(everything.out)["items"]
    homes = {one["metadata"].get("namespace", one["metadata"]["name"]) for one in items}
    assert homes == {"team-a"}
    assert {"web", "key"} <= {one["metadata"]["name"] for one in items}
    for words in (
        ("get", "cm/settings", "-n", "team-b"),
        ("get", "ns", "apart"),
        ("describe", "ns", "team-b"),
    ):
        assert (await day.viewer(*words, "-c", OURS)).code == 1


VIEWERS_TRIES = (
    ("apply", "-f", "-", "-c", OURS),
    ("scale", "deploy/web", "--replicas", "0", *HERE),
    ("restart", "deploy/web", *HERE),
    ("label", "deploy/web", "seen=yes", *HERE),
    ("annotate", "secret/key", "seen=yes", *HERE),
    ("patch", "deploy/web", "-p", '{"spec":{"paused":true}}', *HERE),
    ("delete", "deploy/web", *HERE),
    ("clusters", "remove", "--yes", OURS),
    ("clusters", "test", OURS),
    ("clusters", "metrics", OURS),
    ("tokens", "create", "more", "--role", "admin"),
    ("audit", "verify"),
)


async def test_a_viewer_is_refused_every_change(day) -> None:
    kubectl = day.planes[OURS].kubectl()
    look = ("get", "deploy,secret,cm,sa", "-n", "team-a", "-o", "jsonpath={.items[*].metadata.uid}")
    before = await kubectl(*look), await _generation(day)
    manifests = text(manifest("ConfigMap", "more", "team-a"))
    tried = await asyncio.gather(
        *(day.viewer(*words, stdin=manifests if "-f" in words else "") for words in VIEWERS_TRIES)
    )
    for words, one in zip(VIEWERS_TRIES, tried, strict=True):
        assert (one.code, "may " in one.err) == (1, True), (words, one)
    assert (await kubectl(*look), await _generation(day)) == before


async def _generation(day: Day) -> str:
    path = "jsonpath={.metadata.generation} {.metadata.labels} {.metadata.annotations}"
    return await day.planes[OURS].kubectl()("get", "deploy/web", "-n", "team-a", "-o", path)


async def test_the_value_of_a_secret_is_shown_to_nobody(day) -> None:
    again = text(manifest("Secret", "key", "team-a", stringData={"password": VALUE, "other": VALUE}))
    applied = await day.operator("apply", "-f", "-", "-c", OURS, "--diff", "--dry-run", stdin=again)
    assert (applied.code, "hidden" in applied.out) == (0, True), applied
    said = [
        applied,
        *await asyncio.gather(
            *(who("get", "secret/key", *HERE, "-o", "yaml") for who in (day.admin, day.operator, day.viewer)),
            day.admin("get", "secrets", *HERE, "-o", "json"),
            day.operator("describe", "secret/key", *HERE),
        ),
    ]
    for one in said:
        assert one.code == 0, one.err
        assert VALUE not in one.out + one.err
        assert ENCODED not in one.out + one.err
    assert all("key" in one.out for one in said)


def acts(items: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((one["action"], one["resource"], one["outcome"]) for one in items)


async def test_every_act_and_every_refusal_of_both_stands_in_the_audit(day) -> None:
    web, key = f"{OURS}:deployments.apps:team-a:web", f"{OURS}:secrets:team-a:key"
    done = [
        ("resources.apply", web, "ok"),
        ("resources.apply", f"{OURS}:configmaps:team-a:settings", "ok"),
        ("resources.apply", f"{OURS}:configmaps:team-b:settings", "ok"),
        ("resources.apply", key, "ok"),
        ("resources.scale", web, "ok"),
        ("resources.restart", web, "ok"),
        ("resources.delete", f"{OURS}:configmaps:team-a:settings", "ok"),
        ("resources.delete", f"{OTHER}:configmaps:team-a:theirs", "failed"),
        ("resources.delete", f"{OURS}:configmaps:apart:theirs", "refused"),
        ("resources.batch", "", "ok"),  # the dry run
    ]
    refused = [("resources.apply", _tried(one), "refused") for one in NOT_FOR_OPERATORS]
    assert acts(await day.audit(day.admin, "--actor", OPERATOR)) == sorted(done + refused)
    tries = [
        ("resources.apply", f"{OURS}:ConfigMap:team-a:more"),
        *((f"resources.{action}", web) for action in ("scale", "restart", "label", "patch", "delete")),
        ("resources.label", key),
        ("clusters.remove", OURS),
        ("clusters.test", OURS),
        ("clusters.metrics", OURS),
        ("tokens.create", "tokens/more"),
        ("audit.verify", ""),
    ]
    theirs = await day.audit(day.admin, "--actor", VIEWER)
    assert acts(theirs) == sorted((*one, "refused") for one in tries)
    assert {one["credential"] for one in theirs} == {f"token:{day.tokens[VIEWER]['id']}"}
    assert {one["id"] for one in await day.audit(day.viewer)} == {one["id"] for one in theirs}
    made = await day.audit(day.admin, "--actor", "admin", "--action", "tokens.create")
    assert {f"tokens/{OPERATOR}", f"tokens/{VIEWER}"} <= {one["resource"] for one in made}
    told = json.dumps(await day.audit(day.admin))
    assert VALUE not in told
    assert not [token["token"] for token in day.tokens.values() if token["token"] in told]


def _tried(one: dict[str, Any]) -> str:
    """A refused apply by the name that its manifest gives."""
    home = one["metadata"].get("namespace", "default")
    return f"{OURS}:{one['kind']}:{home}:{one['metadata']['name']}"


async def test_the_audit_of_the_day_verifies(day) -> None:
    verified = await day.admin("audit", "verify", "-o", "json")
    assert verified.code == 0, verified.err
    assert json.loads(verified.out)["ok"] is True


async def test_a_revoked_token_is_refused_within_ten_seconds_and_its_watch_ends(day) -> None:
    watching = await day.viewer.start("watch", "cm", "-n", "team-a", "-o", "name")
    try:
        assert watching.stdout is not None
        line = asyncio.create_task(watching.stdout.readline())
        number = 0
        while not line.done():
            # The watch says nothing when it is open, so changes are made until one is seen.
            number += 1
            again = text(manifest("ConfigMap", "settings", "team-a", data={"size": str(number)}))
            assert (await day.operator("apply", "-f", "-", "-c", OURS, stdin=again)).code == 0
            assert number < 40
        assert (await line).decode().strip() == f"{OURS}:configmaps:team-a:settings"
        revoked = await day.admin("tokens", "revoke", day.tokens[VIEWER]["id"])
        assert revoked.code == 0, revoked.err
        at = time.monotonic()
        async with asyncio.timeout(10):
            _, err = await watching.communicate()
        assert (watching.returncode, b"not valid" in err) == (1, True), err

        async def refused() -> bool:
            return (await day.viewer("get", "cm", *HERE)).code == 1

        await wait_for(refused, "the token to be refused", max(0.1, 10 - (time.monotonic() - at)))
    finally:
        if watching.returncode is None:
            watching.terminate()
            await watching.wait()
    assert (await day.operator("get", "cm", *HERE)).code == 0
