"""The service that writes is killed after the API server did what it was asked, and before anybody wrote that down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.bus import Feed, connect
from kubelore.common.contracts.changes import Applied
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NAMESPACE = "faults"
ID = f"victim:podtemplates:{NAMESPACE}:counted"
"""No controller writes to these: what it wrote since would leave open which version the lost write made."""
HELD_S = 2.0
"""How long an answer of the API server is on its way: time enough to see the effect and to kill."""


@pytest_asyncio.fixture(loop_scope="session")
async def told(own_kubelore) -> AsyncIterator[list[Applied]]:
    """Every `applied` record from now on."""
    bus = await connect(own_kubelore.bus_settings(), name="witness")
    found: list[Applied] = []
    position = await Feed(bus).position()

    async def follow() -> None:
        async for _, record in Feed(bus).follow(position):
            if isinstance(record, Applied):
                found.append(record)

    following = asyncio.create_task(follow())
    yield found
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await bus.close()


async def test_a_write_whose_end_nobody_saw_is_found_afterwards_and_never_made_twice(
    own_kubelore, plane, way, told
) -> None:
    await own_kubelore.onboard("victim", way.kubeconfig)
    container = {"name": "web", "image": "example.invalid/web:1", "args": ["first"]}
    manifest = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "counted", "namespace": NAMESPACE},
        "template": {"spec": {"containers": [container]}},
    }
    operation: dict[str, Any] = {"action": "apply", "cluster": "victim", "manifest": manifest}
    made = await own_kubelore.http.post("/api/k8s/unified/batch", json={"operations": [operation]})
    assert made.json()["succeeded"] == 1, made.text

    way.delay_s = HELD_S
    appended = [{"op": "add", "path": "/template/spec/containers/0/args/-", "value": "once"}]
    asking = asyncio.create_task(
        own_kubelore.http.patch(
            f"/api/k8s/unified/resources/{ID}",
            params={"reason": "counting"},
            content=json.dumps(appended),
            headers={"Content-Type": "application/json-patch+json"},
            timeout=90,
        )
    )

    async def arguments() -> list[str]:
        said = json.loads(
            await plane.kubectl()("get", "podtemplate", "counted", "-n", NAMESPACE, "-o", "json")
        )
        return said["template"]["spec"]["containers"][0]["args"]

    async def happened() -> bool:
        return await arguments() == ["first", "once"]

    await wait_for(happened, "the API server to have done it", 30, every=0.05)
    os.kill(own_kubelore.pid("resource-ops"), signal.SIGKILL)
    way.delay_s = 0.0

    answer = await asking
    assert answer.status_code == 504, answer.text
    assert answer.json()["outcome"] == "unknown"
    operation_id = answer.headers["operation-id"]

    async def resolved() -> bool:
        recorded = await own_kubelore.http.get(f"/api/k8s/operations/{operation_id}")
        return recorded.json()["items"][0]["state"] == "probable"

    await wait_for(resolved, "the write to be found in the cluster", 90)
    await wait_for(_told_of(told, operation_id), "it to be told on the change stream", 30)
    (record,) = [one for one in told if one.operation_id.startswith(operation_id)]
    assert (record.probable, record.actor, record.reason) == (True, "admin", "counting")
    live = json.loads(await plane.kubectl()("get", "podtemplate", "counted", "-n", NAMESPACE, "-o", "json"))
    assert record.uid == live["metadata"]["uid"]
    assert await arguments() == ["first", "once"]


async def test_a_write_before_which_the_object_could_not_be_read_was_certainly_not_made(
    own_kubelore, plane, way, told
) -> None:
    await own_kubelore.onboard("victim", way.kubeconfig)
    await plane.kubectl()("create", "configmap", "untouched", "-n", NAMESPACE)
    way.delay_s = 3600.0
    path = f"/api/k8s/unified/resources/victim:configmaps:{NAMESPACE}:untouched"
    answer = await own_kubelore.http.patch(
        path, json={"data": {"a": "1"}}, headers={"Content-Type": "application/merge-patch+json"}, timeout=90
    )
    assert answer.status_code in (503, 504), answer.text
    assert "outcome" not in answer.json()
    recorded = await own_kubelore.http.get(f"/api/k8s/operations/{answer.headers['operation-id']}")
    assert recorded.status_code == 404
    assert told == []


def _told_of(told: list[Applied], operation_id: str):
    async def arrived() -> bool:
        return any(one.operation_id.startswith(operation_id) for one in told)

    return arrived
