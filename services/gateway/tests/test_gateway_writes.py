"""Batches through the door of a real gateway, over a bus, to a service that answers writes by contract."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.bus import Service, connect
from kubelore.common.contracts import resources, writes
from kubelore.common.contracts.writes import Apply, FieldChange, OperationRecords, OperationRef, Written
from kubelore.common.errors import Conflict, KubeloreError, NotFound
from kubelore.common.operations import current_operation
from kubelore.gateway.batch import PARALLEL, PER_CLUSTER, Item, predecessors
from kubelore.lab.waiting import wait_for

BATCH = "/api/k8s/unified/batch"


class StandInWriter:
    """The write endpoints of resource-ops: each write is noted when it begins and when it ends.

    `before` may be set to do something (wait, fail) with a write before it is answered.
    """

    def __init__(self, bus) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.before: Callable[[Any], Awaitable[None]] | None = None
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self.service = Service(bus, resources.SERVICE, "0.0.1")
        for endpoint in writes.BY_ACTION.values():
            self.service.serve(endpoint, self.write)
        self.service.serve(writes.OPERATIONS, self.operations)

    async def write(self, write: Any) -> Written:
        found = _id_of(write)
        counted = ("all", found.split(":")[0])
        self.begun.append(write)
        self._now.update(counted)
        self.most |= self._now
        try:
            if self.before is not None:
                await self.before(write)
        finally:
            self._now.subtract(counted)
        self.ended.append(write)
        key = f"{current_operation()}.{write.item}"
        return Written(
            operation=key,
            id=found,
            uid="u",
            rv="7",
            result="changed",
            changes=[FieldChange(path="data.a", new="1")],
            dry_run=write.dry_run,
        )

    async def operations(self, request: OperationRef) -> OperationRecords:
        raise NotFound(f"there is no operation {request.id}")


def _id_of(write: Any) -> str:
    if not isinstance(write, Apply):
        return write.id
    manifest = json.loads(write.manifest)
    metadata = manifest["metadata"]
    return f"{write.cluster}:{manifest['kind'].lower()}s:{metadata.get('namespace', 'default')}:{metadata['name']}"


@pytest_asyncio.fixture(loop_scope="session")
async def writer(world) -> AsyncIterator[StandInWriter]:
    bus = await connect(world.settings.model_copy(update={"replica": ""}), name=resources.SERVICE)
    made = StandInWriter(bus)
    await made.service.start()
    await world.replica("a", "b")
    yield made
    await made.service.stop()
    await bus.close()


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


async def post(world, *operations: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await world.http.post(BATCH, json={"operations": operations, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_item_has_its_own_result_in_the_order_of_the_operations(world, writer) -> None:
    async def refuse(write: Any) -> None:
        if not isinstance(write, Apply):
            raise Conflict("owned", conflicts=[{"manager": "kubectl", "fields": ["spec.replicas"]}])

    writer.before = refuse
    report = await post(
        world,
        {"action": "apply", "clusters": ["a", "b"], "manifest": "kind: ConfigMap\nmetadata: {name: x}"},
        {"action": "scale", "id": "a:deployments.apps:shop:web", "replicas": 3},
        {"action": "apply", "cluster": "nowhere", "manifest": config_map("y")},
    )
    assert [(one["index"], one["cluster"], one["ok"]) for one in report["results"]] == [
        (0, "a", True),
        (0, "b", True),
        (1, "a", False),
        (2, "nowhere", False),
    ]
    first, _, scaled, nowhere = report["results"]
    assert (first["id"], first["rv"], first["changes"]) == (
        "a:configmaps:default:x",
        "7",
        [{"path": "data.a", "new": "1"}],
    )
    assert first["operation"] == f"{report['operation']}.0"
    assert (scaled["error"]["status"], scaled["error"]["conflicts"][0]["manager"]) == (409, "kubectl")
    assert nowhere["error"]["reason"] == "NotFound"
    assert (report["succeeded"], report["failed"], report["skipped"]) == (2, 2, 0)


async def test_documents_and_lists_become_items_and_keep_what_was_said_about_all(world, writer) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [config_map("two"), config_map("three")]}
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n---\n" + json.dumps(listed)
    report = await post(
        world,
        {"action": "apply", "cluster": "a", "manifest": text, "namespace": "shop", "force": True},
        dry_run=True,
        reason="trying",
        change_log="three maps",
    )
    assert [one["id"].rsplit(":", 1)[1] for one in report["results"]] == ["one", "two", "three"]
    assert {(one.namespace, one.force, one.dry_run, one.reason, one.change_log) for one in writer.begun} == {
        ("shop", True, True, "trying", "three maps")
    }


async def test_at_most_sixteen_run_at_once_and_four_of_a_cluster(world, writer) -> None:
    for name in "cdefgh":
        await world.registry.put(name)

    async def onboarded() -> bool:
        return len((await world.list(limit=1))["clusters"]) == 8

    await wait_for(onboarded, "the clusters to be known", 20)
    full = asyncio.Event()

    async def wait_until_full(write: Any) -> None:
        if writer.most["all"] >= PARALLEL:
            full.set()
        await full.wait()

    writer.before = wait_until_full
    operations = [
        {"action": "apply", "cluster": name, "manifest": config_map(f"n{number}")}
        for name in "abcdefgh"
        for number in range(8)
    ]
    report = await post(world, *operations)
    assert report["succeeded"] == 64
    assert writer.most["all"] == PARALLEL
    assert max(writer.most[name] for name in "abcdefgh") == PER_CLUSTER


async def test_writes_of_one_object_keep_their_order_while_others_overtake(world, writer) -> None:
    overtaken = asyncio.Event()

    async def slow_first(write: Any) -> None:
        if _id_of(write).endswith(":other"):
            overtaken.set()
        elif write.item == 0:
            await overtaken.wait()

    writer.before = slow_first
    same = "a:deployments.apps:shop:web"
    await post(
        world,
        {"action": "scale", "id": same, "replicas": 1},
        {"action": "scale", "id": same, "replicas": 2},
        {"action": "restart", "id": "a:deployments.apps:shop:other"},
        {"action": "scale", "id": same, "replicas": 3},
    )
    assert [one.replicas for one in writer.ended if hasattr(one, "replicas")] == [1, 2, 3]


async def test_nothing_more_begins_after_an_error_when_it_is_to_stop(world, writer) -> None:
    async def fail(write: Any) -> None:
        raise Conflict("no")

    writer.before = fail
    same = [{"action": "scale", "id": "a:deployments.apps:shop:web", "replicas": one} for one in range(5)]
    report = await post(world, *same, stop_on_error=True)
    assert (report["succeeded"], report["failed"], report["skipped"]) == (0, 1, 4)
    assert [one["skipped"] for one in report["results"]] == [False, True, True, True, True]
    assert report["results"][1]["error"]["reason"] == "Skipped"
    assert len(writer.begun) == 1
    assert (await post(world, *same))["failed"] == 5


async def test_nothing_more_begins_once_the_client_has_gone(world, writer) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def hold(write: Any) -> None:
        begun.set()
        await released.wait()

    writer.before = hold
    same = [{"action": "scale", "id": "a:deployments.apps:shop:web", "replicas": one} for one in range(5)]
    asking = asyncio.create_task(world.http.post(BATCH, json={"operations": same, "reason": "gone"}))
    await begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    # Another client's request comes after the disconnect was seen by the same loop.
    await world.list(limit=1)
    released.set()

    async def finished() -> bool:
        return len(writer.ended) == 1

    await wait_for(finished, "the write under way to end", 20)
    await post(world, {"action": "restart", "id": "a:deployments.apps:shop:last"})
    assert len(writer.begun) == 2


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"action": "apply", "cluster": "a"}, 400),
        ({"action": "apply", "manifest": {"kind": "ConfigMap"}}, 400),
        ({"action": "apply", "cluster": "a", "manifest": ""}, 400),
        ({"action": "apply", "cluster": "a", "manifest": "a: &x [1]\n--- *x"}, 422),
        ({"action": "apply", "cluster": "a", "manifest": "a: 1\na: 2"}, 422),
        ({"action": "apply", "cluster": "a", "manifest": "a: !!python/object:os.system {}"}, 422),
        ({"action": "apply", "cluster": "a", "manifest": "x" * 3_200_000}, 413),
        ({"action": "scale", "id": "a:deployments.apps:shop:web"}, 400),
        ({"action": "scale", "id": "a:deployments.apps:shop:web", "replicas": -1}, 400),
        ({"action": "delete", "id": "a:pods"}, 400),
        ({"action": "delete", "id": "a:pods:shop:../x"}, 400),
        ({"action": "patch", "id": "a:pods:shop:x"}, 400),
        ({"action": "label", "id": "a:pods:shop:x", "labels": {"a": "\ud800"}}, 400),
        ({"action": "explode", "id": "a:pods:shop:x"}, 400),
        ({"action": "restart", "id": "a:pods:shop:x", "unheard": 1}, 400),
    ],
)
async def test_of_a_batch_in_which_something_cannot_be_understood_nothing_is_done(
    world, writer, operation, status
) -> None:
    fine = {"action": "restart", "id": "a:deployments.apps:shop:web"}
    answer = await world.http.post(
        BATCH,
        content=json.dumps({"operations": [fine, operation]}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    assert writer.begun == []


async def test_a_key_that_is_there_twice_is_refused(world, writer) -> None:
    """Else one of both is dropped without a word."""
    twice = '{"data": {"a": "1"}, "data": {"b": "2"}}'
    patched = await world.http.patch(
        "/api/k8s/unified/resources/a:configmaps:shop:web",
        content=twice,
        headers={"Content-Type": "application/merge-patch+json"},
    )
    operation = f'{{"action": "patch", "id": "a:configmaps:shop:web", "patch": {twice}}}'
    batched = await world.http.post(
        BATCH, content=f'{{"operations": [{operation}]}}', headers={"Content-Type": "application/json"}
    )
    assert [(one.status_code, one.json()["code"]) for one in (patched, batched)] == [
        (422, "duplicate-key")
    ] * 2
    assert writer.begun == []


async def test_a_batch_of_too_many_writes_is_refused_whole(world, writer) -> None:
    text = "\n---\n".join(json.dumps(config_map(f"n{number}")) for number in range(501))
    answer = await world.http.post(
        BATCH, json={"operations": [{"action": "apply", "clusters": ["a", "b"], "manifest": text}]}
    )
    assert answer.status_code == 413
    assert writer.begun == []


async def test_a_manifest_is_applied_as_plain_yaml_too(world, writer) -> None:
    answer = await world.http.post(
        "/api/k8s/unified/apply",
        params={"clusters": "a,b", "reason": "r"},
        content="kind: ConfigMap\nmetadata: {name: x}",
        headers={"Content-Type": "application/yaml"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["succeeded"] == 2
    unknown = await world.http.post("/api/k8s/unified/apply", params={"clusters": "a"}, content=b"\x00")
    assert unknown.status_code == 501


@pytest.mark.parametrize(
    ("media_type", "body", "kind"),
    [
        ("application/merge-patch+json", {"data": {}}, "merge"),
        ("application/json-patch+json", [{"op": "test"}], "json"),
        ("application/strategic-merge-patch+json; charset=utf-8", {"spec": {}}, "strategic"),
    ],
)
async def test_one_object_is_patched_by_the_body_s_type(world, writer, media_type, body, kind) -> None:
    answer = await world.http.patch(
        "/api/k8s/unified/resources/a:pods:shop:x",
        params={"rv": "5"},
        content=json.dumps(body),
        headers={"Content-Type": media_type},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["rv"] == "7"
    (write,) = writer.begun
    assert (write.type, json.loads(write.patch), write.rv) == (kind, body, "5")


async def test_one_object_is_deleted_under_preconditions_and_an_error_is_the_answer(world, writer) -> None:
    path = "/api/k8s/unified/resources/a:pods:shop:x"
    answer = await world.http.delete(
        path, params={"uid": "u-1", "propagation": "Orphan", "grace_period_s": "0"}
    )
    assert answer.status_code == 200, answer.text
    (write,) = writer.begun
    assert (write.uid, write.propagation, write.grace_period_s) == ("u-1", "Orphan", 0)

    async def gone(write: Any) -> None:
        raise NotFound("there is no such thing")

    writer.before = gone
    assert (await world.http.delete(path)).status_code == 404


async def test_a_lost_answer_is_told_as_unknown_with_the_operation(world, writer) -> None:
    async def lose(write: Any) -> None:
        error = KubeloreError("the connection broke", outcome="unknown", operation="o.0")
        raise error

    writer.before = lose
    report = await post(world, {"action": "restart", "id": "a:deployments.apps:shop:web"})
    error = report["results"][0]["error"]
    assert (error["outcome"], error["operation"]) == ("unknown", "o.0")


def item(number: int, cluster: str, name: str, kind: str = "ConfigMap") -> Item:
    return Item(number, cluster, "", "apply", NotFound("unused"), name, kind)


def test_what_others_need_is_finished_before_they_begin_in_the_same_cluster() -> None:
    items = [
        item(0, "a", "shop", "Namespace"),
        item(1, "a", "x"),
        item(2, "b", "x"),
        item(3, "a", "x"),
        item(4, "a", "builder", "ServiceAccount"),
        item(5, "a", "y"),
    ]
    assert predecessors(items) == [set(), {0}, set(), {0, 1}, {0}, {4}]
