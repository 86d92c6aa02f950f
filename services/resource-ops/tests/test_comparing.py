"""Digests out of the read model: complete whatever the page size, kept until the object changes, only what is visible."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from kubelore.common.authz import Caller, Grant
from kubelore.common.contracts.resources import ClusterState, DigestPage, FetchMeant, ListDigests
from kubelore.common.errors import BadRequest
from kubelore.common.kube.resource_type import ResourceType
from kubelore.resource_ops.comparing import as_meant, digests
from kubelore.resource_ops.read_model import ReadModel
from kubelore.resource_ops.visibility import visible_to, whole

CONFIGS = ResourceType(
    group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True, short_names=("cm",)
)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
CLUSTERS = ["a", "b"]


def manifest(name: str, *, namespace: str = "n", rv: int = 1, uid: str = "", **body: Any) -> bytes:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"{namespace}/{name}",
        "resourceVersion": str(rv),
    }
    return json.dumps({"metadata": metadata, **body}).encode()


def live(cluster: str, types: frozenset[str]) -> ClusterState:
    return ClusterState(name=cluster, status="live")


def models() -> ReadModel:
    made = ReadModel()
    for name in CLUSTERS:
        made.open(name).learn(CONFIGS)
    return made


async def page(held: ReadModel, visible: Any = whole, **more: Any) -> DigestPage:
    asked = ListDigests(**{"clusters": CLUSTERS, "types": ["cm"], **more})
    return await digests(held, asked, live, visible=visible)


async def test_a_name_comes_once_with_a_digest_for_each_cluster() -> None:
    held = models()
    held.open("a").upsert(CONFIGS, manifest("one", uid="x", data={"k": "v"}))
    held.open("b").upsert(CONFIGS, manifest("one", uid="y", rv=7, data={"k": "v"}))
    held.open("b").upsert(CONFIGS, manifest("two"))
    found = await page(held)
    assert [(row.type, row.namespace, row.name) for row in found.rows] == [
        ("configmaps", "n", "one"),
        ("configmaps", "n", "two"),
    ]
    first, second = found.rows[0].held
    assert (first.cluster, second.cluster, len(first.digest)) == (0, 1, 16)
    assert first.digest == second.digest
    assert [one.cluster for one in found.rows[1].held] == [1]
    assert found.types == ["configmaps"]
    assert found.next is None


async def test_a_digest_is_kept_until_the_object_changes() -> None:
    held = models()
    held.open("a").upsert(CONFIGS, manifest("one", data={"k": "1"}))
    before = (await page(held)).rows[0].held[0].digest
    row = held.get("a:configmaps:n:one")
    assert row is not None
    assert row.digest == before
    held.open("a").upsert(CONFIGS, manifest("one", rv=2, data={"k": "2"}))
    assert row.digest == b""
    assert (await page(held)).rows[0].held[0].digest not in (before, b"")


async def test_secrets_that_differ_in_a_value_alone_have_other_digests() -> None:
    held = models()
    for name, value in (("a", b"1"), ("b", b"2")):
        held.open(name).upsert(SECRETS, manifest("s", type="Opaque"), {"password": value})
    one, other = (await page(held, types=["secrets"])).rows[0].held
    assert one.digest != other.digest
    (raw,) = await as_meant(held, FetchMeant(ids=["a:secrets:n:s"]))
    assert json.loads(raw)["data"] == {"password": b"1".hex()}


async def test_the_hashes_of_a_secret_follow_it() -> None:
    held = models()
    held.open("a").upsert(SECRETS, manifest("s"), {"password": b"1"})
    held.open("a").upsert(SECRETS, manifest("s", rv=2), {"password": b"2", "more": b"3"})
    row = held.get("a:secrets:n:s")
    assert row is not None
    assert row.hashes == {"password": b"2", "more": b"3"}
    held.open("a").upsert(SECRETS, manifest("s", rv=1), {"password": b"1"})
    assert row.hashes == {"password": b"2", "more": b"3"}


async def test_what_is_held_as_metadata_only_has_no_digest() -> None:
    held = models()
    held.open("a").upsert(CONFIGS, manifest("one", data={"k": "1"}))
    held.open("a").hold_metadata_only(CONFIGS)
    assert (await page(held)).rows[0].held[0].digest == b""
    assert await as_meant(held, FetchMeant(ids=["a:configmaps:n:one"])) == [b""]


async def test_what_is_not_visible_is_not_there() -> None:
    held = models()
    for cluster in CLUSTERS:
        for namespace in ("mine", "theirs"):
            held.open(cluster).upsert(CONFIGS, manifest("one", namespace=namespace))
    caller = Caller(subject="s", grants=(Grant(role="viewer", clusters=("a",), namespaces=("mine",)),))
    found = await page(held, visible_to(caller, held.index))
    assert [(row.namespace, [one.cluster for one in row.held]) for row in found.rows] == [("mine", [0])]
    ids = ["a:configmaps:mine:one", "a:configmaps:theirs:one"]
    raws = await as_meant(held, FetchMeant(ids=ids), lambda id: "mine" in id)  # noqa: A006
    assert [bool(raw) for raw in raws] == [True, False]


async def test_a_name_narrows_to_objects_of_that_name() -> None:
    held = models()
    for name in ("one", "two"):
        held.open("a").upsert(CONFIGS, manifest(name))
    assert [row.name for row in (await page(held, name="two")).rows] == ["two"]
    assert (await page(held, name="thr")).rows == []


@pytest.mark.parametrize("more", [{"limit": 0}, {"limit": 2001}, {"types": []}, {"labels": "a in"}])
async def test_what_cannot_be_understood_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await page(models(), **more)


names = st.tuples(st.sampled_from(CLUSTERS), st.sampled_from(["m", "n", ""]), st.sampled_from("uvwxyz"))


@settings(max_examples=50)
@given(objects=st.sets(names, max_size=20), limit=st.integers(1, 5), hidden=st.sets(names, max_size=3))
async def test_pages_hold_every_visible_name_once_and_in_order(
    objects: set[tuple[str, str, str]], limit: int, hidden: set[tuple[str, str, str]]
) -> None:
    held = models()
    for cluster, namespace, name in objects:
        held.open(cluster).upsert(CONFIGS, manifest(name, namespace=namespace))

    def visible(model: Any) -> BitMap:
        return BitMap(row.number for row in model if (model.cluster, row.namespace, row.name) not in hidden)

    walked: list[tuple[str, str, str]] = []
    after = None
    while True:
        found = await page(held, visible, limit=limit, after=after)
        assert len(found.rows) <= limit
        walked += [(CLUSTERS[one.cluster], row.namespace, row.name) for row in found.rows for one in row.held]
        after = found.next
        if after is None:
            break
    assert sorted(walked) == sorted(objects - hidden)
    assert [name[1:] for name in walked] == sorted(name[1:] for name in walked)
