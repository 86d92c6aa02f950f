"""A pod of a real node, for what is done in containers while the parts behind it are killed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import yaml

from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX
from kubelore.lab.waiting import wait_for

CLUSTER = "boxed"
NAMESPACE = "survives"
BOX = f"{CLUSTER}:{NAMESPACE}:box:main"
"""The container's id."""


@contextlib.asynccontextmanager
async def box(kubelore: Any, lab: LabNode) -> AsyncIterator[Any]:
    """kubectl, with the pod `box` in a cluster of the stack."""
    kubectl = lab.plane.kubectl()
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "box", "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }

    async def has_account() -> bool:
        return (await kubectl.run("-n", NAMESPACE, "get", "serviceaccount", "default")).code == 0

    await kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=120)
    await kubectl("create", "namespace", NAMESPACE)
    try:
        await wait_for(has_account, "the namespace's service account", 30)
        await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
        await kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
        await kubelore.onboard(CLUSTER, lab.plane.kubeconfig())
        yield kubectl
    finally:
        await kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
