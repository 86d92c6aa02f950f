"""A gateway that serves on a port, a real bus behind it, and stand-ins that answer by contract."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
import zstandard
from pydantic import SecretStr
from pymongo import MongoClient

from kubelore.common.bus import Bus, ChangePublisher, Leases, Service, connect, ensure_streams
from kubelore.common.callers import current_caller
from kubelore.common.contracts import clusters, resources
from kubelore.common.contracts.changes import Change, Kind, Record, Was
from kubelore.common.contracts.clusters import (
    AddCluster,
    ClusterConnection,
    ClusterEvent,
    ClusterPage,
    ClusterRef,
    ConnectionTest,
    Empty,
    Group,
    GroupPage,
    GroupRef,
    Inspection,
    InspectKubeconfig,
    ListClusters,
    ListGroups,
    ListRoster,
    PublicKey,
    Removed,
    RotateKubeconfig,
    TestStep,
    UpdateCluster,
    UpdateGroup,
    cluster_event_subject,
)
from kubelore.common.contracts.resources import (
    ClusterMetrics,
    ClusterMetricsOf,
    ClusterState,
    Column,
    Counts,
    Dictionaries,
    Digest,
    DigestPage,
    Digests,
    Fetch,
    FetchMeant,
    Get,
    ListDigests,
    ListTypes,
    NamedDictionaries,
    Object,
    Objects,
    ObserverRef,
    ObserverReport,
    ObserverReports,
    Packed,
    PackedRows,
    Page,
    Query,
    ResolvedTypes,
    ResolveTypes,
    Row,
    SortKey,
    SyncCluster,
    TypeInfo,
    Types,
    observer_lease,
)
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, KubeloreError, NotFound
from kubelore.common.frames import Dictionary, Head
from kubelore.common.kube.selectors import LabelSelector
from kubelore.common.operations import current_operation
from kubelore.common.settings import CommonSettings
from kubelore.gateway.__main__ import main
from kubelore.gateway.settings import GatewaySettings
from kubelore.lab.waiting import wait_for
from kubelore.stack.ports import free_port

TOKEN = "a-token-for-tests-only"
SHORT = {"po": "pods", "cm": "configmaps", "pod": "pods"}


class StandInRegistry:
    """cluster-registry by its contract, over a dictionary."""

    def __init__(self, bus: Bus, keyring: Keyring) -> None:
        self.bus = bus
        self.keyring = keyring
        self.clusters: dict[str, ClusterConnection] = {}
        self.boxes: dict[str, str] = {}
        self.failure: KubeloreError | None = None
        self.during_add: Callable[[AddCluster], Awaitable[ClusterConnection]] | None = None
        self.tested: list[str] = []
        self.may_test = asyncio.Event()
        self.may_test.set()
        self.service = Service(bus, clusters.SERVICE, "0.0.1")
        self.service.serve(clusters.RECIPIENT, self.recipient)
        self.service.serve(clusters.LIST, self.list)
        self.service.serve(clusters.ROSTER, self.roster)
        self.service.serve(clusters.GET, self.get)
        self.service.serve(clusters.ADD, self.add)
        self.service.serve(clusters.REMOVE, self.remove)
        self.service.serve(clusters.TEST, self.test)
        self.service.serve(clusters.INSPECT, self.inspect)
        self.service.serve(clusters.UPDATE, self.update)
        self.service.serve(clusters.ROTATE, self.rotate)
        self.service.serve(clusters.LIST_GROUPS, self.list_groups)
        self.service.serve(clusters.GET_GROUP, self.get_group)
        self.service.serve(clusters.UPDATE_GROUP, self.update_group)

    async def put(self, name: str, **fields: Any) -> None:
        """Onboard a cluster, and say so as the registry does."""
        generation = self.clusters[name].generation + 1 if name in self.clusters else 1
        self.clusters[name] = ClusterConnection(
            id=name,
            name=name,
            display_name=name,
            context="c",
            server="https://192.0.2.1",
            created_at="2026-01-01T00:00:00.000Z",
            updated_at="2026-01-01T00:00:00.000Z",
            **{"generation": generation, **fields},
        )
        await self.say(name, "added")

    async def drop(self, name: str) -> None:
        del self.clusters[name]
        await self.say(name, "removed")

    async def say(self, name: str, happened: Any) -> None:
        event = ClusterEvent(cluster=name, happened=happened, at=0.0)
        await self.bus.publish_event(cluster_event_subject(event), event)

    async def recipient(self, _: Empty) -> PublicKey:
        return PublicKey(self.keyring.recipient().public_key)

    async def list(self, request: ListClusters) -> ClusterPage:
        if self.failure:
            raise self.failure
        names = sorted(name for name in self.clusters if name > (request.after or ""))
        shown = [self.clusters[name] for name in names[: request.limit]]
        more = len(names) > request.limit
        return ClusterPage(items=shown, total=len(self.clusters), next=shown[-1].name if more else None)

    async def roster(self, request: ListRoster) -> ClusterPage:
        return await self.list(ListClusters(after=request.after))

    async def get(self, request: ClusterRef) -> ClusterConnection:
        if request.id not in self.clusters:
            raise NotFound(f"there is no cluster named {request.id!r}")
        return self.clusters[request.id]

    async def add(self, request: AddCluster) -> ClusterConnection:
        if (during := self.during_add) is not None:
            self.during_add = None
            return await during(request)
        box = self.keyring.open_box(request.sealed.kubeconfig, context=f"kubeconfig:{request.name}")
        self.boxes[request.name] = box.decode()
        await self.put(
            request.name, tags=request.tags, group=request.group, created_by=current_caller().subject
        )
        return self.clusters[request.name]

    async def remove(self, request: ClusterRef) -> Removed:
        await self.get(request)
        await self.drop(request.id)
        return Removed(request.id)

    async def test(self, request: ClusterRef) -> ConnectionTest:
        await self.get(request)
        self.tested.append(current_operation())
        await self.may_test.wait()
        return ConnectionTest(cluster=request.id, ok=True, steps=[TestStep(name="dns", ok=True, detail="")])

    async def update(self, request: UpdateCluster) -> ClusterConnection:
        said = {
            name: value
            for name, value in msgspec.structs.asdict(request).items()
            if value is not msgspec.UNSET
        }
        self.clusters[said.pop("id")] = msgspec.structs.replace(self.clusters[request.id], **said)
        return self.clusters[request.id]

    async def rotate(self, request: RotateKubeconfig) -> ClusterConnection:
        box = self.keyring.open_box(request.sealed.kubeconfig, context=f"kubeconfig:{request.id}")
        self.boxes[request.id] = box.decode()
        return self.clusters[request.id]

    def _group(self, name: str) -> Group:
        return Group(name=name, clusters=sum(one.group == name for one in self.clusters.values()))

    async def list_groups(self, request: ListGroups) -> GroupPage:
        names = sorted({one.group for one in self.clusters.values() if one.group > (request.after or "")})
        shown = [self._group(name) for name in names[: request.limit]]
        more = len(names) > request.limit
        return GroupPage(shown, total=len(names), next=shown[-1].name if more else None)

    async def get_group(self, request: GroupRef) -> Group:
        return self._group(request.name)

    async def update_group(self, request: UpdateGroup) -> Group:
        to = request.rename if isinstance(request.rename, str) else request.name
        for name, one in self.clusters.items():
            if one.group == request.name:
                self.clusters[name] = msgspec.structs.replace(one, group=to)
        return self._group(to)

    async def inspect(self, request: InspectKubeconfig) -> Inspection:
        self.boxes["inspect"] = self.keyring.open_box(
            request.sealed.kubeconfig, context="kubeconfig:inspect"
        ).decode()
        return Inspection(contexts=[], current_context=None)


def packed(objects: list[bytes], dictionary: Dictionary, view: str) -> Packed:
    """Objects as resource-ops packs them, cut behind their metadata."""
    return Packed(
        frames=b"".join(frames := [_packed(raw, dictionary, view) if raw else b"" for raw in objects]),
        lengths=[len(frame) for frame in frames],
        uses=[0] * len(frames),
        dictionaries=[dictionary.fingerprint()],
    )


def _packed(raw: bytes, dictionary: Dictionary, view: str) -> bytes:
    metadata = _json(json.loads(raw)["metadata"])
    at = raw.find(metadata)
    frame = _compressed(metadata, dictionary.metadata)
    rest = raw[:at] + raw[at + len(metadata) :]
    head = Head(0, len(frame), at, 0, 0).pack()
    return head + frame + (_compressed(rest, dictionary.rest) if view == "object" else b"")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _compressed(data: bytes, dictionary: bytes) -> bytes:
    learned = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdCompressor(dict_data=learned).compress(data)


class Replica:
    """One replica of resource-ops by its contract: objects by id, and the types it knows.

    `before` may be set to do something (wait, fail, forget) before an endpoint
    answers: it gets the endpoint's name.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.objects: dict[str, dict[str, Any]] = {}
        self.types = {"pods", "configmaps"}
        self.names_a_page = 1000
        self.status: dict[str, str] = {}
        self.asked: list[tuple[str, Any]] = []
        self.dictionary = Dictionary()
        self.before: Callable[[str], Awaitable[None]] | None = None
        self.leases: list[Any] = []
        self.service = Service(bus, resources.SERVICE, "0.0.1")
        self.service.serve(resources.QUERY, self.query)
        self.service.serve(resources.FETCH, self.fetch)
        self.service.serve(resources.GET, self.get)
        self.service.serve(resources.COUNT, self.count)
        self.service.serve(resources.TYPES, self.served)
        self.service.serve(resources.DIGESTS, self.digests)
        self.service.serve(resources.MEANT, self.meant)
        self.service.serve(resources.RESOLVE, self.resolve)
        self.service.serve(resources.OBSERVERS, self.observers)
        self.service.serve(resources.DICTIONARIES, self.dictionaries)
        self.service.serve(resources.SYNC, self.sync)
        self.service.serve(resources.METRICS, self.metrics)

    async def observe(self, *names: str) -> None:
        """Hold the leases of clusters, by which the gateway finds their owner."""
        for name in names:
            self.leases.append(await Leases(self.bus).wait(observer_lease(name), retry_s=0.1))
            self.status.setdefault(name, "live")

    def hold(self, *ids: str, labels: dict[str, str] | None = None) -> None:
        for found in ids:
            _, _, namespace, name = found.split(":", 3)
            metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
            self.objects[found] = {"metadata": metadata}

    async def _asked(self, endpoint: str, request: Any) -> None:
        self.asked.append((endpoint, request))
        if self.before is not None:
            await self.before(endpoint)

    def _known(self, written: list[str]) -> set[str]:
        found = {SHORT.get(name, name) for name in written}
        for name in written:
            if SHORT.get(name, name) not in self.types:
                raise BadRequest(f'the server doesn\'t have a resource type "{name}"', unknown_type=name)
        return found

    def _state(self, name: str, count: int = 0) -> ClusterState:
        return ClusterState(name=name, status=self.status[name], as_of=1.0, count=count)  # type: ignore[arg-type]

    async def query(self, query: Query) -> Page:
        await self._asked("query", query)
        types, labels = self._known(query.types), LabelSelector.parse(query.labels)
        matching: list[tuple[SortKey, str]] = []
        for found, body in self.objects.items():
            cluster, kind, namespace, name = found.split(":", 3)
            stale = query.exclude_stale and self.status[cluster] != "live"
            chosen = cluster in query.clusters and (not types or kind in types) and not stale
            if chosen and labels.matches(body["metadata"]["labels"]):
                matching.append(([name, cluster, kind, namespace, name], found))
        down = query.sort.startswith("-")
        matching.sort(reverse=down)
        behind = [
            row
            for row in matching
            if not query.after or (row[0] < query.after if down else row[0] > query.after)
        ]
        rows = [Row(key, found, self._body(found) if query.objects else b"") for key, found in behind]
        counts = [sum(found.startswith(f"{name}:") for _, found in matching) for name in query.clusters]
        states = [self._state(name, count) for name, count in zip(query.clusters, counts, strict=True)]
        columns = [Column(name="Name")] if query.view == "table" else []
        page = Page(rows=rows[: query.limit], clusters=states, total=len(matching), columns=columns)
        if query.packed and query.objects and query.view != "table":
            objects = packed([row.object for row in page.rows], self.dictionary, query.view)
            last = page.rows[-1].key if page.rows else None
            page.packed = PackedRows(ids=[row.id for row in page.rows], objects=objects, last=last)
            page.rows = []
        return page

    def _body(self, found: str) -> bytes:
        return _json(self.objects[found]) if found in self.objects else b""

    async def fetch(self, request: Fetch) -> Objects:
        await self._asked("fetch", request)
        bodies = [self._body(found) for found in request.ids]
        if request.packed and request.view != "table":
            return Objects([], packed(bodies, self.dictionary, request.view))
        return Objects(bodies)

    async def dictionaries(self, request: NamedDictionaries) -> Dictionaries:
        await self._asked("dictionaries", request)
        known = {self.dictionary.fingerprint(): self.dictionary}
        return Dictionaries({name: known[name] for name in request.fingerprints if name in known})

    async def get(self, request: Get) -> Object:
        await self._asked("get", request)
        if request.id not in self.objects:
            raise NotFound(f"there is no {request.id}")
        return Object(
            id=request.id, object=self._body(request.id), state=self._state(request.id.split(":")[0])
        )

    async def count(self, query: Query) -> Counts:
        await self._asked("count", query)
        types = self._known(query.types)
        found = [
            one.split(":")
            for one in self.objects
            if one.split(":")[0] in query.clusters and (not types or one.split(":")[1] in types)
        ]
        return Counts(
            total=len(found),
            clusters=[self._state(name, sum(one[0] == name for one in found)) for name in query.clusters],
            types=dict(Counter(one[1] for one in found)),
            namespaces=dict(Counter(one[2] for one in found)),
            phases={"": len(found)} if found else {},
        )

    async def served(self, request: ListTypes) -> Types:
        await self._asked("types", request)
        held = {kind: sum(f":{kind}:" in found for found in self.objects) for kind in sorted(self.types)}
        return Types(
            [
                TypeInfo(
                    name=kind,
                    group="",
                    version="v1",
                    kind=kind.title(),
                    plural=kind,
                    singular=kind[:-1],
                    short_names=[],
                    namespaced=True,
                    clusters=request.clusters,
                    count=number,
                )
                for kind, number in held.items()
            ]
        )

    async def digests(self, request: ListDigests) -> DigestPage:
        await self._asked("digests", request)
        types = sorted(self._known(request.types))
        named: dict[tuple[str, str, str], list[Digest]] = {}
        for found, body in self.objects.items():
            cluster, *name = found.split(":", 3)
            if cluster in request.clusters and name[0] in types and request.name in ("", name[2]):
                digest = hashlib.blake2b(json.dumps(body).encode(), digest_size=16).digest()
                named.setdefault((name[0], name[1], name[2]), []).append(
                    Digest(request.clusters.index(cluster), digest)
                )
        behind = [name for name in sorted(named) if request.after is None or name > request.after]
        names = behind[: self.names_a_page]
        return DigestPage(
            rows=[Digests(*name, named[name]) for name in names],
            clusters=[self._state(name) for name in request.clusters],
            types=types,
            next=names[-1] if len(behind) > len(names) else None,
        )

    async def meant(self, request: FetchMeant) -> Objects:
        await self._asked("meant", request)
        return Objects([self._body(found) for found in request.ids])

    async def resolve(self, request: ResolveTypes) -> ResolvedTypes:
        await self._asked("resolve", request)
        return ResolvedTypes(sorted(self._known(request.names)))

    async def sync(self, request: SyncCluster) -> ObserverReport:
        await self._asked("sync", request)
        return (await self.observers(ObserverRef([request.cluster]))).items[0]

    async def metrics(self, request: ClusterMetricsOf) -> ClusterMetrics:
        await self._asked("metrics", request)
        nothing = dict.fromkeys(
            ("nodes", "pods", "capacity", "allocatable", "requests", "limits", "usage"), None
        )
        return ClusterMetrics(
            cluster=request.cluster,
            status="live",
            as_of=1.0,
            namespaces=[],
            missing={"usage": "metrics-server is not installed"},
            **nothing,
        )

    async def observers(self, request: ObserverRef) -> ObserverReports:
        await self._asked("observers", request)
        return ObserverReports(
            [
                ObserverReport(
                    cluster=name,
                    replica=self.bus.replica,
                    status=self.status[name],  # type: ignore[arg-type]
                    as_of=1.0,
                    error=None,
                    objects=0,
                    published=0,
                    incarnation=1,
                )
                for name in request.clusters
                if name in self.status
            ]
        )

    async def release(self, cluster: str) -> None:
        """Observe a cluster no longer."""
        lease = next(lease for lease in self.leases if lease.key == observer_lease(cluster))
        self.leases.remove(lease)
        await lease.release()

    async def report(self, cluster: str, status: str, error: str = "", as_of: float | None = 1.0) -> None:
        """Say how the observer of a cluster is, as of one second after the epoch."""
        event = ClusterEvent(
            cluster=cluster, happened="synced", at=2.0, as_of=as_of, detail=status, error=error
        )
        await self.bus.publish_event(cluster_event_subject(event), event)

    async def publish(self, cluster: str, *records: Record) -> None:
        """Publish records as the observer of a cluster, which must be observed here."""
        lease = next(lease for lease in self.leases if lease.key == observer_lease(cluster))
        publisher = ChangePublisher(self.bus, cluster, lease)
        await publisher.fence()
        for record in records:
            await publisher.put(record)
        await publisher.flush()
        await publisher.close()


