"""An ephemeral container beside one that has no shell or no tools, in its process namespace.

From in there the other's files are below `/proc/1/root`. It is only ever made
when somebody asks for it, stays in the pod's spec until the pod ends, as
Kubernetes has it, and stops by itself after eight hours. One that runs is used
again.
"""

from __future__ import annotations

import asyncio
import secrets

import msgspec

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import Conflict, DeadlineExceeded, Forbidden, NotFound, Unsupported
from kubelore.common.kube.resource_type import PODS
from kubelore.common.kube.writing import STRATEGIC_PATCH
from kubelore.common.reach import Reached
from kubelore.container_ops.pods import Pod, containers_of, decode_pod, named_container, read_pod

PREFIX = "kubelore-debug-"
TARGET_ROOT = "/proc/1/root"
"""Where the files of the target are, seen from its debug container."""
LIFE_S = 8 * 3600
READY_S = 60.0
_POLL_S = 0.2
_HOPELESS = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "ErrImagePull", "InvalidImageName"})


async def debug_container(
    reached: Reached, target: ContainerId, image: str, *, ready_s: float = READY_S
) -> ContainerId:
    """The running debug container of a container, made when there is none. Whoever calls has checked the right.

    Raises NotFound (no such container), Forbidden, Unsupported (a cluster
    without ephemeral containers, a pod with the processes of its node), Conflict (the target does not run, or the
    image cannot be had) and DeadlineExceeded.
    """
    pod = await read_pod(reached, target)
    target = named_container(pod, target)
    if pod.spec.host_pid:
        # With the capability that it gets, it could read the files of the whole node.
        raise Unsupported(
            f"the pod {target.pod} shares the processes of its node: there is no debug container for it",
            remedy="Look at the node itself, as one who may.",
        )
    _check_running(pod, target)
    found = _existing(pod, target)
    name = found or PREFIX + secrets.token_hex(4)
    if not found:
        await _add(reached, target, name, image)
    made = ContainerId(target.cluster, target.namespace, target.pod, name)
    try:
        async with asyncio.timeout(ready_s):
            await _until_running(reached, made)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the debug container did not start within {ready_s:g} s",
            remedy=f"See why in the events of the pod {target.pod}; its image is {image}.",
        ) from error
    return made


def _check_running(pod: Pod, target: ContainerId) -> None:
    states = {one.name: one.condition for one in containers_of(pod, target).containers}
    if states[target.container] != "running":
        raise Conflict(
            f"the container {target.container} is {states[target.container]}: there is nothing to look into",
            remedy="Wait until it runs.",
        )


def _existing(pod: Pod, target: ContainerId) -> str:
    """The name of a debug container that was made for the target and has not ended."""
    alive = {one.name for one in containers_of(pod, target).containers if one.condition != "terminated"}
    for one in reversed(pod.spec.ephemeral_containers):
        if (
            one.name.startswith(PREFIX)
            and one.target_container_name == target.container
            and one.name in alive
        ):
            return one.name
    return ""


async def _add(reached: Reached, target: ContainerId, name: str, image: str) -> None:
    try:
        await _patch(reached, target, _spec(target, name, image, trace=True))
    except Forbidden:
        # Where Pod Security allows no added capability, the same user's processes can still be looked into.
        await _patch(reached, target, _spec(target, name, image, trace=False))


def _spec(target: ContainerId, name: str, image: str, *, trace: bool) -> dict[str, object]:
    spec: dict[str, object] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", str(LIFE_S)],
        "targetContainerName": target.container,
    }
    if trace:
        spec["securityContext"] = {"capabilities": {"add": ["SYS_PTRACE"]}}
    return spec


async def _patch(reached: Reached, target: ContainerId, spec: dict[str, object]) -> None:
    body = msgspec.json.encode({"spec": {"ephemeralContainers": [spec]}})
    try:
        await reached.client.patch(
            PODS, target.namespace, target.pod, body, STRATEGIC_PATCH, subresource="ephemeralcontainers"
        )
    except NotFound as error:
        await read_pod(reached, target)
        raise Unsupported(
            "this cluster has no ephemeral containers", remedy="Kubernetes has them from 1.25 on."
        ) from error


async def _until_running(reached: Reached, made: ContainerId) -> None:
    while True:
        pod = decode_pod(await reached.client.get(PODS, made.namespace, made.pod))
        shown = next((one for one in containers_of(pod, made).containers if one.name == made.container), None)
        if shown is not None and shown.condition == "running":
            return
        if shown is not None and (shown.condition == "terminated" or shown.reason in _HOPELESS):
            raise Conflict(
                f"the debug container cannot run: {shown.reason or shown.condition}",
                remedy="Set KUBELORE_DEBUG_IMAGE to an image with `sleep` and `sh` that the node can pull.",
            )
        await asyncio.sleep(_POLL_S)
