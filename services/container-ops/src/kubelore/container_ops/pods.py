"""What a pod consists of, as its API server says at this moment."""

from __future__ import annotations

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import (
    ContainerCondition,
    ContainerId,
    ContainerInfo,
    ContainerKind,
    PodContainers,
    PodRef,
)
from kubelore.common.errors import NotFound, UpstreamError
from kubelore.common.kube.resource_type import PODS
from kubelore.common.reach import Reach, Reached

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""The annotation by which a pod says which of its containers is meant (KEP-2227)."""


class _Run(msgspec.Struct, rename="camel"):
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    reason: str = ""


class _State(msgspec.Struct):
    waiting: _Run | None = None
    running: _Run | None = None
    terminated: _Run | None = None


class _Status(msgspec.Struct, rename="camel"):
    name: str
    ready: bool = False
    restart_count: int = 0
    state: _State = msgspec.field(default_factory=_State)
    last_state: _State = msgspec.field(default_factory=_State)


class _Container(msgspec.Struct, rename="camel"):
    name: str
    image: str = ""
    restart_policy: str = ""
    target_container_name: str = ""


class _Metadata(msgspec.Struct):
    uid: str = ""
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container]
    init_containers: list[_Container] = []
    ephemeral_containers: list[_Container] = []
    node_name: str = ""
    restart_policy: str = "Always"
    share_process_namespace: bool = False
    host_pid: bool = msgspec.field(name="hostPID", default=False)


class _PodStatus(msgspec.Struct, rename="camel"):
    phase: str = ""
    container_statuses: list[_Status] | None = None
    init_container_statuses: list[_Status] | None = None
    ephemeral_container_statuses: list[_Status] | None = None


class Pod(msgspec.Struct):
    """What of a pod's object is read here."""

    metadata: _Metadata
    spec: _Spec
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def default_container(self) -> str:
        """The container that is meant when none is named: the annotated one, or the first."""
        named = (self.metadata.annotations or {}).get(DEFAULT_CONTAINER, "")
        names = [one.name for one in self.spec.containers]
        return named if named in names else names[0]


_decode = msgspec.json.Decoder(Pod).decode


def decode_pod(raw: bytes) -> Pod:
    """A pod's object. Raises UpstreamError for what is none."""
    try:
        return _decode(raw)
    except msgspec.MsgspecError as error:
        raise UpstreamError(f"this is no pod: {error}") from error


async def read_pod(reached: Reached, target: ContainerId | PodRef) -> Pod:
    """The pod that a container is of. Raises NotFound, and what the API server refuses."""
    return decode_pod(await reached.client.get(PODS, target.namespace, target.pod))


def named_container(pod: Pod, target: ContainerId) -> ContainerId:
    """The id with the name of its container, the pod's default where it names none. Raises NotFound."""
    name = target.container or pod.default_container
    names = [one.name for one, _ in _all(pod)]
    if name not in names:
        raise NotFound(
            f"the pod {target.pod} has no container {name!r}", remedy=f"It has {', '.join(names)}."
        )
    return ContainerId(target.cluster, target.namespace, target.pod, name)


def containers_of(pod: Pod, ref: PodRef | ContainerId) -> PodContainers:
    """A pod's containers as they are shown."""
    status = pod.status
    statuses = {
        one.name: one
        for several in (
            status.init_container_statuses,
            status.container_statuses,
            status.ephemeral_container_statuses,
        )
        for one in several or ()
    }
    return PodContainers(
        cluster=ref.cluster,
        namespace=ref.namespace,
        pod=ref.pod,
        uid=pod.metadata.uid,
        phase=status.phase,
        node=pod.spec.node_name,
        default=pod.default_container,
        containers=[_info(one, kind, statuses.get(one.name), ref) for one, kind in _all(pod)],
    )


def _all(pod: Pod) -> list[tuple[_Container, ContainerKind]]:
    inits: list[tuple[_Container, ContainerKind]] = [
        (one, "sidecar" if one.restart_policy == "Always" else "init") for one in pod.spec.init_containers
    ]
    plain: list[tuple[_Container, ContainerKind]] = [(one, "container") for one in pod.spec.containers]
    ephemeral: list[tuple[_Container, ContainerKind]] = [
        (one, "ephemeral") for one in pod.spec.ephemeral_containers
    ]
    return inits + plain + ephemeral


def _info(
    one: _Container, kind: ContainerKind, status: _Status | None, ref: PodRef | ContainerId
) -> ContainerInfo:
    container_id = str(ContainerId(ref.cluster, ref.namespace, ref.pod, one.name))
    if status is None:
        return ContainerInfo(id=container_id, name=one.name, kind=kind, image=one.image)
    condition, run = _condition(status.state)
    return ContainerInfo(
        id=container_id,
        name=one.name,
        kind=kind,
        image=one.image,
        condition=condition,
        reason=run.reason,
        ready=status.ready,
        restarts=status.restart_count,
        started_at=run.started_at or "",
        finished_at=run.finished_at or "",
        exit_code=run.exit_code,
        previous=status.last_state.terminated is not None,
    )


def _condition(state: _State) -> tuple[ContainerCondition, _Run]:
    if state.running is not None:
        return "running", state.running
    if state.terminated is not None:
        return "terminated", state.terminated
    return "waiting", state.waiting or _Run()


class Pods:
    """Answers CONTAINERS."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def containers(self, request: PodRef) -> PodContainers:
        """The containers of a pod, for whoever may read it. Raises NotFound."""
        ContainerId(request.cluster, request.namespace, request.pod).checked()
        caller = current_caller()
        caller.check_cluster(request.cluster)
        if not caller.may_read(request.cluster, PODS.name, request.namespace, request.pod):
            raise NotFound(f"there is no pod {request.pod} in {request.cluster}/{request.namespace}")
        async with self._reach.using(request.cluster) as reached:
            return containers_of(await read_pod(reached, request), request)
