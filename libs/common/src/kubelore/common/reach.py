"""Connections to clusters: any replica reaches any cluster, with credentials it asks for when it needs them.

A connection, and the types its cluster serves, stay open for what comes next.
At most 64 are open; one that nobody used for five minutes is closed. Credentials
are asked for again after ten seconds, and at once when the cluster's record
changed or it was removed, so that a rotated kubeconfig is used, and that of a
removed cluster is not. What streams is ended with its cluster, and begun again
with other credentials where it can go on from where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from kubelore.common.authz import no_such_cluster
from kubelore.common.bus import Bus
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import ClusterEvent, ClusterRef, Credentials
from kubelore.common.contracts.flows import CLUSTER_EVENTS
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    BadRequest,
    IntegrityError,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient, ResourceType
from kubelore.common.mandates import ended_by
from kubelore.common.telemetry import get_logger, outgoing

log = get_logger(__name__)

MAX_OPEN = 64
CONCURRENT = 16
"""Requests at once to one cluster; streams are not counted."""
IDLE_S = 300.0
FRESH_S = 10.0
REDISCOVER_S = 300.0
LEAST_REDISCOVER_S = 1.0
_SWEEP_S = 30.0
_RETRY_S = 2.0

Types = dict[str, ResourceType]


class CredentialsChanged(Unavailable):
    """The cluster has other credentials now: go on with a new connection."""


@dataclass(slots=True)
class Reached:
    """One cluster that can be asked; `types` are by canonical name."""

    client: KubeClient
    generation: int
    checked_at: float = 0.0
    used_at: float = 0.0
    users: int = 0
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT))
    _types: Types = field(default_factory=dict)
    _discovered_at: float = float("-inf")
    _discovering: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def types(self, *, newer_than_s: float = REDISCOVER_S) -> Types:
        """What the cluster serves, discovered at most so many seconds ago."""
        async with self._discovering:
            if time.monotonic() - self._discovered_at > newer_than_s:
                self._types = (await self.client.discovery()).by_name()
                self._discovered_at = time.monotonic()
        return self._types

    async def find(self, find: Callable[[Types], ResourceType]) -> ResourceType:
        """A type, looked for again in what the cluster serves now when it was not known. Raises what `find` does."""
        with suppress(NotFound, BadRequest):
            return find(await self.types())
        return find(await self.types(newer_than_s=LEAST_REDISCOVER_S))


@dataclass(frozen=True, eq=False, slots=True)
class _Stream:
    """What is open to a cluster; `over` holds why it has to end."""

    cluster: str
    generation: int
    resumes: bool
    over: asyncio.Future[None]

    def end(self, error: KubeloreError) -> None:
        if not self.over.done():
            self.over.set_exception(error)


class Reach:
    """Opens, keeps and closes the connections. `open_client` opens sealed credentials; see `open`."""

    def __init__(self, bus: Bus, open_client: Callable[[Credentials], KubeClient]) -> None:
        self._bus = bus
        self._open_client = open_client
        self._reached: dict[str, Reached] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._streams: set[_Stream] = set()

    @classmethod
    def open(cls, bus: Bus, keyring: Keyring, policy: AddressPolicy) -> Reach:
        """With credentials that the keyring `clusters` opens."""

        def open_client(credentials: Credentials) -> KubeClient:
            return KubeClient(open_access(keyring, credentials), policy, headers=outgoing)

        return cls(bus, open_client)

    async def run(self) -> None:
        """Follow what happens to clusters and close what is not used, until cancelled; then close everything."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_events())
                group.create_task(self._sweep_forever())
        finally:
            for name in list(self._reached):
                await self._close(name)

    @asynccontextmanager
    async def using(self, cluster: str) -> AsyncIterator[Reached]:
        """The cluster's connection for one request, when there is room for it.

        Raises NotFound for a cluster that is not onboarded, TooManyRequests when
        64 others are in use.
        """
        async with self._borrowed(cluster) as reached, reached.room:
            yield reached

    @asynccontextmanager
    async def streaming(self, cluster: str, *, resumes: bool = False) -> AsyncIterator[Reached]:
        """The cluster's connection for what stays open: it takes no room from requests. Raises as `using` does.

        The block is cancelled, and NotFound raised, when the cluster is removed;
        where it `resumes`, with CredentialsChanged when its credentials are.
        """
        async with self._borrowed(cluster) as reached:
            over = asyncio.get_running_loop().create_future()
            stream = _Stream(cluster, reached.generation, resumes, over)
            self._streams.add(stream)
            try:
                async with ended_by(over):
                    yield reached
            finally:
                self._streams.discard(stream)

    @asynccontextmanager
    async def _borrowed(self, cluster: str) -> AsyncIterator[Reached]:
        reached = await self._get(cluster)
        reached.users += 1
        try:
            yield reached
        finally:
            reached.users -= 1
            reached.used_at = time.monotonic()
            if self._reached.get(cluster) is not reached and not reached.users:
                await reached.client.close()

    async def _get(self, cluster: str) -> Reached:
        async with self._opening.setdefault(cluster, asyncio.Lock()):
            held = self._reached.get(cluster)
            if held is not None and time.monotonic() - held.checked_at < FRESH_S:
                return held
            credentials = await self._credentials(cluster)
            if held is not None and self._reached.get(cluster) is held:
                if held.generation == credentials.generation:
                    held.checked_at = time.monotonic()
                    return held
                await self._close(cluster)
            self._resume(cluster, credentials.generation)
            await self._make_room()
            now = time.monotonic()
            client = self._open_client(credentials)
            made = Reached(client, credentials.generation, now, now)
            self._reached[cluster] = made
            return made

    async def _credentials(self, cluster: str) -> Credentials:
        try:
            return await self._bus.request(clusters.CREDENTIALS, ClusterRef(cluster))
        except NotFound:
            await self._close(cluster)
            self._end(cluster)
            raise

    def _end(self, cluster: str, generation: int | None = None) -> None:
        """End every stream to a cluster that is gone; `generation` is the last that it had."""
        for stream in self._streams:
            if stream.cluster == cluster and (generation is None or stream.generation <= generation):
                stream.end(no_such_cluster(cluster))

    def _resume(self, cluster: str, generation: int) -> None:
        """Let the streams that can go on do so with the credentials of a generation."""
        for stream in self._streams:
            if stream.cluster == cluster and stream.resumes and stream.generation < generation:
                stream.end(CredentialsChanged(f"{cluster} has other credentials now", retry_after_s=1))

    async def _make_room(self) -> None:
        if len(self._reached) < MAX_OPEN:
            return
        idle = [name for name, reached in self._reached.items() if not reached.users]
        if not idle:
            raise TooManyRequests(
                f"{MAX_OPEN} clusters are in use", remedy="Try again soon.", retry_after_s=1
            )
        await self._close(min(idle, key=lambda name: self._reached[name].used_at))

    async def _close(self, cluster: str) -> None:
        """Forget a connection. One that is in use is closed by its last user."""
        reached = self._reached.pop(cluster, None)
        if reached is not None and not reached.users:
            await reached.client.close()

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            since = time.monotonic() - IDLE_S
            for name, reached in list(self._reached.items()):
                if not reached.users and reached.used_at < since:
                    await self._close(name)
            for name in {stream.cluster for stream in self._streams}:
                # What happened to it may not have been heard.
                with suppress(KubeloreError):
                    await self._get(name)
            self._opening = {name: lock for name, lock in self._opening.items() if lock.locked()}

    async def _follow_events(self) -> None:
        while True:
            try:
                async for event in self._bus.subscribe_events(CLUSTER_EVENTS, ClusterEvent):
                    if event.happened in ("added", "removed", "updated"):
                        await self._close(event.cluster)
                    if event.happened == "removed":
                        self._end(event.cluster, event.generation)
                    elif event.happened == "updated":
                        self._resume(event.cluster, event.generation)
            except KubeloreError as error:
                log.warning("cluster events not followed", reason=error.reason, detail=error.detail)
                await asyncio.sleep(_RETRY_S)


def open_access(keyring: Keyring, credentials: Credentials) -> ClusterAccess:
    """Open sealed credentials with the keyring `clusters`. Raises IntegrityError."""
    plain = keyring.open(credentials.sealed, context=f"cluster:{credentials.id}")
    try:
        return msgspec.msgpack.decode(plain, type=ClusterAccess)
    except msgspec.MsgspecError:
        # Not chained: the decoder's message may quote what it could not decode.
        raise IntegrityError(f"the credentials of {credentials.id} are of no known form") from None