class Events:
    """Server-sent events as a client reads them."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self, *, bookmarks: bool = False) -> tuple[str, str, dict[str, Any]]:
        """The next event as (name, id, data); bookmarks only when asked for."""
        name = event_id = ""
        async with asyncio.timeout(20):
            async for line in self._lines:
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "id":
                    event_id = value
                elif key == "data" and (bookmarks or name != "bookmark"):
                    return name, event_id, json.loads(value)
        raise AssertionError("the stream ended")


class World:
    """The gateway's address, its client, and who stands behind it."""

    def __init__(self, settings: GatewaySettings, registry: StandInRegistry) -> None:
        self.settings = settings
        self.registry = registry
        self.url = f"http://127.0.0.1:{settings.gateway_port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)
        self.stranger = httpx.AsyncClient(base_url=self.url, timeout=20)
        self.replicas: list[Replica] = []
        self.stopping = asyncio.Event()
        self.serving: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Stop the gateway in order; it may have been already."""
        self.stopping.set()
        if self.serving is not None:
            async with asyncio.timeout(15):
                with suppress(KubeloreError):
                    await self.serving

    async def replica(self, *names: str) -> Replica:
        """A replica that observes clusters, which are onboarded if they are not."""
        bus = await connect(self.settings.model_copy(update={"replica": ""}), name=resources.SERVICE)
        replica = Replica(bus)
        self.replicas.append(replica)
        await replica.service.start()
        await replica.observe(*names)
        for name in names:
            if name not in self.registry.clusters:
                await self.registry.put(name)

        async def seen() -> bool:
            states = {state["name"]: state["error"] for state in (await self.list(limit=1))["clusters"]}
            return all(states.get(name, "unknown") is None for name in names)

        await wait_for(seen, f"the gateway to know who observes {names}", 20, every=0.02)
        replica.asked.clear()
        return replica

    async def list(self, **query: Any) -> dict[str, Any]:
        answer = await self.http.get("/api/k8s/unified/resources", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def names(self, **query: Any) -> list[str]:
        return [item["object"]["metadata"]["name"] for item in (await self.list(**query))["items"]]

    async def refused(
        self, path: str = "/api/k8s/unified/resources", **query: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and problem document of a request that must fail."""
        answer = await self.http.get(path, params=query)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert answer.json()["status"] == answer.status_code
        return answer.status_code, answer.json()

    async def token(self, name: str = "somebody", expires_in_s: int = 600, **grant: Any) -> dict[str, Any]:
        """A new token, `token` being its secret."""
        body = {"name": name, "grants": [{"role": "viewer", **grant}], "expires_in_s": expires_in_s}
        answer = await self.http.post("/api/tokens", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def watching(
        self, last_event_id: str = "", client: httpx.AsyncClient | None = None, **query: Any
    ) -> AsyncIterator[Events]:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        async with (client or self.http).stream(
            "GET", "/api/k8s/unified/watch", params=query, headers=headers
        ) as answer:
            assert answer.status_code == 200, await answer.aread()
            events = Events(answer)
            async with aclosing(answer.aiter_raw()):
                yield events


def change(
    kind: Kind,
    found: str,
    rv: str = "1",
    *,
    was: Was | None = None,
    old_rv: str | None = None,
    **metadata: Any,
) -> Change:
    """A change of the object `found` (an id), as an observer publishes it."""
    cluster, type_name, namespace, name = found.split(":", 3)
    body = {
        "metadata": {"name": name, "namespace": namespace, "uid": found, "resourceVersion": rv, **metadata}
    }
    return Change(
        cluster=cluster,
        incarnation=1,
        type=type_name,
        uid=found,
        id=found,
        kind=kind,
        rv=rv,
        at=0.0,
        old_rv=old_rv if old_rv is not None else "0" * (kind == "updated"),
        object=zstandard.compress(json.dumps(body).encode()),
        was=was,
    )


@pytest.fixture
def make_change() -> Callable[..., Change]:
    return change


class Tamperer:
    """Somebody who may do everything in the database, and knows nothing else."""

    def __init__(self, settings: CommonSettings) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(settings.mongo_url.get_secret_value())
        self.database = self._client[settings.mongo_database]

    @contextmanager
    def refusing_writes(self, collection: str) -> Iterator[None]:
        """Let the server refuse every new document of a collection."""
        self.database.command("collMod", collection, validator={"never": {"$exists": True}})
        try:
            yield
        finally:
            self.database.command("collMod", collection, validator={})

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def mongo_of() -> Iterator[Callable[[CommonSettings], Tamperer]]:
    made: list[Tamperer] = []

    def open_for(settings: CommonSettings) -> Tamperer:
        made.append(Tamperer(settings))
        return made[-1]

    yield open_for
    for one in made:
        one.close()


@asynccontextmanager
async def gateway(chosen: GatewaySettings) -> AsyncGenerator[str]:
    """A gateway that is ready, in this process; its URL."""
    stopping = asyncio.Event()
    serving = asyncio.create_task(main(chosen, stopping))
    url = f"http://127.0.0.1:{chosen.gateway_port}"
    try:
        async with httpx.AsyncClient(base_url=url) as client:

            async def ready() -> bool:
                if serving.done():
                    serving.result()
                return (await client.get("/readyz")).status_code == 200

            await wait_for(ready, "the gateway to be ready", 20, every=0.02, ignoring=(httpx.TransportError,))
        yield url
    finally:
        stopping.set()
        async with asyncio.timeout(15):
            with suppress(KubeloreError):
                await serving


@pytest_asyncio.fixture(loop_scope="session")
async def another(world: World) -> AsyncIterator[Callable[..., Awaitable[httpx.AsyncClient]]]:
    """Start another gateway over the same bus and database, with other settings; a client without credentials."""
    async with AsyncExitStack() as stack:

        async def start(**different: Any) -> httpx.AsyncClient:
            values = {**world.settings.model_dump(), "gateway_port": free_port(), "replica": "", **different}
            url = await stack.enter_async_context(gateway(GatewaySettings(**values)))
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def world(settings: CommonSettings) -> AsyncIterator[World]:
    """A gateway without clusters; the world adds them."""
    keyring = Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
    bus = await connect(settings, name=clusters.SERVICE)
    await ensure_streams(bus)
    registry = StandInRegistry(bus, keyring)
    await registry.service.start()
    chosen = GatewaySettings(
        **settings.model_dump(), admin_token=SecretStr(TOKEN), gateway_port=free_port(), max_watches=2
    )
    made = World(chosen, registry)
    serving = made.serving = asyncio.create_task(main(chosen, made.stopping))

    async def ready() -> bool:
        if serving.done():
            serving.result()
        return (await made.stranger.get("/readyz")).status_code == 200

    await wait_for(ready, "the gateway to be ready", 20, every=0.02, ignoring=(httpx.TransportError,))
    yield made
    await made.http.aclose()
    await made.stranger.aclose()
    await made.stop()
    for replica in made.replicas:
        await replica.service.stop()
        for lease in replica.leases:
            await lease.release()
        await replica.bus.close()
    await registry.service.stop()
    await bus.close()
