"""What an operator and a viewer with tokens of their own do in containers and with versions, on a real node.

Each act and each refusal of the one and the other is then found in the audit.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from kubelore.lab.images import BUSYBOX
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

CLUSTER, OURS, THEIRS = "roles-node", "roles-inside", "roles-apart"
OPERATOR, VIEWER = "oona", "vera"
POD, ELSEWHERE = f"{CLUSTER}:{OURS}:web:web", f"{CLUSTER}:{THEIRS}:web:web"
SETTINGS = f"{CLUSTER}:configmaps:{OURS}:settings"
CONTAINERS, VERSIONS = "/api/k8s/containers", f"/api/k8s/yaml/versions/{SETTINGS}"


@dataclass
class Day:
    """Who is there."""

    admin: httpx.AsyncClient
    operator: httpx.AsyncClient
    viewer: httpx.AsyncClient

    async def acts(self, actor: str) -> list[tuple[str, str, str]]:
        """What somebody did and was refused, in the order of the audit's words, each once."""
        answer = await self.admin.get("/api/audit", params={"actor": actor, "limit": 1000})
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        assert all(one["trace_id"] and one["address"] == "127.0.0.1" for one in items)
        assert {one["cluster"] for one in items if one["resource"].startswith(CLUSTER)} == {CLUSTER}
        return sorted({(one["action"], one["resource"], one["outcome"]) for one in items})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def day(kubelore, lab_node) -> AsyncIterator[Day]:
    kubectl = lab_node.plane.kubectl()
    for namespace in (OURS, THEIRS):
        await kubectl("create", "namespace", namespace)
    await kubectl("apply", "-n", OURS, "-f", "-", stdin=_pod())
    await kubelore.onboard(CLUSTER, lab_node.plane.kubeconfig())
    async with AsyncExitStack() as stack:
        people: list[httpx.AsyncClient] = []
        for name, role, rights in ((OPERATOR, "operator", ["exec"]), (VIEWER, "viewer", [])):
            grant = {"role": role, "rights": rights, "clusters": [CLUSTER], "namespaces": [OURS]}
            people.append((await stack.enter_async_context(kubelore.somebody(name, **grant))).http)
        await kubectl("wait", "pod/web", "-n", OURS, "--for=condition=Ready", "--timeout=90s")
        yield Day(kubelore.http, *people)
    await kubelore.remove(CLUSTER)
    await kubectl("delete", "namespace", OURS, THEIRS, "--wait=false")


def _pod() -> str:
    container = {
        "name": "web",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo up; sleep 3600"],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})


async def done(answer: httpx.Response, status: int = 200) -> httpx.Response:
    assert answer.status_code == status, f"{answer.request.url}: {answer.text}"
    return answer


async def test_an_operator_works_in_a_container_and_each_act_is_in_the_audit(day: Day) -> None:
    http, of_pod, note = day.operator, f"{CONTAINERS}/{POD}", {"path": "/tmp/note"}
    ran = await done(await http.post(f"{of_pod}/exec", json={"command": ["echo", "hello"]}))
    assert ran.json()["stdout"] == "hello\n"
    await done(await http.put(f"{of_pod}/files/content", params=note, json={"content": "kept"}))
    assert (await done(await http.get(f"{of_pod}/files/content", params=note))).json()["content"] == "kept"
    assert (await done(await http.get(f"{of_pod}/files/download", params=note))).content == b"kept"
    assert (await done(await http.get(f"{of_pod}/logs/export"))).text == "up\n"
    opened = (await done(await http.post(f"{of_pod}/exec/terminal", json={}), 201)).json()
    ended = await http.delete(f"{of_pod}/exec/terminal", params={"session": opened["session_id"]})
    await done(ended, 204)
    recording = f"{CONTAINERS}/operations/{opened['operation_id']}/recording"

    async def recorded() -> bool:
        return (await http.get(recording)).status_code == 200

    await wait_for(recorded, "the recording", 20)
    refused = await http.post(f"{CONTAINERS}/{ELSEWHERE}/exec", json={"command": ["id"]})
    await done(refused, 403)
    tried = {
        *((f"containers.{act}", POD, "ok") for act in ("exec", "download", "terminal", "terminal-end")),
        *((f"files.{act}", POD, "ok") for act in ("read", "write")),
        ("logs.export", POD, "ok"),
        ("containers.recording", f"operations/{opened['operation_id']}", "ok"),
        ("containers.exec", ELSEWHERE, "refused"),
    }
    assert tried <= set(await day.acts(OPERATOR))


async def test_an_operator_brings_an_earlier_version_back_and_each_act_is_in_the_audit(day: Day) -> None:
    for size in ("1", "2"):
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"size": size}}
        manifest["metadata"] = {"name": "settings", "namespace": OURS}
        headers = {"Content-Type": "application/yaml"}
        applied = await day.operator.post(
            "/api/k8s/unified/apply",
            params={"clusters": CLUSTER},
            content=json.dumps(manifest),
            headers=headers,
        )
        assert (await done(applied)).json()["results"][0]["ok"], applied.text

        async def kept(size: str = size) -> bool:
            found = await day.viewer.get(VERSIONS)
            return found.status_code == 200 and len(found.json()["items"]) == int(size)

        await wait_for(kept, f"version {size} to be kept", 30)
    await done(await day.operator.post(f"{VERSIONS}/tags", json={"name": "small", "version": 1}), 201)
    await done(await day.operator.post(f"{VERSIONS}/rollback", json={"version": 1}))
    done_so = {("resources.apply", "ok"), ("versions.tag", "ok"), ("versions.rollback", "ok")}
    found = {
        (action, outcome) for action, resource, outcome in await day.acts(OPERATOR) if resource == SETTINGS
    }
    assert done_so <= found


async def test_a_viewer_reads_and_each_refusal_of_more_is_in_the_audit(day: Day) -> None:
    http, of_pod, note = day.viewer, f"{CONTAINERS}/{POD}", {"path": "/tmp/note"}
    assert (await done(await http.get(f"{of_pod}/logs"))).json()["items"][0]["message"] == "up"
    assert (await done(await http.get(VERSIONS))).json()["items"]
    await done(await http.get(f"{of_pod}/logs/export"))
    for answer in (
        await http.post(f"{of_pod}/exec", json={"command": ["id"]}),
        await http.post(f"{of_pod}/exec/terminal", json={}),
        await http.get(f"{of_pod}/files", params=note),
        await http.get(f"{of_pod}/files/content", params=note),
        await http.get(f"{of_pod}/files/download", params=note),
        await http.put(f"{of_pod}/files/content", params=note, json={"content": "theirs"}),
        await http.post(f"{of_pod}/files/delete", json=note),
        await http.post(f"{VERSIONS}/rollback", json={"version": 1}),
        await http.post(f"{VERSIONS}/tags", json={"name": "mine", "version": 1}),
    ):
        await done(answer, 403)
    refused = [f"containers.{act}" for act in ("exec", "terminal", "download")]
    refused += [f"files.{act}" for act in ("read", "write", "delete")]
    assert await day.acts(VIEWER) == sorted(
        [
            ("logs.export", POD, "ok"),
            ("files.list_files", POD, "refused"),
            *((act, POD, "refused") for act in refused),
            ("versions.rollback", SETTINGS, "refused"),
            ("versions.tag", SETTINGS, "refused"),
        ]
    )
    own = (await done(await http.get("/api/audit"))).json()["items"]
    assert {one["actor"] for one in own} == {VIEWER}
