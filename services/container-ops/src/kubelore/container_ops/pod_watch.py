"""The containers of a selection of pods as they come and go, from one watch that all who ask for it share.

Each follower has the set of pods that changed since it last looked, never a
queue of events: whoever is slow sees the latest state of each pod once, and
holds up nobody. A watch goes on from its resourceVersion; when that is gone
the pods are listed again, and whatever went meanwhile has ended.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import msgspec

from kubelore.common.contracts.containers import ContainerId, ContainerKind
from kubelore.common.errors import Forbidden, Gone, KubeloreError, NotFound, TooLarge, UpstreamError
from kubelore.common.kube.resource_type import PODS
from kubelore.common.kube.watch import WatchEvent
from kubelore.common.reach import Reach, Reached
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.targets import OwnerReference, PodSelection, workload_of

log = get_logger(__name__)

MAX_PODS = 20_000
"""Pods of one selection; each takes about a kilobyte."""
MAX_NAMESPACES = 50
"""Namespaces that are watched one by one."""
_SLOWEST_S = 10.0

Happening = Literal["appeared", "changed", "ended"]


class LoggedContainer(msgspec.Struct, frozen=True, kw_only=True):
    """One container that has run at least once. `workload` is that of its pod (`deployments.apps/web`)."""

    id: ContainerId
    pod_uid: str
    node: str
    kind: ContainerKind
    running: bool
    restarts: int
    workload: str
    labels: dict[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """What no other container ever has: the uid of its pod, and its name."""
        return self.pod_uid, self.id.container


class Sighting(msgspec.Struct, frozen=True):
    """What happened to a container; one `ended` when its pod is gone, not when its process ends."""

    happening: Happening
    container: LoggedContainer


class _Run(msgspec.Struct):
    pass


class _State(msgspec.Struct):
    running: _Run | None = None
    terminated: _Run | None = None


class _Status(msgspec.Struct, rename="camel"):
    name: str
    restart_count: int = 0
    state: _State = msgspec.field(default_factory=_State)
    last_state: _State = msgspec.field(default_factory=_State)


class _Container(msgspec.Struct, rename="camel"):
    name: str
    restart_policy: str = ""


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str
    name: str
    namespace: str
    labels: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    init_containers: list[_Container] | None = None


class _PodStatus(msgspec.Struct, rename="camel"):
    container_statuses: list[_Status] | None = None
    init_container_statuses: list[_Status] | None = None
    ephemeral_container_statuses: list[_Status] | None = None


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


_decode = msgspec.json.Decoder(_Pod).decode

PodKey = tuple[str, str]
"""Namespace and name."""


def logged_containers(cluster: str, pod: _Pod) -> tuple[LoggedContainer, ...]:
    """The containers of a pod whose log can be asked for: what waits for its first run has none."""
    meta, status = pod.metadata, pod.status
    labels = meta.labels or {}
    workload = workload_of(meta.owner_references or [], labels)
    sidecars = {one.name for one in pod.spec.init_containers or () if one.restart_policy == "Always"}

    def seen(one: _Status, kind: ContainerKind) -> LoggedContainer:
        return LoggedContainer(
            id=ContainerId(cluster, meta.namespace, meta.name, one.name),
            pod_uid=meta.uid,
            node=pod.spec.node_name,
            kind="sidecar" if one.name in sidecars else kind,
            running=one.state.running is not None,
            restarts=one.restart_count,
            workload=workload,
            labels=labels,
        )

    kinds: tuple[tuple[ContainerKind, list[_Status] | None], ...] = (
        ("init", status.init_container_statuses),
        ("container", status.container_statuses),
        ("ephemeral", status.ephemeral_container_statuses),
    )
    return tuple(seen(one, kind) for kind, several in kinds for one in several or () if _has_run(one))


def _has_run(one: _Status) -> bool:
    states = (one.state.running, one.state.terminated, one.last_state.terminated)
    return any(state is not None for state in states)


class PodWatch:
    """Gives out what is seen of selections; the first who asks for one starts its watch, the last ends it."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._watched: dict[tuple[str, PodSelection], _Watched] = {}

    async def follow(self, cluster: str, selection: PodSelection) -> AsyncGenerator[list[Sighting]]:
        """What is there, then what changes: first a batch with all that is there, which may be empty.

        Raises what the API server refuses at the start (Forbidden, NotFound), and
        TooLarge when there are too many pods; what breaks later is mended. Close
        the iterator when leaving early.
        """
        key = (cluster, selection)
        watched = self._watched.get(key)
        if watched is None or watched.failed:
            watched = self._watched[key] = _Watched(self._reach, cluster, selection)
        follower = watched.join()
        try:
            async with aclosing(follower.sightings()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            if watched.leave(follower):
                if self._watched.get(key) is watched:
                    del self._watched[key]
                await watched.close()


class _Follower:
    """One who follows: which pods changed since it looked, and what it was told."""

    def __init__(self, watched: _Watched) -> None:
        self._watched = watched
        self._told: dict[PodKey, tuple[LoggedContainer, ...]] = {}
        self.changed: set[PodKey] = set(watched.pods)
        self.woken = asyncio.Event()

    async def sightings(self) -> AsyncGenerator[list[Sighting]]:
        await self._watched.ready()
        first = True
        while True:
            self.woken.clear()
            batch = self._news()
            if batch or first:
                yield batch
            first = False
            if not self.changed:
                await self.woken.wait()
            self._watched.check()

    def _news(self) -> list[Sighting]:
        changed, self.changed = self.changed, set()
        found: list[Sighting] = []
        for key in changed:
            before, now = self._told.get(key, ()), self._watched.pods.get(key, ())
            found += differences(before, now)
            if now:
                self._told[key] = now
            else:
                self._told.pop(key, None)
        return found


def differences(before: tuple[LoggedContainer, ...], now: tuple[LoggedContainer, ...]) -> list[Sighting]:
    """What happened between two states of the pods of one name, ends first."""
    old, new = {one.key: one for one in before}, {one.key: one for one in now}
    ended = [Sighting("ended", one) for key, one in old.items() if key not in new]
    changed = [
        Sighting("changed" if key in old else "appeared", one)
        for key, one in new.items()
        if old.get(key) != one
    ]
    return ended + changed


class _Watched:
    """The pods of one selection, kept up to date by one task for each namespace that is watched by itself."""

    def __init__(self, reach: Reach, cluster: str, selection: PodSelection) -> None:
        self._reach = reach
        self._cluster = cluster
        self._selection = selection
        self.pods: dict[PodKey, tuple[LoggedContainer, ...]] = {}
        self._known: dict[str, set[PodKey]] = {}
        self._followers: set[_Follower] = set()
        self._failure: KubeloreError | None = None
        namespaces = selection.namespaces
        single = len(namespaces) <= MAX_NAMESPACES
        self._listed = {namespace: asyncio.Event() for namespace in (namespaces if single else ())} or {
            "": asyncio.Event()
        }
        # Not on behalf of whoever came first: it goes on for others.
        self._tasks = [
            asyncio.create_task(self._run(one), context=contextvars.Context()) for one in self._listed
        ]

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def join(self) -> _Follower:
        follower = _Follower(self)
        self._followers.add(follower)
        return follower

    def leave(self, follower: _Follower) -> bool:
        """Whether nobody is left."""
        self._followers.discard(follower)
        return not self._followers

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ready(self) -> None:
        """Wait for the first list. Raises what refused it."""
        for listed in self._listed.values():
            await listed.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended the watch for good."""
        if self._failure is not None:
            raise self._failure

    async def _run(self, namespace: str) -> None:
        """Watch one namespace (empty: all) until cancelled, or refused before anything was seen."""
        rv, pause = "", 0.0
        while True:
            try:
                async with self._reach.streaming(self._cluster, resumes=True) as reached:
                    while True:
                        rv = await self._follow(reached, namespace, rv)
                        pause = 0.0
            except Gone:
                rv = ""
            except KubeloreError as error:
                refused = isinstance(error, Forbidden | NotFound | TooLarge)
                if refused or not self._listed[namespace].is_set():
                    self._fail(error)
                    return
                log.info("pods not watched", cluster=self._cluster, reason=error.reason, detail=error.detail)
            pause = min(max(0.2, 2 * pause), _SLOWEST_S)
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter

    def _fail(self, error: KubeloreError) -> None:
        self._failure = error
        for listed in self._listed.values():
            listed.set()
        for follower in self._followers:
            follower.woken.set()

    async def _follow(self, reached: Reached, namespace: str, rv: str) -> str:
        """One watch request to its end: the resourceVersion to go on from."""
        listing = None if rv else set[PodKey]()
        stream = reached.client.watch(
            PODS,
            namespace=namespace or None,
            rv=rv,
            labels=self._selection.labels,
            fields=self._selection.fields,
            send_initial=not rv,
        )
        async with aclosing(stream) as events:
            async for event in events:
                if event.kind == "BOOKMARK":
                    if event.initial_end and listing is not None:
                        self._listed_all(namespace, listing)
                        listing = None
                elif (key := self._take(event)) is not None:
                    self._known.setdefault(namespace, set()).add(key)
                    if listing is not None:
                        listing.add(key)
                if listing is None:
                    rv = event.rv
        return rv

    def _listed_all(self, namespace: str, listing: set[PodKey]) -> None:
        """What was there before and is not in the list has gone."""
        for key in self._known.get(namespace, set()) - listing:
            self._set(key, ())
        self._known[namespace] = listing
        self._listed[namespace].set()

    def _take(self, event: WatchEvent) -> PodKey | None:
        try:
            pod = _decode(event.object)
        except msgspec.MsgspecError as error:
            raise UpstreamError(f"the API server sent what is no pod: {error}") from error
        key = (pod.metadata.namespace, pod.metadata.name)
        wanted = not self._selection.owner or self._selection.owner == workload_of(
            pod.metadata.owner_references or [], pod.metadata.labels or {}
        )
        gone = event.kind == "DELETED" or not wanted
        self._set(key, () if gone else logged_containers(self._cluster, pod))
        return key

    def _set(self, key: PodKey, containers: tuple[LoggedContainer, ...]) -> None:
        if self._selection.namespaces and key[0] not in self._selection.namespaces:
            return
        if self.pods.get(key, ()) == containers:
            return
        if containers:
            self.pods[key] = containers
        else:
            self.pods.pop(key, None)
        if len(self.pods) > MAX_PODS:
            raise TooLarge(
                f"more than {MAX_PODS} pods of {self._cluster} are selected",
                remedy="Narrow it to namespaces, or by labels.",
            )
        for follower in self._followers:
            follower.changed.add(key)
            follower.woken.set()
