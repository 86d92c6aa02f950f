"""Restores over a real bus, database and sealed backup, into a cluster that answers by the contract of resource-ops."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.backups import About, BackupReader, BackupWriter, LocalFolder, Record, Scope
from kubelore.common.bus import Bus, Leases, Service, connect, ensure_streams
from kubelore.common.callers import current_caller
from kubelore.common.contracts import restores as contract
from kubelore.common.contracts.exports import EXPORT, Export, ExportPage
from kubelore.common.contracts.restores import (
    ListRestoreItems,
    ListRestores,
    Restore,
    RestoredItem,
    RestoreRef,
    StartRestore,
)
from kubelore.common.contracts.writes import (
    NOT_BEGUN,
    REPLACE_MANY,
    ManyResult,
    ReplacedMany,
    ReplaceMany,
    replace_context,
)
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from kubelore.common.kube.secrets import strip_secret
from kubelore.common.operations import current_operation, new_operation_id, operating
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.lab.waiting import wait_for
from kubelore.stack.fixtures import speak_as
from kubelore.yaml_vcs.restore_repository import Job, RestoreRepository
from kubelore.yaml_vcs.restore_run import Keys
from kubelore.yaml_vcs.restores import AT_ONCE, MAX_WAITING, RestoreRunner, Restores, telling
from kubelore.yaml_vcs.service import serve_restores

BACKUP = "20260101-000000-aaaaaaaaaaaa"


class FileSink:
    """A folder that a backup is written to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def create(self, name: str, content: bytes) -> None:
        (self._path / name).parent.mkdir(parents=True, exist_ok=True)
        (self._path / name).write_bytes(content)


