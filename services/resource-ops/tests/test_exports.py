"""What a backup gets of a cluster: the API server's own bytes, page by page, and only what the caller may read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.contracts.exports import EXPORT, MAX_LIMIT, Export, Exported, ExportPage
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, Forbidden, Gone, NotFound
from kubelore.common.kube import ResourceType
from kubelore.common.kube.secrets import secret_context

CLUSTER = "sim-01"
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
READER = Caller(subject="rita", grants=(Grant(role="viewer", namespaces=("default",)),))


async def page(hand, caller: Caller = ADMINISTRATOR, **asked: Any) -> ExportPage:
    hand.house.bus.speaks_for = caller
    try:
        return await hand.house.bus.request(EXPORT, Export(**({"cluster": CLUSTER} | asked)))
    finally:
        hand.house.bus.speaks_for = ADMINISTRATOR


async def pages(hand, caller: Caller = ADMINISTRATOR, **asked: Any) -> list[Exported]:
    token, found = "", []
    while True:
        got = await page(hand, caller, continue_token=token, **asked)
        found += got.items
        token = got.next
        if not token:
            return found


async def made(hand, namespace: str, name: str, found: ResourceType = CONFIG_MAPS, **more: Any) -> bytes:
    manifest = {
        "apiVersion": "v1",
        "kind": found.kind,
        "metadata": {"name": name, "labels": {"test": "export"}},
    }
    return await hand.client.create(found, namespace, json.dumps(manifest | more).encode())


async def test_pages_hold_every_object_once_as_the_very_bytes_of_the_api_server(hand) -> None:
    for number in range(7):
        await made(hand, "default", f"paged-{number}", data={"n": str(number)})
    found = await pages(hand, type="configmaps", labels="test=export", limit=3)
    assert [one.id for one in found] == [f"{CLUSTER}:configmaps:default:paged-{n}" for n in range(7)]
    for one in found:
        live = await hand.client.get(CONFIG_MAPS, "default", one.id.rsplit(":", 1)[1])
        assert one.object == live
        metadata = json.loads(live)["metadata"]
        assert (one.uid, one.rv, one.sealed) == (metadata["uid"], metadata["resourceVersion"], b"")


async def test_a_caller_gets_what_they_may_read_and_of_no_cluster_that_is_not_theirs(hand) -> None:
    await made(hand, "kube-system", "far")
    await made(hand, "default", "near")
    mine = [one.id for one in await pages(hand, READER, type="configmaps", labels="test=export")]
    assert mine == [f"{CLUSTER}:configmaps:default:near"]
    assert await pages(hand, READER, type="nodes") == []
    assert await pages(hand, type="nodes") != []
    stranger = Caller(subject="sam", grants=(Grant(role="admin", clusters=("other",)),))
    with pytest.raises(NotFound):
        await page(hand, stranger, type="configmaps")


async def test_secrets_come_without_values_and_sealed_only_to_who_has_the_right(hand, settings) -> None:
    value = "ZXhwb3J0ZWQtdmFsdWU="
    await made(hand, "default", "kept", SECRETS, data={"key": value})
    (plain,) = await pages(hand, READER, type="secrets", labels="test=export")
    assert (plain.sealed, list(plain.hmacs or {})) == (b"", ["key"])
    with pytest.raises(Forbidden):
        await page(hand, READER, type="secrets", secrets=True)
    (sealed,) = await pages(hand, type="secrets", labels="test=export", secrets=True)
    assert sealed.hmacs == plain.hmacs
    for one in (plain, sealed):
        assert value.encode() not in msgspec.msgpack.encode(one)
    versions = Keyring.load(settings.keyring_dir / "versions.json")
    opened = versions.open_box(sealed.sealed, context=secret_context(CLUSTER, sealed.uid, sealed.rv))
    assert msgspec.msgpack.decode(opened) == {"key": b"exported-value"}
    bounded = Caller(
        subject="bo", grants=(Grant(role="viewer", rights=("secrets",), namespaces=("default",)),)
    )
    assert (await page(hand, bounded, type="secrets", namespace="default", secrets=True)).items
    with pytest.raises(Forbidden):
        await page(hand, bounded, type="secrets", secrets=True)


async def test_a_page_of_a_state_that_is_no_longer_kept_is_told_as_expired(hand) -> None:
    for number in range(3):
        await made(hand, "default", f"old-{number}")
    first = await page(hand, type="configmaps", limit=1)
    await made(hand, "default", "newer")
    hand.house.clusters[0].compact()
    with pytest.raises(Gone) as gone:
        await page(hand, type="configmaps", limit=1, continue_token=first.next)
    assert (gone.value.reason, "Begin the type again" in str(gone.value.remedy)) == ("Expired", True)


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "configmaps", "limit": 0},
        {"type": "configmaps", "limit": MAX_LIMIT + 1},
        {"type": "unheard-of"},
        {"type": "nodes", "namespace": "default"},
        {"type": "configmaps", "cluster": "No Cluster"},
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(hand, asked) -> None:
    with pytest.raises(BadRequest):
        await page(hand, **asked)
