"""A follow over a kubelet and an API server that are killed while a container writes: every line once."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress

import pytest

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import KubeloreError
from kubelore.common.kube import AddressPolicy, KubeClient, read_kubeconfig
from kubelore.common.kube.resource_type import NAMESPACES, PODS
from kubelore.common.reach import Reached
from kubelore.container_ops.following import LogGap, follow_container
from kubelore.lab.attached import AttachedNode, AttachedPlane
from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

POLICY = AddressPolicy(allow_private=True)
NAMESPACE = "following-survives"
LINES = 60
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); sleep 0.5; done; sleep 600"


@pytest.mark.parametrize("part", ["kubelet", "apiserver"])
async def test_a_part_that_is_killed_while_a_container_writes_costs_no_line(
    lab_node: LabNode, part: str
) -> None:
    plane, node = lab_node.plane, lab_node.node
    if isinstance(plane, AttachedPlane) or isinstance(node, AttachedNode):
        pytest.skip("this kills parts of the lab, and needs one of its own")
    name = f"writer-{part}"
    async with KubeClient(read_kubeconfig(plane.kubeconfig(), None, POLICY), POLICY) as client:
        await _start(client, name)
        numbers: list[int] = []
        killed = False
        log = follow_container(Reached(client, 1), ContainerId("lab", NAMESPACE, name, "app"))
        async with asyncio.timeout(180), aclosing(log) as items:
            async for item in items:
                assert not isinstance(item, LogGap), item
                if isinstance(item, list):
                    numbers += [int(line.text) for line in item]
                    if len(numbers) >= 10 and not killed:
                        killed = True
                        if part == "kubelet":
                            await node.kill("kubelet")
                            await node.restart("kubelet")
                        else:
                            await plane.kill("apiserver")
                            await plane.restart("apiserver")
                    if len(numbers) >= LINES:
                        break
        assert numbers == list(range(LINES))
        await client.delete(PODS, NAMESPACE, name)


async def _start(client: KubeClient, name: str) -> None:
    with suppress(KubeloreError):
        await client.create(NAMESPACES, None, json.dumps({"metadata": {"name": NAMESPACE}}).encode())
    container = {
        "name": "app",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SCRIPT],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }

    async def created() -> bool:
        with suppress(KubeloreError):
            await client.create(PODS, NAMESPACE, json.dumps(pod).encode())
            return True
        return False

    await wait_for(created, "the pod can be created", 30)
