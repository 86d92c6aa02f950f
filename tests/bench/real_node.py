"""A real node as a cluster of the stack, for what happens inside containers.

With `KUBELORE_LAB_ATTACH` it is the lab that runs already, else one of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.stack import Stack
from tests.bench.world import add_cluster, connect

from kubelore.lab import attached, session
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.images import BUSYBOX
from kubelore.lab.kubectl import Kubectl
from kubelore.lab.node import Node

CLUSTER = "node"
_NAMESPACE = "bench-containers"
_READY_S = 120.0


@dataclass(frozen=True)
class RealNode:
    """Its kubeconfig, and the namespace whose pods run."""

    kubeconfig: Path
    namespace: str

    @property
    def kubectl(self) -> Kubectl:
        """kubectl for it."""
        return Kubectl(self.kubeconfig)


@asynccontextmanager
async def real_node(folder: Path, stack: Stack, pods: Sequence[dict[str, Any]]) -> AsyncIterator[RealNode]:
    """The node as cluster `node` of the stack, with these pods running in a namespace that is gone afterwards."""
    async with AsyncExitStack() as open_:
        node = RealNode(await _kubeconfig(folder, open_), _NAMESPACE)
        await node.kubectl("create", "namespace", node.namespace)
        open_.push_async_callback(node.kubectl, "delete", "namespace", node.namespace, "--wait=false")
        manifests = {"apiVersion": "v1", "kind": "List", "items": list(pods)}
        await _apply(node, json.dumps(manifests))
        names = [f"pod/{one['metadata']['name']}" for one in pods]
        waiting = ("wait", "-n", node.namespace, "--for=condition=Ready", f"--timeout={_READY_S:g}s")
        await node.kubectl(*waiting, *names, seconds=_READY_S + 10)
        await asyncio.to_thread(add_cluster, stack, CLUSTER, node.kubeconfig.read_text())
        open_.push_async_callback(asyncio.to_thread, _remove, stack)
        yield node


def box(name: str, *command: str, image: str = BUSYBOX) -> dict[str, Any]:
    """A pod of one container `main`."""
    container: dict[str, Any] = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    if command:
        container["command"] = list(command)
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def _kubeconfig(folder: Path, open_: AsyncExitStack) -> Path:
    if os.environ.get(attached.VARIABLE):
        return session.kubeconfig_files()[0]
    plane = await open_.enter_async_context(ControlPlane(folder, CLUSTER))
    await open_.enter_async_context(Node(plane))
    return plane.kubeconfig_file()


async def _apply(node: RealNode, manifests: str) -> None:
    """The namespace's default service account comes a moment after the namespace."""
    for attempt in range(20):
        done = await node.kubectl.run("apply", "-n", node.namespace, "-f", "-", stdin=manifests)
        if done.code == 0:
            return
        assert attempt < 19, done.stderr
        await asyncio.sleep(0.5)


def _remove(stack: Stack) -> None:
    connection = connect(stack)
    connection.send("DELETE", f"/api/k8s/clusters/{CLUSTER}")
    connection.close()