class Cluster:
    """Objects behind the contract of resource-ops: creates what is not there, once per operation and item."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.objects: dict[str, dict[str, Any]] = {}
        self.created: list[str] = []
        self.results: dict[tuple[str, int], ManyResult] = {}
        self.requests: list[ReplaceMany] = []
        self.served: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.begin_at_most = 500
        self.failing: KubeloreError | None = None
        self.answer_lost = 0

    async def replace_many(self, request: ReplaceMany) -> ReplacedMany:
        if self.failing is not None:
            raise self.failing
        self.requests.append(request)
        results = [self._one(request, number, item) for number, item in enumerate(request.items)]
        if self.answer_lost:
            self.answer_lost -= 1
            raise Unavailable("the answer got lost")
        await self.gate.wait()
        return ReplacedMany(results)

    def _one(self, request: ReplaceMany, number: int, item: Any) -> ManyResult:
        key = current_operation(), item.item
        if key in self.results:
            return self.results[key]
        if number >= self.begin_at_most:
            return ManyResult(id=item.id, item=item.item, result="failed", error=NOT_BEGUN)
        result = self._written(request, item)
        if not request.dry_run:
            self.results[key] = result
        return result

    def _written(self, request: ReplaceMany, item: Any) -> ManyResult:
        cluster, type_name, namespace, _ = item.id.split(":", 3)
        try:
            current_caller().check_write(cluster, type_name, namespace)
        except KubeloreError as error:
            return ManyResult(
                id=item.id, item=item.item, result="failed", error=error.reason, detail=error.detail
            )
        manifest = item.manifest or self._keyring.open_box(item.sealed, context=replace_context(item.id))
        found = json.loads(manifest)
        held = self.objects.get(item.id)
        if held is not None and request.on_existing != "update":
            result = "skipped" if request.on_existing == "skip" else "failed"
            error = "" if result == "skipped" else "AlreadyExists"
            return ManyResult(id=item.id, item=item.item, result=result, uid=held["uid"], error=error)
        home = namespace and f"{cluster}:namespaces::{namespace}" not in self.objects
        if home:
            return ManyResult(
                id=item.id, item=item.item, result="failed", error="NotFound", detail="no namespace"
            )
        uid = f"new-{len(self.objects)}" if held is None else held["uid"]
        if not request.dry_run:
            self.objects[item.id] = {
                "uid": uid,
                "manifest": found,
                "reason": request.reason,
                "log": request.change_log,
            }
            if held is None:
                self.created.append(item.id)
            if type_name.startswith("customresourcedefinitions"):
                self.served.add(item.id.split(":", 3)[3])
        return ManyResult(
            id=item.id, item=item.item, result="changed" if held else "created", uid=uid, rv="1"
        )

    async def export(self, request: Export) -> ExportPage:
        if request.type not in self.served:
            raise BadRequest(f"{request.type} is not served")
        return ExportPage(items=[])


class World:
    """A backup, a cluster, and replicas of what restores."""

    def __init__(self, settings: CommonSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.versions = Keyring.create(settings.keyring_dir / "versions.json", "versions")
        clusters = Keyring.create(settings.keyring_dir / "clusters.json", "clusters")
        self.keys = Keys(versions=self.versions, clusters=clusters.recipient())
        self.cluster = Cluster(clusters)
        self.asking: Bus
        self.repository: RestoreRepository

    async def back_up(self, listed: Iterable[tuple[str, dict[str, Any]]], **scope: Any) -> None:
        about = About(
            name="b",
            created_at="2026-01-01T00:00:00Z",
            completed_at="2026-01-01T00:00:01Z",
            created_by="admin",
            reason="",
            scope=Scope(**{"clusters": ["prod"], **scope}),
        )
        async with BackupWriter(FileSink(self.folder), self.versions, BACKUP) as writer:
            packer = writer.packer("prod")
            for type_name, found in listed:
                await packer.add([self._record(type_name, found)])
            await packer.close()
            await writer.finish(about)

    def _record(self, type_name: str, found: dict[str, Any]) -> Record:
        raw, sealed = json.dumps(found).encode(), b""
        if type_name == "secrets":
            recipient = self.versions.recipient()
            stripped = strip_secret(raw, cluster="prod", hmac=self.versions.hmac, seal=recipient.seal)
            raw, sealed = stripped.object, stripped.sealed
        metadata = found["metadata"]
        return Record(
            cluster="prod",
            type=type_name,
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata["uid"],
            rv=metadata["resourceVersion"],
            object=raw,
            sealed=sealed,
        )

    async def open_backup(self, backup_id: str) -> BackupReader:
        if backup_id != BACKUP:
            raise NotFound("there is no such backup")
        return await BackupReader.open(LocalFolder(self.folder), self.versions, backup_id)

    def as_caller(self, caller: Caller) -> None:
        self.asking.speaks_for = caller

    async def start(self, **asked: Any) -> Restore:
        with operating(new_operation_id()):
            return await self.asking.request(contract.START, StartRestore(backup_id=BACKUP, **asked))

    async def ended(self, id_: str) -> Restore:
        async def over() -> Restore | None:
            found = await self.asking.request(contract.GET, RestoreRef(id_))
            return found if found.state in contract.ENDED else None

        return await wait_for(over, "the restore to end", 30)

    async def restored(self, **asked: Any) -> Restore:
        return await self.ended((await self.start(**asked)).id)

    async def items(self, id_: str, result: str = "") -> list[RestoredItem]:
        found: list[RestoredItem] = []
        after: int | None = -1
        while after is not None:
            asked = ListRestoreItems(id=id_, result=result, after=after, limit=7)
            page = await self.asking.request(contract.ITEMS, asked)
            found += page.items
            after = page.next
        return found


Replica = Callable[[], Awaitable[asyncio.Task[None]]]


@pytest_asyncio.fixture(loop_scope="session")
async def world(settings: CommonSettings, tmp_path: Path) -> AsyncIterator[World]:
    made = World(settings, tmp_path / "backup")
    made.asking = speak_as(await connect(settings, name="gateway"), settings)
    await ensure_streams(made.asking)
    other = await connect(settings, name="resource-ops")
    served = Service(other, "resource-ops", "0.1.0")
    served.serve(REPLACE_MANY, made.cluster.replace_many)
    served.serve(EXPORT, made.cluster.export)
    await served.start()
    async with await open_database(settings) as database:
        made.repository = RestoreRepository(database)
        await made.repository.prepare()
        yield made
    await served.stop()
    await other.close()
    await made.asking.close()


@pytest_asyncio.fixture(loop_scope="session")
async def replica(world: World) -> AsyncIterator[Replica]:
    """Starts replicas of what restores; each ends at the latest with the test."""
    opened: list[tuple[Bus, asyncio.Task[None]]] = []

    async def start() -> asyncio.Task[None]:
        bus = await connect(world.settings, name="yaml-vcs")
        runner = RestoreRunner(world.repository, world.open_backup, world.keys, bus, telling(bus))
        service = Service(bus, "yaml-vcs", "0.1.0")
        serve_restores(service, Restores(world.repository, world.open_backup, world.keys, runner))
        await service.start()
        task = asyncio.create_task(runner.run())
        opened.append((bus, task))
        return task

    yield start
    for bus, task in opened:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()


def thing(name: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "7"}
    metadata |= {"namespace": namespace} if namespace else {}
    metadata |= more.pop("metadata", {})
    return {"apiVersion": "v1", "kind": "X", "metadata": metadata, **more}


SHOP = [
    ("namespaces", thing("shop", "")),
    ("configmaps", thing("motd", data={"a": "b"})),
    ("configmaps", thing("kube-root-ca.crt")),
    ("secrets", thing("login", data={"password": base64.b64encode(b"c4nary-password").decode()})),
    ("services", thing("web", spec={"clusterIP": "10.0.0.1", "ports": [{"port": 80}]})),
    ("widgets.example.org", thing("w")),
    ("customresourcedefinitions.apiextensions.k8s.io", thing("widgets.example.org", "")),
    ("pods", thing("owned", metadata={"ownerReferences": [{"uid": "uid-w", "kind": "Widget"}]})),
]


async def test_a_backup_is_restored_in_order_once_and_each_object_is_told_of(
    world: World, replica: Replica
) -> None:
    await world.back_up(SHOP)
    await replica()
    ended = await world.restored(reason="lost it")
    assert (ended.state, ended.error) == ("completed", "")
    assert ended.counts == {"created": 7, "changed": 0, "unchanged": 0, "skipped": 1, "failed": 0}
    assert (ended.total, ended.created_by) == (8, "admin")
    created = [one.split(":", 1)[1] for one in world.cluster.created]
    assert created[0] == "customresourcedefinitions.apiextensions.k8s.io::widgets.example.org"
    assert created[1] == "namespaces::shop"
    assert created.index("widgets.example.org:shop:w") < created.index("pods:shop:owned")
    told = {one.id.rpartition(":")[2]: one for one in await world.items(ended.id)}
    assert told["kube-root-ca.crt"].reasons[0].rule == "ca-of-the-cluster"
    assert [one.rule for one in told["web"].reasons] == ["cluster-ip"]
    assert told["motd"].source == "prod:configmaps:shop:motd"
    held = world.cluster.objects["prod:pods:shop:owned"]["manifest"]
    assert held["metadata"]["ownerReferences"][0]["uid"] == told["w"].uid
    motd = world.cluster.objects["prod:configmaps:shop:motd"]
    assert (motd["reason"], motd["log"]) == ("lost it", f"restored from backup {BACKUP}")
    assert [one.id for one in await world.items(ended.id, "skipped")] == [
        "prod:configmaps:shop:kube-root-ca.crt"
    ]


async def test_values_of_secrets_come_back_and_pass_the_bus_sealed_only(
    world: World, replica: Replica
) -> None:
    await world.back_up(SHOP)
    await replica()
    ended = await world.restored()
    held = world.cluster.objects["prod:secrets:shop:login"]["manifest"]
    assert base64.b64decode(held["data"]["password"]) == b"c4nary-password"
    sent = msgspec.msgpack.encode(world.cluster.requests)
    shown = msgspec.json.encode([ended, await world.items(ended.id)])
    for canary in (b"c4nary", base64.b64encode(b"c4nary-password")):
        assert canary not in sent
        assert canary not in shown


async def test_a_damaged_backup_is_refused_by_name_and_nothing_is_written(
    world: World, replica: Replica
) -> None:
    await world.back_up(
        [*SHOP, *(("configmaps", thing(f"c{n}", data={"x": "y" * 500_000})) for n in range(12))]
    )
    chunks = sorted((world.folder / "chunks").iterdir())
    assert len(chunks) > 2
    last = chunks[-2]
    raw = bytearray(last.read_bytes())
    raw[len(raw) // 2] ^= 1
    last.write_bytes(raw)
    await replica()
    ended = await world.restored()
    assert ended.state == "failed"
    assert "altered" in ended.error
    assert world.cluster.requests == []
    assert await world.items(ended.id) == []


async def test_a_replica_goes_on_where_another_stopped_and_does_nothing_twice(
    world: World, replica: Replica
) -> None:
    await world.back_up([SHOP[0], *(("configmaps", thing(f"c{number:04}")) for number in range(900))])
    first = await replica()
    started = await world.start()

    async def half_way() -> bool:
        return len(world.cluster.created) > 300

    await wait_for(half_way, "some of it to be restored", 20, every=0.001)
    # What was written last is not answered: the replica ends without knowing of it.
    world.cluster.gate.clear()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.cluster.gate.set()
    assert len(world.cluster.created) < 901
    await replica()
    ended = await world.ended(started.id)
    assert (ended.state, ended.total, ended.counts["created"]) == ("completed", 901, 901)
    assert len(world.cluster.created) == len(set(world.cluster.created)) == 901
    assert [one.number for one in await world.items(started.id)] == list(range(901))


@asynccontextmanager
async def _waiting_elsewhere(world: World, count: int) -> AsyncIterator[None]:
    """Restores that somebody else holds, and does nothing for."""
    bus = await connect(world.settings, name="yaml-vcs")
    leases, held = Leases(bus), []
    for _ in range(count):
        id_ = new_operation_id()
        held.append(await leases.acquire(f"restore.{id_}"))
        asked = StartRestore(backup_id=BACKUP)
        await world.repository.add(
            Job(id=id_, asked=asked, created_by="admin", created_at=datetime.now(UTC), scope=[], mandate=b"")
        )
    yield
    for lease in held:
        await lease.release()
    await bus.close()


async def test_restores_that_cannot_go_on_let_the_others_pass(world: World, replica: Replica) -> None:
    await world.back_up(SHOP)
    async with _waiting_elsewhere(world, AT_ONCE):
        await replica()
        assert (await world.restored()).state == "completed"


async def test_what_is_not_begun_or_whose_answer_is_lost_is_sent_again(
    world: World, replica: Replica
) -> None:
    await world.back_up([SHOP[0], *(("configmaps", thing(f"c{number}")) for number in range(50))])
    world.cluster.begin_at_most = 20
    world.cluster.answer_lost = 2
    await replica()
    ended = await world.restored()
    assert ended.counts["created"] == 51
    assert len(set(world.cluster.created)) == len(world.cluster.created) == 51


async def test_a_cancelled_restore_begins_nothing_more(world: World, replica: Replica) -> None:
    await world.back_up([SHOP[0], *(("configmaps", thing(f"c{number}")) for number in range(1500))])
    await replica()
    world.cluster.gate.clear()
    started = await world.start()
    await wait_for(_requests(world, 1), "the first request", 10)
    assert (await world.asking.request(contract.CANCEL, RestoreRef(started.id))).cancelling
    world.cluster.gate.set()
    ended = await world.ended(started.id)
    assert ended.state == "cancelled"
    assert len(world.cluster.created) < 1501
    with pytest.raises(Conflict):
        await world.asking.request(contract.CANCEL, RestoreRef(started.id))


async def test_a_dry_run_writes_nothing_and_says_what_it_cannot_ask(world: World, replica: Replica) -> None:
    await world.back_up(SHOP)
    await replica()
    ended = await world.restored(dry_run=True)
    assert (ended.state, ended.counts["created"]) == ("completed", 7)
    assert world.cluster.objects == {}
    told = {
        one.id.rpartition(":")[2]: [why.rule for why in one.reasons] for one in await world.items(ended.id)
    }
    assert told["motd"] == ["namespace-to-come"]
    assert told["shop"] == []
    asked = {item.id for request in world.cluster.requests for item in request.items}
    assert asked == {
        "prod:namespaces::shop",
        "prod:customresourcedefinitions.apiextensions.k8s.io::widgets.example.org",
    }


@pytest.mark.parametrize(
    ("existing", "result", "data"),
    [("skip", "skipped", "old"), ("update", "changed", "new"), ("fail", "failed", "old")],
)
async def test_what_exists_is_skipped_updated_or_a_failure(
    world: World, replica: Replica, existing: str, result: str, data: str
) -> None:
    await world.back_up(
        [("configmaps", thing("c", data={"x": "new"})), ("persistentvolumeclaims", thing("p"))]
    )
    for name in ("namespaces::shop", "configmaps:shop:c", "persistentvolumeclaims:shop:p"):
        world.cluster.objects[f"new:{name}"] = {"uid": "u", "manifest": {"data": {"x": "old"}}}
    await replica()
    ended = await world.restored(cluster="new", existing=existing)
    told = {one.id.split(":")[1]: one for one in await world.items(ended.id)}
    assert told["configmaps"].result == result
    assert world.cluster.objects["new:configmaps:shop:c"]["manifest"]["data"]["x"] == data
    kept = told["persistentvolumeclaims"]
    assert kept.result == ("failed" if existing == "fail" else "skipped")
    assert [one.rule for one in kept.reasons] == (["kept-as-is"] if existing == "update" else [])


async def test_it_is_restored_into_another_namespace_of_another_cluster(
    world: World, replica: Replica
) -> None:
    await world.back_up(SHOP)
    await replica()
    ended = await world.restored(
        cluster="new", namespace_map={"shop": "copy"}, types=["namespaces", "configmaps"]
    )
    assert ended.state == "completed"
    assert world.cluster.created == ["new:namespaces::copy", "new:configmaps:copy:motd"]


async def test_nothing_that_matches_is_said(world: World, replica: Replica) -> None:
    await world.back_up(SHOP)
    await replica()
    ended = await world.restored(names=["nothing"])
    assert (ended.state, ended.error) == ("failed", "nothing in the backup matches")


@pytest.mark.parametrize("named", [{"namespaces": ["shop", "shpo"]}, {"namespace_map": {"shpo": "copy"}}])
async def test_a_namespace_that_the_backup_does_not_hold_is_said_before_anything_is_written(
    world: World, replica: Replica, named: dict[str, Any]
) -> None:
    await world.back_up(SHOP)
    await replica()
    ended = await world.restored(**named)
    assert (ended.state, ended.error) == ("failed", "the backup holds nothing of the namespace shpo")
    assert world.cluster.created == []


async def test_a_restore_is_refused_while_as_many_wait_as_replicas_look_at(
    world: World, replica: Replica
) -> None:
    await world.back_up(SHOP)
    async with _waiting_elsewhere(world, MAX_WAITING):
        await replica()
        with pytest.raises(TooManyRequests):
            await world.start()


def holder(*grants: Grant) -> Caller:
    return Caller(subject="ada", grants=grants, credential="token:t1")


SHOP_ONLY: dict[str, Any] = {"clusters": ("prod",), "namespaces": ("shop",)}


async def test_whoever_may_not_read_all_of_a_backup_does_not_learn_of_it(
    world: World, replica: Replica
) -> None:
    await world.back_up(SHOP)
    await replica()
    world.as_caller(holder(Grant(role="operator", rights=("backup", "secrets"), **SHOP_ONLY)))
    with pytest.raises(NotFound, match="there is no backup"):
        await world.start(namespaces=["shop"])
    world.as_caller(ADMINISTRATOR)
    ended = await world.restored()
    world.as_caller(holder(Grant(role="viewer", **SHOP_ONLY)))
    for endpoint, asked in (
        (contract.GET, RestoreRef(ended.id)),
        (contract.ITEMS, ListRestoreItems(id=ended.id)),
        (contract.CANCEL, RestoreRef(ended.id)),
    ):
        with pytest.raises(NotFound):
            await world.asking.request(endpoint, asked)
    assert (await world.asking.request(contract.LIST, ListRestores())).items == []


async def test_a_restore_needs_the_right_backup_and_writes_nothing_that_its_caller_may_not(
    world: World, replica: Replica
) -> None:
    await world.back_up(SHOP, namespaces=["shop"])
    await replica()
    world.as_caller(holder(Grant(role="operator", **SHOP_ONLY)))
    with pytest.raises(Forbidden, match="'backup'"):
        await world.start()
    world.cluster.objects["prod:namespaces::shop"] = {"uid": "u", "manifest": {}}
    world.as_caller(holder(Grant(role="operator", rights=("backup",), **SHOP_ONLY)))
    with pytest.raises(NotFound, match="no cluster"):
        await world.start(cluster="secret-cluster")
    ended = await world.restored()
    assert ended.state == "completed"
    told = {one.id.split(":")[1]: one for one in await world.items(ended.id)}
    assert told["configmaps"].result in ("created", "skipped")
    assert told["secrets"].reasons[0].rule == "secrets-right"
    assert told["namespaces"].error == "Forbidden"
    assert told["customresourcedefinitions.apiextensions.k8s.io"].error == "Forbidden"
    assert {one.split(":")[1] for one in world.cluster.created} == {
        "configmaps",
        "services",
        "pods",
        "widgets.example.org",
    }


async def test_hostile_requests_are_refused(world: World, replica: Replica) -> None:
    await world.back_up(SHOP)
    await replica()
    for asked in (
        {"labels": "a=b=c"},
        {"cluster": "a.b"},
        {"namespace_map": {"shop": "$ne"}},
        {"namespaces": ["*"]},
        {"source": "other"},
        {"reason": "x" * 501},
    ):
        with pytest.raises((BadRequest, Invalid, NotFound)):
            await world.start(**asked)
    for id_ in ("", "../x", "{'$ne': ''}", new_operation_id()):
        with pytest.raises(NotFound):
            await world.asking.request(contract.GET, RestoreRef(id_))


def _requests(world: World, count: int) -> Callable[[], Awaitable[bool]]:
    async def seen() -> bool:
        return len(world.cluster.requests) >= count

    return seen
