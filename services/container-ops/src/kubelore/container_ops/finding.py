"""The running containers that a selection of pods means, for commands in many at once."""

from __future__ import annotations

from contextlib import aclosing

from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import ContainerId, PodRef
from kubelore.common.contracts.execution import MAX_TARGETS, FindContainers, FoundContainers
from kubelore.common.contracts.identity import is_cluster_name
from kubelore.common.errors import BadRequest
from kubelore.common.kube import decode_meta
from kubelore.common.kube.resource_type import PODS
from kubelore.common.kube.selectors import LabelSelector
from kubelore.common.reach import Reach, Reached
from kubelore.container_ops.pods import Pod, containers_of, decode_pod
from kubelore.container_ops.targets import PodSelection, select_workload

MAX_NAMESPACES = 50


class Finding:
    """Answers FIND_CONTAINERS."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def find(self, request: FindContainers) -> FoundContainers:
        """Containers in namespaces where the caller has the right `exec`. Raises BadRequest, NotFound, Forbidden."""
        _check(request)
        caller = current_caller()
        for namespace in request.namespaces or [""]:
            caller.check_right("exec", request.cluster, namespace)
        found = FoundContainers(ids=[])
        async with self._reach.using(request.cluster) as reached:
            selection = PodSelection(labels=request.labels)
            if request.workload:
                selection = await select_workload(reached, request.namespaces[0], request.workload)
            for namespace in request.namespaces or [None]:
                await _collect(reached, request, namespace, selection, found)
        return found


async def _collect(
    reached: Reached,
    request: FindContainers,
    namespace: str | None,
    selection: PodSelection,
    found: FoundContainers,
) -> None:
    pages = reached.client.pages(PODS, namespace=namespace, labels=selection.labels, fields=selection.fields)
    async with aclosing(pages):
        async for page in pages:
            for raw in page.items:
                meta = decode_meta(raw)
                ref = PodRef(cluster=request.cluster, namespace=meta.namespace, pod=meta.name)
                name = running_container(decode_pod(raw), ref, request.container)
                if not name:
                    continue
                if len(found.ids) >= request.limit:
                    found.more = True
                    return
                found.ids.append(str(ContainerId(request.cluster, meta.namespace, meta.name, name)))


def running_container(pod: Pod, ref: PodRef, wanted: str) -> str:
    """The name of a pod's container that is meant, when it runs; empty otherwise."""
    name = wanted or pod.default_container
    running = {one.name for one in containers_of(pod, ref).containers if one.condition == "running"}
    return name if name in running else ""


def _check(request: FindContainers) -> None:
    if not 1 <= request.limit <= MAX_TARGETS:
        raise BadRequest(f"at most {MAX_TARGETS} containers can be meant at once")
    if len(request.namespaces) > MAX_NAMESPACES:
        raise BadRequest(f"at most {MAX_NAMESPACES} namespaces can be named; leave them out for all")
    for namespace in request.namespaces:
        if not is_cluster_name(namespace):
            raise BadRequest(f"{namespace[:80]!r} is no name of a namespace")
    if request.labels:
        LabelSelector.parse(request.labels)
    if request.workload and (len(request.namespaces) != 1 or request.labels):
        raise BadRequest(
            "a workload is looked for in one namespace, and brings its own labels",
            remedy="Name one namespace, and no label selector.",
        )
