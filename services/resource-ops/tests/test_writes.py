"""What is changed in clusters through a replica: by whom, what of it is told, recorded and published."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.contracts import writes
from kubelore.common.contracts.writes import (
    Apply,
    Delete,
    Label,
    OperationRef,
    Patch,
    Restart,
    Scale,
    Written,
)
from kubelore.common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    Unsupported,
)
from kubelore.common.kube import ResourceType
from kubelore.common.operations import new_operation_id
from kubelore.common.store import open_database
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.outbox import BATCH, judged
from kubelore.resource_ops.repository import Operation, OperationRepository

CLUSTER = "sim-01"
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
DEPLOYMENTS = ResourceType(
    group="apps", version="v1", plural="deployments", kind="Deployment", namespaced=True
)


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, replicas: int = 1, image: str = "web:1") -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def changed(written: Written) -> dict[str, Any]:
    """Path -> (old, new); None for a side that is not shown or not there."""
    return {
        change.path: tuple(None if side is msgspec.UNSET else side for side in (change.old, change.new))
        for change in written.changes
    }


async def test_a_manifest_is_applied_once_as_created_then_as_changed_then_as_unchanged(hand) -> None:
    first = await hand.apply(config_map("one", a="1"))
    assert (first.id, first.result) == (f"{CLUSTER}:configmaps:default:one", "created")
    second = await hand.apply(config_map("one", a="2", b="3"))
    assert second.result == "changed"
    assert changed(second) == {"data.a": ("1", "2"), "data.b": (None, "3")}
    live = await hand.live(CONFIG_MAPS, "one")
    assert (second.uid, second.rv) == (live["metadata"]["uid"], live["metadata"]["resourceVersion"])
    assert live["metadata"]["managedFields"][0]["manager"] == "kubelore"
    third = await hand.apply(config_map("one", a="2", b="3"))
    assert (third.result, third.rv, third.changes) == ("unchanged", second.rv, [])


async def test_what_kubelore_answers_of_an_object_can_be_applied_again(hand) -> None:
    await hand.apply(config_map("again", a="1"))
    live = await hand.live(CONFIG_MAPS, "again")
    assert (await hand.apply(live)).result == "unchanged"
    live["data"]["a"] = "2"
    await hand.apply(live)
    with pytest.raises(Conflict):
        await hand.apply(live)


async def test_a_dry_run_tells_what_would_change_and_changes_and_records_nothing(hand) -> None:
    made = await hand.apply(config_map("dry", a="1"))
    tried = await hand.apply(config_map("dry", a="2"), dry_run=True)
    assert (tried.result, changed(tried)) == ("changed", {"data.a": ("1", "2")})
    operation = hand.operation
    assert (await hand.live(CONFIG_MAPS, "dry"))["metadata"]["resourceVersion"] == made.rv
    with pytest.raises(NotFound):
        await hand.house.bus.request(writes.OPERATIONS, OperationRef(operation))
    absent = await hand.apply(config_map("never", a="1"), dry_run=True)
    assert absent.result == "created"
    assert await hand.is_gone(CONFIG_MAPS, "never")


async def test_a_field_that_another_manager_owns_is_a_conflict_that_names_the_owner(hand) -> None:
    await hand.client.create(
        DEPLOYMENTS, "default", json.dumps(deployment("owned")).encode(), field_manager="kubectl-create"
    )
    wanted = json.dumps(deployment("owned", replicas=3)).encode()
    error = await hand.refused(Apply(cluster=CLUSTER, manifest=wanted))
    assert isinstance(error, Conflict)
    (owner,) = error.extra["conflicts"]
    assert (owner["manager"], owner["operation"], owner["fields"]) == (
        "kubectl-create",
        "Update",
        ["spec.replicas"],
    )
    assert "kubectl-create" in error.detail
    assert (await hand.record()).state == "failed"
    taken = await hand.write(Apply(cluster=CLUSTER, manifest=wanted, force=True))
    assert changed(taken) == {"spec.replicas": (1, 3)}


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("merge", {"data": {"a": None, "b": "2"}}, {"data.a": ("1", None), "data.b": (None, "2")}),
        ("json", [{"op": "replace", "path": "/data/a", "value": "9"}], {"data.a": ("1", "9")}),
        ("strategic", {"metadata": {"labels": {"x": "y"}}}, {"metadata.labels": (None, {"x": "y"})}),
    ],
)
async def test_patches_of_every_kind_tell_what_they_changed(hand, kind, body, expected) -> None:
    name = f"patched-{kind}"
    made = await hand.apply(config_map(name, a="1"))
    written = await hand.write(Patch(id=made.id, patch=json.dumps(body).encode(), type=kind))
    assert changed(written) == expected


@pytest.mark.parametrize("kind", ["merge", "json"])
async def test_a_patch_of_a_version_that_is_no_longer_the_newest_is_a_conflict(hand, kind) -> None:
    name = f"raced-{kind}"
    first = await hand.apply(config_map(name, a="1"))
    await hand.apply(config_map(name, a="2"))
    body: Any = {"data": {"a": "3"}}
    if kind == "json":
        body = [{"op": "replace", "path": "/data/a", "value": "3"}]
    patch = Patch(id=first.id, patch=json.dumps(body).encode(), type=kind, rv=first.rv)
    error = await hand.refused(patch)
    assert error.status in (409, 422)
    assert (await hand.live(CONFIG_MAPS, name))["data"] == {"a": "2"}


async def test_a_delete_with_another_uid_or_version_is_refused_and_with_the_right_ones_done(hand) -> None:
    made = await hand.apply(config_map("doomed", a="1"))
    assert isinstance(await hand.refused(Delete(id=made.id, uid="another")), Conflict)
    assert isinstance(await hand.refused(Delete(id=made.id, rv="1")), Conflict)
    tried = await hand.write(Delete(id=made.id, dry_run=True))
    assert (tried.result, await hand.is_gone(CONFIG_MAPS, "doomed")) == ("deleted", False)
    gone = await hand.write(Delete(id=made.id, uid=made.uid, rv=made.rv, propagation="Background"))
    assert (gone.result, gone.uid, gone.rv) == ("deleted", made.uid, "")
    assert await hand.is_gone(CONFIG_MAPS, "doomed")
    assert isinstance(await hand.refused(Delete(id=made.id)), NotFound)


async def test_a_workload_is_scaled_and_what_has_no_replicas_is_refused_by_name(hand) -> None:
    made = await hand.apply(deployment("scaled"))
    written = await hand.write(Scale(id=f"{CLUSTER}:deploy:default:scaled", replicas=4))
    assert written.id == made.id
    assert changed(written) == {"spec.replicas": (1, 4)}
    live = await hand.live(DEPLOYMENTS, "scaled")
    assert live["spec"]["replicas"] == 4
    assert (await hand.write(Scale(id=made.id, replicas=4))).result == "unchanged"
    error = await hand.refused(Scale(id=(await hand.apply(config_map("flat"))).id, replicas=1))
    assert isinstance(error, Unsupported)
    assert "configmaps" in error.detail
    assert isinstance(await hand.refused(Scale(id=made.id, replicas=-1)), Invalid)


async def test_a_restart_stamps_the_pod_template_and_refuses_what_has_none_or_is_paused(hand) -> None:
    made = await hand.apply(deployment("restarted"))
    written = await hand.write(Restart(id=made.id))
    (path,) = changed(written)
    assert path.startswith("spec.template.metadata")
    template = (await hand.live(DEPLOYMENTS, "restarted"))["spec"]["template"]
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"].endswith("Z")
    assert isinstance(await hand.refused(Restart(id=(await hand.apply(config_map("still"))).id)), Unsupported)
    await hand.write(Patch(id=made.id, patch=b'{"spec":{"paused":true}}'))
    assert isinstance(await hand.refused(Restart(id=made.id)), Conflict)


async def test_labels_and_annotations_are_set_removed_and_not_overwritten_unless_allowed(hand) -> None:
    made = await hand.apply(config_map("labelled"))
    await hand.write(Label(id=made.id, labels={"a": "1", "b": "2"}, annotations={"note": "x"}))
    error = await hand.refused(Label(id=made.id, labels={"a": "3"}, overwrite=False))
    assert isinstance(error, Conflict)
    assert "a (in labels)" in error.detail
    written = await hand.write(Label(id=made.id, labels={"a": "3", "b": None}))
    assert changed(written) == {"metadata.labels.a": ("1", "3"), "metadata.labels.b": ("2", None)}
    assert isinstance(await hand.refused(Label(id=made.id)), Invalid)


async def test_of_a_secret_only_the_names_of_keys_are_told(hand) -> None:
    hidden = "aGlkZGVuLXZhbHVlLW9uZQ=="
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "token"},
        "data": {"kept": hidden, "other": hidden},
    }
    made = await hand.apply(secret)
    secret["data"] = {"kept": hidden, "other": "b3RoZXItdmFsdWUtdHdv", "third": hidden}
    written = await hand.apply(secret)
    told = {change.path: change for change in written.changes}
    assert sorted(told) == ["data.other", "data.third"]
    assert all(change.hidden and change.new is None for change in told.values())
    assert told["data.third"].old is msgspec.UNSET
    for answer in (made, written):
        assert hidden.encode() not in msgspec.json.encode(answer)


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "copy", "from": "/data/key", "path": "/metadata/labels/shown"}],
        [{"op": "move", "from": "/data/key", "path": "/metadata/finalizers/0"}],
        [{"op": "copy", "from": "/data", "path": "/metadata/annotations"}],
        [{"op": "test", "path": "/data/key", "value": "c2hvcnR2YWx1ZQ"}],
        [{"op": "test", "path": "", "value": {}}],
    ],
)
async def test_no_patch_moves_a_secrets_value_to_where_it_is_read_or_guesses_at_it(hand, patch) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kept", "labels": {"a": "b"}},
        "data": {"key": "c2hvcnR2YWx1ZXM="},
    }
    made = await hand.apply(secret, OPERATOR)
    for dry_run in (False, True):
        body = json.dumps(patch).encode()
        error = await hand.refused(Patch(id=made.id, patch=body, type="json", dry_run=dry_run), OPERATOR)
        assert isinstance(error, Invalid)
        assert "Add, replace and remove" in str(error.remedy)
    assert (await hand.live(SECRETS, "kept"))["metadata"]["labels"] == {"a": "b"}
    allowed = b'[{"op":"test","path":"/metadata/labels/a","value":"b"},{"op":"add","path":"/data/new","value":"eA=="}]'
    assert "data.new" in changed(await hand.write(Patch(id=made.id, patch=allowed, type="json"), OPERATOR))


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (b"{", BadRequest),
        (b"a: &a [x]\nb: [*a, *a]", Invalid),
        (b'{"apiVersion":"v1","kind":"ConfigMap","kind":"Secret","metadata":{"name":"x"}}', Invalid),
        (b"--- {}\n--- {}", BadRequest),
        (b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"A_B"}}', Invalid),
        (b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"../x"}}', Invalid),
        (b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"a/b"}}', Invalid),
        (b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"}}', Invalid),
        (b'{"apiVersion":"v1","kind":"Unheard","metadata":{"name":"x"}}', NotFound),
        (b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","labels":{"a":"\\u0000"}}}', Invalid),
    ],
)
async def test_a_manifest_that_is_none_is_refused_and_nothing_is_recorded(hand, manifest, kind) -> None:
    error = await hand.refused(Apply(cluster=CLUSTER, manifest=manifest))
    assert isinstance(error, kind)
    with pytest.raises(NotFound):
        await hand.record()


VIEWER = Caller(subject="vera", grants=(Grant(role="viewer"),))
OPERATOR = Caller(subject="otto", grants=(Grant(role="operator", namespaces=("default",)),))
STRANGER = Caller(subject="sam", grants=(Grant(role="admin", clusters=("other-*",)),))


def of_kind(api_version: str, kind: str, namespace: str = "", **more: Any) -> bytes:
    metadata = {"name": "x", **({"namespace": namespace} if namespace else {})}
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}).encode()


@pytest.mark.parametrize(
    ("caller", "manifest", "refusal"),
    [
        (VIEWER, of_kind("v1", "ConfigMap"), Forbidden),
        (OPERATOR, of_kind("v1", "ConfigMap", "kube-system"), Forbidden),
        (OPERATOR, of_kind("v1", "Namespace"), Forbidden),
        (OPERATOR, of_kind("v1", "ResourceQuota"), Forbidden),
        (OPERATOR, of_kind("rbac.authorization.k8s.io/v1", "RoleBinding"), Forbidden),
        (OPERATOR, of_kind("rbac.authorization.k8s.io/v1", "ClusterRole"), Forbidden),
        (STRANGER, of_kind("v1", "ConfigMap"), NotFound),
    ],
)
async def test_a_caller_changes_only_what_their_grants_allow(hand, caller, manifest, refusal) -> None:
    for dry_run in (False, True):
        error = await hand.refused(Apply(cluster=CLUSTER, manifest=manifest, dry_run=dry_run), caller)
        assert isinstance(error, refusal)


async def test_an_operator_writes_secrets_and_the_record_names_them(hand) -> None:
    written = await hand.apply(json.loads(of_kind("v1", "Secret")), OPERATOR, reason="rotation")
    assert written.result == "created"
    record = await hand.record()
    assert (record.actor, record.reason, record.state, record.rv) == ("otto", "rotation", "done", written.rv)


async def test_who_may_not_read_an_object_does_not_find_its_operation(hand) -> None:
    await hand.apply(config_map("private"))
    hand.house.bus.speaks_for = STRANGER
    try:
        with pytest.raises(NotFound):
            await hand.record()
    finally:
        hand.house.bus.speaks_for = ADMINISTRATOR


async def test_a_request_that_arrives_twice_is_carried_out_once(hand) -> None:
    made = await hand.apply(deployment("twice"))
    patch = Patch(id=made.id, patch=b'[{"op":"add","path":"/spec/paused","value":true}]', type="json")
    first = await hand.write(patch)
    with pytest.raises(Conflict) as refusal:
        await hand.write(patch, operation=hand.operation)
    assert refusal.value.extra["operation"] == first.operation
    assert (await hand.live(DEPLOYMENTS, "twice"))["metadata"]["resourceVersion"] == first.rv


async def test_every_write_is_told_on_the_change_stream_with_who_and_why(hand, applied) -> None:
    made = await hand.apply(config_map("told", a="1"), OPERATOR, reason="because", change_log="a is 1")
    await hand.apply(config_map("told", a="1"))
    gone = await hand.write(Delete(id=made.id, reason="no longer"))

    async def both() -> bool:
        return len([one for one in applied if one.uid == made.uid]) == 2

    await wait_for(both, "both writes to be told", 20)
    first, last = [one for one in applied if one.uid == made.uid]
    assert (first.rv, first.actor, first.reason, first.change_log) == (made.rv, "otto", "because", "a is 1")
    assert (first.operation_id, first.action, first.probable) == (made.operation, "apply", False)
    assert (last.rv, last.action, last.operation_id) == ("", "delete", gone.operation)


async def test_a_type_that_came_a_moment_ago_can_be_written(hand) -> None:
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.io"},
        "spec": {
            "group": "example.io",
            "scope": "Namespaced",
            "names": names,
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                }
            ],
        },
    }
    await hand.apply(config_map("warm"))
    await hand.apply(definition)
    widget = {"apiVersion": "example.io/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}}

    async def accepted() -> bool:
        try:
            return (await hand.apply(widget)).result in ("created", "unchanged")
        except NotFound:
            return False

    await wait_for(accepted, "the type to be served", 20)


async def test_the_credentials_of_a_removed_cluster_are_used_no_longer_than_until_it_is_told(
    hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else they would be asked for again after ten seconds, told or not.
    monkeypatch.setattr("kubelore.common.reach.FRESH_S", 600.0)
    await hand.apply(config_map("before"))
    asked = len(hand.house.asked)
    await hand.apply(config_map("still"))
    assert len(hand.house.asked) == asked
    await hand.house.remove(0)

    async def refused() -> bool:
        try:
            await hand.apply(config_map("after"))
        except KubeloreError:
            return True
        return False

    await wait_for(refused, "the connection to be closed")


def lost(cluster: str, number: int, **fields: Any) -> Operation:
    """A write that a replica intended long ago, and died."""
    key = f"{new_operation_id()}.{number}"
    at = datetime.now(UTC) - timedelta(minutes=10)
    about = {"id": f"{cluster}:configmaps:default:c{number}", "type": "configmaps", "action": "apply"}
    said = {"actor": "otto", "reason": "", "change_log": "", "replica": "resource-ops-gone", "at": at}
    return Operation(key=key, operation=key.partition(".")[0], cluster=cluster, **(about | said | fields))


async def test_what_a_replica_says_late_of_its_write_is_not_undone_by_who_looked_for_it(hand) -> None:
    async with await open_database(hand.house.settings) as database:
        repository = OperationRepository(database)
        await repository.intend(lost("elsewhere", 1))
        (read,) = await repository.due(["elsewhere"], "resolve", 10)
        await repository.conclude(read.key, "done", due="publish", rv="7")
        assert not await repository.resolve(read, "unknown", due="", uid="", rv="")
        (found,) = await repository.due(["elsewhere"], "publish", 10)
        assert (found.state, found.rv) == ("done", "7")


async def test_lost_writes_to_a_cluster_that_does_not_answer_hold_up_no_others(hand, policy) -> None:
    hand.house.add(1)
    other = hand.house.clusters[1].name

    async def both() -> bool:
        return len(hand.replica.fleet.observers()) == 2

    await wait_for(both, "both clusters to be observed", 20)
    await hand.house.clusters[1].close()
    async with await open_database(hand.house.settings) as database:
        repository = OperationRepository(database)
        for number in range(BATCH + 5):
            await repository.intend(lost(other, number))
        mine = lost(CLUSTER, 1, at=datetime.now(UTC) - timedelta(minutes=5))
        await repository.intend(mine)

        async def resolved() -> bool:
            (found,) = await repository.of(mine.operation)
            return found.state == "unknown"

        await wait_for(resolved, "the write to the other cluster to be resolved", 30)
        assert len(await repository.due([other], "resolve", 1000)) == BATCH + 5


@pytest.mark.parametrize(
    "metadata",
    [
        {"managedFields": "many"},
        {"managedFields": [None]},
        {"managedFields": [{"manager": "kubelore", "operation": "Apply", "time": "yesterday"}]},
        {"managedFields": [{"manager": "kubelore", "operation": "Apply", "time": "2026-01-01T00:00:00"}]},
        {"managedFields": [{"manager": "kubelore", "operation": "Apply", "time": 5}]},
        {"managedFields": [{"manager": {}, "operation": "Apply"}]},
        [],
        "nothing",
    ],
)
def test_metadata_that_no_api_server_writes_say_nothing_of_a_write_and_end_nobody(metadata) -> None:
    assert judged(lost("prod", 1), {"metadata": metadata}).state == "unknown"
