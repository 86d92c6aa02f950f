"""A client whose gateway is killed under its request sends it again to another: with a key it is done once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

NAMESPACE = "faults"
NAME = "counted"
PATH = f"/api/k8s/unified/resources/victim:podtemplates:{NAMESPACE}:{NAME}"
PATCH = json.dumps([{"op": "add", "path": "/template/spec/containers/0/args/-", "value": "more"}])
HELD_S = 3.0
"""How long an answer of the API server is on its way: time enough to see the effect and to kill."""


@pytest_asyncio.fixture(loop_scope="session")
async def own_kubelore(tmp_path: Path, start_kubelore) -> AsyncIterator[Any]:
    """With two gateways, in place of the one with single replicas."""
    async with start_kubelore(tmp_path / "kubelore", gateway=2) as running:
        yield running


async def test_a_request_with_a_key_is_never_done_twice_and_one_without_is(own_kubelore, plane, way) -> None:
    await own_kubelore.onboard("victim", way.kubeconfig)
    kubectl = plane.kubectl()
    container = {"name": "web", "image": "example.invalid/web:1", "args": ["first"]}
    template = {"template": {"spec": {"containers": [container]}}}
    manifest = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": NAME}, **template}
    await kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(manifest))

    async def arguments() -> list[str]:
        said = json.loads(await kubectl("get", "podtemplate", NAME, "-n", NAMESPACE, "-o", "json"))
        return said["template"]["spec"]["containers"][0]["args"]

    async def done() -> bool:
        return await arguments() == ["first", "more"]

    way.delay_s = HELD_S
    first = asyncio.create_task(_ask(own_kubelore, 0, "one-intent"))
    await wait_for(done, "the API server to have done it", 40, every=0.05)
    os.kill(own_kubelore.pid("gateway-1"), signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        await first
    way.delay_s = 0.0

    retried = await _ask(own_kubelore, 1, "one-intent")
    assert (retried.status_code, retried.json()["code"]) == (409, "OperationUnderWay")

    async def given_up() -> httpx.Response | None:
        answer = await _ask(own_kubelore, 1, "one-intent")
        return answer if answer.json()["code"] != "OperationUnderWay" else None

    retried = await wait_for(given_up, "the first request to be given up", 40)
    assert retried is not None
    assert (retried.status_code, retried.json()["outcome"]) == (409, "unknown")
    assert await arguments() == ["first", "more"]
    (written,) = await _writes_of(own_kubelore, retried.json()["operation_id"])
    assert (written["state"], written["result"]) == ("done", "changed")

    again = await _ask(own_kubelore, 1, None)
    assert again.status_code == 200, again.text
    assert await arguments() == ["first", "more", "more"]


async def _writes_of(kubelore: Any, operation: str) -> list[dict[str, Any]]:
    answer = await kubelore.http.get(f"/api/k8s/operations/{operation}")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def _ask(kubelore: Any, gateway: int, key: str | None) -> httpx.Response:
    """Patch by one of the gateways; with the key of one intent, or none."""
    headers = {
        "Authorization": f"Bearer {kubelore.token}",
        "Content-Type": "application/json-patch+json",
        **({"Idempotency-Key": key} if key else {}),
    }
    async with httpx.AsyncClient(base_url=kubelore.urls[gateway], headers=headers, timeout=60) as http:
        return await http.patch(PATH, content=PATCH)
