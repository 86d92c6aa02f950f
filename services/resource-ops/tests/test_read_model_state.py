"""The read model against a plain dict: whatever arrives, in whatever order, both hold the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common.contracts.changes import Was
from kubelore.common.contracts.resources import ClusterState, Query
from kubelore.common.errors import Invalid
from kubelore.common.kube.resource_type import PODS, ResourceType
from kubelore.resource_ops.query import fetch, get, query, select
from kubelore.resource_ops.read_model import ClusterModel, ReadModel
from kubelore.resource_ops.summary import count, describe_types

CONFIGS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)


@dataclass(frozen=True)
class Meta:
    name: str
    namespace: str
    uid: str
    resource_version: str


def manifest(
    name: str,
    *,
    namespace: str = "default",
    uid: str = "",
    rv: int = 1,
    labels: dict[str, str] | None = None,
    phase: str = "Running",
    annotations: dict[str, str] | None = None,
) -> bytes:
    meta = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": str(rv),
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": labels or {},
        "annotations": annotations or {},
        "managedFields": [{"manager": "kubectl", "time": "2026-01-02T03:04:05Z"}],
        "generation": rv,
    }
    body = {
        "metadata": meta,
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "podIP": f"10.0.0.{rv % 250}"},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def live(cluster: str, types: frozenset[str]) -> ClusterState:
    return ClusterState(name=cluster, status="live")


def held(models: ReadModel) -> dict[str, bytes]:
    page = query(models, Query(clusters=list(models.clusters), limit=10_000), live)
    return {row.id: row.object for row in page.rows}


@dataclass
class Held:
    uid: str
    rv: int
    raw: bytes


@dataclass
class Plain:
    """The rules of the read model in their simplest form, for one type of one cluster."""

    objects: dict[tuple[str, str], Held] = field(default_factory=dict)
    floor: int = 0

    def upsert(self, key: tuple[str, str], new: Held, floor: int) -> str:
        old = self.objects.get(key)
        if old is None:
            if new.rv <= floor:
                return "older"
        elif new.rv < old.rv:
            return "older"
        elif new.uid == old.uid and new.rv == old.rv:
            return "unchanged"
        self.objects[key] = new
        return "updated" if old is not None and old.uid == new.uid else "created"

    def delete(self, key: tuple[str, str], uid: str, rv: int) -> str:
        old = self.objects.get(key)
        if old is None or old.uid != uid or rv < old.rv:
            return ""
        del self.objects[key]
        return str(old.rv)

    def replace(self, items: Iterable[tuple[tuple[str, str], Held]], rv: int) -> set[tuple[str, str]]:
        listed = dict(items)
        for key, new in listed.items():
            self.upsert(key, new, 0)
        gone = {key for key, old in self.objects.items() if key not in listed and old.rv <= rv}
        for key in gone:
            del self.objects[key]
        self.floor = rv
        return gone


names = st.sampled_from(["a", "b", "c-1", "c:2"])
namespaces = st.sampled_from(["red", "blue"])
versions = st.integers(1, 12)
uids = st.sampled_from(["u1", "u2"])
labels_of = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["", "web", "db"]), max_size=2)
phases = st.sampled_from(["", "Running", "Failed"])


@st.composite
def items(draw: st.DrawFn) -> tuple[tuple[str, str], Held]:
    namespace, name, uid, rv = draw(namespaces), draw(names), draw(uids), draw(versions)
    # The same object at the same version is the same bytes, as on an API server.
    seed = crc32(f"{namespace} {name} {uid} {rv}".encode())
    raw = manifest(
        name,
        namespace=namespace,
        uid=uid,
        rv=rv,
        labels=[{}, {"app": "web"}, {"app": "db", "tier": ""}, {"tier": "x"}][seed % 4],
        phase=["Running", "Failed", ""][seed % 3],
        annotations={"own": f"{namespace}{name}{rv}"} if seed % 2 else {},
    )
    return (namespace, name), Held(uid, rv, raw)


steps = st.one_of(
    st.tuples(st.just("upsert"), items()),
    st.tuples(st.just("delete"), items()),
    st.tuples(st.just("replace"), st.tuples(st.lists(items(), max_size=5), versions)),
    st.tuples(st.just("drop"), st.none()),
)


def _apply(step: tuple[str, object], model: ClusterModel, plain: Plain, kind: ResourceType) -> None:
    action, argument = step
    if action == "upsert":
        key, new = argument
        before = plain.objects.get(key)
        done = model.upsert(kind, new.raw)
        assert done.kind == plain.upsert(key, new, plain.floor)
        if done.kind == "updated":
            assert before is not None
            assert done.old_rv == str(before.rv)
    elif action == "delete":
        (namespace, name), new = argument
        answer = model.delete(kind, Meta(name, namespace, new.uid, str(new.rv)))
        assert answer == plain.delete((namespace, name), new.uid, new.rv)
    elif action == "replace":
        listed, rv = argument
        listed = list(dict(listed).items())
        gone = model.replace(kind, [new.raw for _, new in listed], str(rv))
        assert {one.id for one in gone} == {
            f"{model.cluster}:{kind.name}:{namespace}:{name}" for namespace, name in plain.replace(listed, rv)
        }
    else:
        model.drop_type(kind.name)
        plain.objects.clear()
        plain.floor = 0


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["east", "west"]), st.sampled_from([PODS, CONFIGS]), steps), max_size=25
    )
)
def test_any_sequence_leaves_what_a_dict_would_hold(sequence):
    models = ReadModel()
    plain = {(cluster, kind.name): Plain() for cluster in ("east", "west") for kind in (PODS, CONFIGS)}
    for cluster in ("east", "west"):
        models.open(cluster)
    for cluster, kind, step in sequence:
        _apply(step, models.open(cluster), plain[cluster, kind.name], kind)
    expected = {
        f"{cluster}:{kind}:{namespace}:{name}": of.raw
        for (cluster, kind), one in plain.items()
        for (namespace, name), of in one.objects.items()
    }
    assert held(models) == expected
    _check_counts(models, expected)


def _check_counts(models: ReadModel, expected: dict[str, bytes]) -> None:
    objects = {rid: json.loads(raw) for rid, raw in expected.items()}
    for cluster, model in models.clusters.items():
        assert model.total() == sum(rid.startswith(f"{cluster}:") for rid in objects)
    for phase in ("", "Running", "Failed"):
        matching = sum(o["status"]["phase"] == phase for o in objects.values())
        numbers = models.index.phases.get(phase)
        assert len(numbers) == matching
    for text in ("own=red", "app=db", "c:2"):
        found = {row.id for row in models.index.held(models.index.search(text))}
        assert found == {rid for rid, o in objects.items() if text in _texts(o)}


def _texts(o: dict) -> str:
    meta = o["metadata"]
    pairs = [f"{k}={v}" for k, v in (*meta["labels"].items(), *meta["annotations"].items())]
    return "\n".join([meta["name"], *pairs])


def test_an_update_says_what_selectors_matched_before():
    model = ReadModel().open("east")
    model.upsert(PODS, manifest("a", rv=5, labels={"app": "web"}, phase="Pending"))
    done = model.upsert(PODS, manifest("a", rv=6, labels={"app": "web", "x": ""}, phase="Pending"))
    assert done.kind == "updated"
    assert done.old_rv == "5"
    assert isinstance(done.was, Was)
    assert done.was.labels == {"app": "web"}
    assert done.was.fields["status.phase"] == "Pending"
    assert done.was.fields["spec.nodeName"] == "n1"


def test_an_update_that_no_selector_sees_says_nothing_of_before():
    model = ReadModel().open("east")
    model.upsert(CONFIGS, manifest("a", rv=5, labels={"app": "web"}))
    assert model.upsert(CONFIGS, manifest("a", rv=6, labels={"app": "web"})).was is None


def test_a_replayed_event_of_an_object_that_the_list_no_longer_held_makes_no_ghost():
    model = ReadModel().open("east")
    model.replace(PODS, [manifest("a", rv=10)], "20")
    assert model.upsert(PODS, manifest("gone", rv=15)).kind == "older"
    assert model.upsert(PODS, manifest("new", rv=21)).kind == "created"
    assert model.count("pods") == 2


def test_a_list_given_up_halfway_removes_nothing():
    model = ReadModel().open("east")
    model.replace(PODS, [manifest("a"), manifest("b")], "5")
    model.begin_list(PODS).add(manifest("a", rv=6))
    assert model.count("pods") == 2


def test_what_vanished_comes_with_its_last_state():
    model = ReadModel().open("east")
    raw = manifest("a", rv=3)
    model.replace(PODS, [raw], "5")
    (gone,) = model.replace(PODS, [], "9")
    assert (gone.id, gone.uid, gone.rv, gone.object) == ("east:pods:default:a", "uid-of-a", "3", raw)


def test_after_a_restored_etcd_the_list_wins_over_newer_numbers():
    model = ReadModel().open("east")
    model.replace(PODS, [manifest("a", rv=100), manifest("b", rv=101)], "200")
    listing = model.begin_list(PODS, regressed=True)
    assert listing.add(manifest("a", rv=7)).kind == "updated"
    assert [gone.id for gone in listing.finish("9")] == ["east:pods:default:b"]
    assert model.upsert(PODS, manifest("c", rv=10)).kind == "created"


def test_versions_that_are_no_numbers_have_no_order():
    model = ReadModel().open("east")
    raw = manifest("a").replace(b'"resourceVersion":"1"', b'"resourceVersion":"zz"')
    other = raw.replace(b'"zz"', b'"aa"')
    assert model.upsert(PODS, raw).kind == "created"
    assert model.upsert(PODS, raw).kind == "unchanged"
    assert model.upsert(PODS, other).kind == "updated"


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b'{"metadata":7}', b'{"metadata":{}}', b'{"metadata":{"name":["x"]}}', b'"\xff"'],
)
def test_bytes_that_are_no_object_are_refused_and_change_nothing(raw: bytes):
    models = ReadModel()
    with pytest.raises(Invalid):
        models.open("east").upsert(PODS, raw)
    assert held(models) == {}


def test_an_object_of_a_known_type_in_an_odd_shape_is_still_held():
    models = ReadModel()
    raw = b'{"metadata":{"name":"odd","namespace":"x","resourceVersion":"4"},"spec":[],"status":"?"}'
    models.open("east").upsert(PODS, raw)
    assert held(models) == {"east:pods:x:odd": raw}


def test_closing_a_cluster_forgets_it_and_nothing_else():
    models = ReadModel()
    for cluster in ("east", "west"):
        models.open(cluster).upsert(PODS, manifest("a", labels={"app": "web"}))
    models.close("east")
    assert list(held(models)) == ["west:pods:default:a"]
    assert len(models.index) == 1


def test_over_the_budget_a_type_keeps_its_metadata_and_says_the_rest_is_absent():
    models = ReadModel()
    model = models.open("east")
    model.upsert(PODS, manifest("a", labels={"app": "web"}))
    whole = model.held_bytes("pods")
    model.hold_metadata_only(PODS)
    model.upsert(PODS, manifest("b", labels={"app": "web"}))
    assert model.held_bytes("pods") < 2 * whole
    for rid in ("east:pods:default:a", "east:pods:default:b"):
        found = json.loads(get(models, rid))
        assert found["kind"] == "PartialObjectMetadata"
        assert found["metadata"]["labels"] == {"app": "web"}
        assert set(found) == {"kind", "apiVersion", "metadata"}


def test_back_under_the_budget_a_list_makes_the_type_whole_again():
    models = ReadModel()
    model = models.open("east")
    model.upsert(PODS, manifest("a"))
    model.hold_metadata_only(PODS)
    model.hold_whole(PODS)
    model.replace(PODS, [manifest("a")], "5")
    assert get(models, "east:pods:default:a") == manifest("a")


def test_objects_that_have_gone_are_empty_and_keep_their_place():
    models = ReadModel()
    models.open("east").upsert(PODS, manifest("a"))
    assert fetch(models, ["east:pods:default:zz", "east:pods:default:a", "north:pods:default:a"]) == [
        b"",
        manifest("a"),
        b"",
    ]


def test_types_are_described_over_clusters_with_their_counts():
    models = ReadModel()
    models.open("east").learn(CONFIGS)
    models.open("west").learn(CONFIGS)
    models.open("west").upsert(CONFIGS, manifest("a"))
    (found,) = describe_types(models)
    assert (found.name, found.clusters, found.count) == ("configmaps", ["east", "west"], 1)
    assert describe_types(models, ["north"]) == []


def test_counts_are_by_cluster_type_namespace_and_phase():
    models = ReadModel()
    models.open("east").upsert(PODS, manifest("a", namespace="red"))
    models.open("west").upsert(PODS, manifest("b", namespace="red", phase="Failed"))
    selection, states = select(models, Query(clusters=["east", "west"], types=["pods"]), live)
    counts = count(models, selection.rows, states)
    assert counts.total == 2
    assert {state.name: state.count for state in counts.clusters} == {"east": 1, "west": 1}
    assert counts.types == {"pods": 2}
    assert counts.namespaces == {"red": 2}
    assert counts.phases == {"Running": 1, "Failed": 1}
