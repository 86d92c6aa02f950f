"""The logs of many containers as one stream: who may read them, which come and go, and one session for each reader."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec

from kubelore.common.bus import Bus, Service
from kubelore.common.bus.sessions import Session, SessionEnded, new_session_id
from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import SERVICE, ContainerId
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.log_streams import (
    MAX_TAIL,
    MAX_TARGETS,
    SILENT_S,
    STREAM_LOGS,
    LogStream,
    LogTarget,
    StreamLogs,
)
from kubelore.common.errors import BadRequest, KubeloreError, NotFound, TooManyRequests
from kubelore.common.kube.resource_type import PODS
from kubelore.common.kube.selectors import LabelSelector
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.reach import Reach
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.house import House
from kubelore.container_ops.log_stream import Chosen, ManyLogs
from kubelore.container_ops.pod_watch import PodWatch
from kubelore.container_ops.pods import named_container, read_pod
from kubelore.container_ops.targets import PodSelection, pod_named, select_workload

log = get_logger(__name__)

MAX_STREAMS = 100
"""Streams that one replica serves at once; each may hold a few megabytes."""
RENEW_EVERY_S = 4.0


class LogStreams:
    """Answers STREAM_LOGS."""

    def __init__(self, house: House, watch: PodWatch) -> None:
        self._house = house
        self._watch = watch
        self._serving: set[asyncio.Task[None]] = set()

    def serve(self, service: Service) -> None:
        """Register the endpoint."""
        service.serve(STREAM_LOGS, self.open)

    async def open(self, asked: StreamLogs) -> LogStream:
        """Begin to serve a reader. Raises BadRequest, NotFound, Forbidden, TooManyRequests."""
        if len(self._serving) >= MAX_STREAMS:
            raise TooManyRequests(
                f"{MAX_STREAMS} streams of logs are open already", remedy="Close some.", retry_after_s=10
            )
        check_tail(asked.tail)
        chosen = await choose(self._house.reach, asked.targets)
        logs = ManyLogs(self._house.reach, self._watch, asked, chosen)
        session = new_session_id(SERVICE, "gateway")
        ready = asyncio.Event()
        task = asyncio.create_task(self._serve(session, logs, chosen, asked, ready))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        await ready.wait()
        return LogStream(session)

    async def close(self) -> None:
        """End every stream: their readers open them again elsewhere."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(
        self, session_id: str, logs: ManyLogs, chosen: list[Chosen], asked: StreamLogs, ready: asyncio.Event
    ) -> None:
        mandate = Mandate.of_request()
        bus: Bus = self._house.bus
        async with Session(bus, session_id, "server", idle_s=SILENT_S) as session:
            ready.set()
            try:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(acting_under(bus, mandate, renew_every_s=RENEW_EVERY_S))
                    entry = await stack.enter_async_context(
                        self._house.journal.recording(
                            "log",
                            first_of(chosen),
                            words_of(asked.targets, follow=asked.follow),
                            session_id=session_id[-32:],
                        )
                    )
                    try:
                        await logs.run(session.send)
                        await session.finish()
                        await session.until_peer_done()
                    except SessionEnded as error:
                        # A reader that leaves ends it as it should.
                        log.debug("a reader of logs left", detail=error.detail)
                    finally:
                        entry.result |= {"containers": logs.opened, "lines": logs.sent}
            except KubeloreError as error:
                log.info("a stream of logs ended", reason=error.reason, detail=error.detail)
                await session.fail(error)


def first_of(chosen: list[Chosen]) -> ContainerId:
    """Under what the journal has it: the first cluster and namespace, and the pod when it is one."""
    one = chosen[0]
    namespace = one.selection.namespaces[0] if len(one.selection.namespaces) == 1 else ""
    return ContainerId(
        one.cluster, namespace, one.pod, one.containers[0] if one.pod and one.containers else ""
    )


def words_of(targets: tuple[LogTarget, ...], *, follow: bool = False) -> list[str]:
    """What was asked for, in words for the journal: which logs, and nothing of what is in them."""
    places = [
        "/".join(filter(None, (one.cluster, ",".join(one.namespaces), one.workload or one.pod or one.labels)))
        for one in targets[:20]
    ]
    return ["logs", *(["--follow"] if follow else []), *places]


def may_read(target: ContainerId) -> bool:
    """Whether the caller may read the log of a container."""
    return current_caller().may_read(target.cluster, PODS.name, target.namespace, target.pod)


async def choose(reach: Reach, targets: tuple[LogTarget, ...]) -> list[Chosen]:
    """What an API server is asked for, for targets that the caller may read. Raises BadRequest, NotFound."""
    if not 0 < len(targets) <= MAX_TARGETS:
        raise BadRequest(f"logs are of between 1 and {MAX_TARGETS} clusters")
    found = await asyncio.gather(*(_chosen(reach, one) for one in targets), return_exceptions=True)
    chosen = [one for one in found if isinstance(one, Chosen)]
    failures = [one for one in found if isinstance(one, BaseException)]
    # A workload may be in some of the clusters only.
    if failures and (not chosen or not all(isinstance(one, NotFound) for one in failures)):
        raise failures[0]
    return chosen


async def _chosen(reach: Reach, target: LogTarget) -> Chosen:
    check_cluster_name(target.cluster)
    caller = current_caller()
    caller.check_cluster(target.cluster)
    for namespace in target.namespaces:
        ContainerId(target.cluster, namespace, "pod").checked()
        if not caller.may_read(target.cluster, PODS.name, namespace, ""):
            raise NotFound(f"there is no namespace {namespace} in {target.cluster}")
    LabelSelector.parse(target.labels)
    if pod := pod_named(target.workload):
        target = msgspec.structs.replace(target, workload="", pod=pod)
    if not (target.workload or target.pod):
        selection = PodSelection(namespaces=target.namespaces, labels=target.labels)
        return Chosen(target.cluster, selection, target.containers)
    if len(target.namespaces) != 1:
        raise BadRequest("a workload or a pod is in one namespace: name it", remedy="Give namespace.")
    (namespace,) = target.namespaces
    async with reach.using(target.cluster) as reached:
        if target.workload:
            return Chosen(
                target.cluster, await select_workload(reached, namespace, target.workload), target.containers
            )
        wanted = ContainerId(target.cluster, namespace, target.pod).checked()
        pod = await read_pod(reached, wanted)
    containers = target.containers or (named_container(pod, wanted).container,)
    for name in containers:
        if not set(name) & set("*?"):
            named_container(pod, ContainerId(target.cluster, namespace, target.pod, name))
    return Chosen(target.cluster, PodSelection.of_pod(namespace, target.pod), containers, target.pod)


def check_tail(tail: int | None) -> None:
    """Raise BadRequest for more lines at the start than are given at once."""
    if tail is not None and not 0 <= tail <= MAX_TAIL:
        raise BadRequest(f"tail is between 0 and {MAX_TAIL}")
