"""Logs of many containers of a real node: kubectl's own results are the oracle."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from kubelore.lab.fixtures import LabNode

CLUSTER = "many-real"
LINES = 400

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


@dataclass
class Written:
    """Three pods of two containers, each of which wrote its lines and sleeps."""

    kubelore: Any
    kubectl: Any
    namespace: str

    async def stream(self, **query: Any) -> list[dict[str, Any]]:
        asked = {
            "clusters": CLUSTER,
            "namespace": self.namespace,
            "follow": "false",
            "format": "lines",
            **query,
        }
        answer = await self.kubelore.http.get("/api/k8s/logs/stream", params=asked)
        assert answer.status_code == 200, answer.text
        items = [json.loads(line) for line in answer.text.splitlines()]
        return [item for item in items if "message" in item]


def _manifest(namespace: str) -> str:
    script = f'i=0; while [ $i -lt {LINES} ]; do echo "$HOSTNAME $0 $i"; i=$((i+1)); done; sleep 3600'

    def container(name: str) -> dict[str, Any]:
        command = ["sh", "-c", script, name]
        return {
            "name": name,
            "image": "kubelore.local/busybox:1",
            "imagePullPolicy": "Never",
            "command": command,
        }

    def pod(number: int) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"w-{number}", "namespace": namespace, "labels": {"app": "w"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [container("one"), container("two")],
            },
        }

    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [home, *(pod(n) for n in range(3))]})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def written(kubelore: Any, lab_node: LabNode) -> AsyncIterator[Written]:
    namespace = f"many-{secrets.token_hex(3)}"
    kubectl = lab_node.plane.kubectl()
    await kubectl("apply", "-f", "-", stdin=_manifest(namespace))
    try:
        await kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
        await kubelore.onboard(CLUSTER, lab_node.plane.kubeconfig())
        yield Written(kubelore, kubectl, namespace)
        await kubelore.remove(CLUSTER)
    finally:
        await kubectl("delete", "namespace", namespace, "--wait=false")


async def test_every_container_has_the_lines_that_kubectl_shows(written: Written) -> None:
    items = await written.stream()
    assert len(items) == 6 * LINES
    for pod in range(3):
        for container in ("one", "two"):
            theirs = await written.kubectl("-n", written.namespace, "logs", f"w-{pod}", "-c", container)
            ours = [
                item["message"]
                for item in items
                if (item["pod"], item["container"]) == (f"w-{pod}", container)
            ]
            assert ours == theirs.splitlines()


async def test_lines_of_all_containers_are_in_the_order_of_their_times(written: Written) -> None:
    times = [item["timestamp"] for item in await written.stream()]
    assert times == sorted(times)


async def test_a_pod_that_comes_is_followed_and_one_that_goes_is_let_go(written: Written) -> None:
    query = {"clusters": CLUSTER, "namespace": written.namespace, "labels": "late=yes", "format": "lines"}
    said = ["-n", written.namespace, "run", "late", "--image=kubelore.local/busybox:1", "--labels=late=yes"]
    said += ["--image-pull-policy=Never", "--restart=Never", "--", "sh", "-c", "echo here I am; sleep 3600"]
    async with (
        asyncio.timeout(60),
        written.kubelore.http.stream("GET", "/api/k8s/logs/stream", params=query) as answer,
    ):
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines))["kind"] == "none"
        await written.kubectl(*said)
        async for line in lines:
            if json.loads(line).get("message") == "here I am":
                break
        await written.kubectl("-n", written.namespace, "delete", "pod", "late", "--grace-period=0", "--force")
        async for line in lines:
            if json.loads(line).get("kind") == "ended":
                break
