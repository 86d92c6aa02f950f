"""What only a real API server tells: fields that cannot be changed, values quoted in refusals, taken addresses, 410."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.contracts.exports import EXPORT, Export
from kubelore.common.contracts.writes import (
    REPLACE_MANY,
    ManyResult,
    OnExisting,
    Replace,
    ReplaceMany,
    replace_context,
)
from kubelore.common.errors import Gone, Invalid
from kubelore.common.kube import ResourceType
from kubelore.common.operations import new_operation_id, operating

pytestmark = pytest.mark.lab

NAMESPACE = "replacing"
TYPES = {
    "configmaps": ResourceType(
        group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True
    ),
    "secrets": ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True),
    "services": ResourceType(group="", version="v1", plural="services", kind="Service", namespaced=True),
    "statefulsets.apps": ResourceType(
        group="apps", version="v1", plural="statefulsets", kind="StatefulSet", namespaced=True
    ),
}
VALUE = "cXVvdGVkLXZhbHVl"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace(lab_pair) -> AsyncIterator[str]:
    kubectl = lab_pair.first.kubectl()
    await kubectl("create", "namespace", NAMESPACE)
    yield NAMESPACE
    await kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def named(kind: str, name: str) -> str:
    return f"real:{kind}:{NAMESPACE}:{name}"


def put(kind: str, manifest: dict[str, Any], **more: Any) -> Replace:
    return Replace(
        id=named(kind, manifest["metadata"]["name"]), manifest=json.dumps(manifest).encode(), **more
    )


def manifest(kind: str, name: str, **rest: Any) -> dict[str, Any]:
    found = TYPES[kind]
    return {"apiVersion": found.api_version, "kind": found.kind, "metadata": {"name": name}, **rest}


def stateful_set(name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    said = {"replicas": 0, "serviceName": "web", "selector": {"matchLabels": labels}, "template": template}
    return manifest("statefulsets.apps", name, spec=said | spec)


async def live(hand, kind: str, name: str) -> dict[str, Any]:
    return await hand.live(TYPES[kind], name, NAMESPACE)


async def many(hand, items: list[Replace], on_existing: OnExisting = "fail") -> list[ManyResult]:
    with operating(new_operation_id()):
        request = ReplaceMany(cluster="real", items=items, on_existing=on_existing)
        return (await hand.house.bus.request(REPLACE_MANY, request)).results


async def test_an_object_read_whole_is_put_back_over_later_changes_and_after_its_deletion(
    real_hand, namespace
) -> None:
    await real_hand.write(put("statefulsets.apps", stateful_set("web"), mode="create"))
    was = await live(real_hand, "statefulsets.apps", "web")
    await real_hand.write(put("statefulsets.apps", stateful_set("web", replicas=3)))
    assert (await real_hand.write(put("statefulsets.apps", was))).result == "changed"
    now = await live(real_hand, "statefulsets.apps", "web")
    assert now["spec"] == was["spec"]
    assert "kubelore" in {entry["manager"] for entry in now["metadata"]["managedFields"]}
    await real_hand.client.delete(TYPES["statefulsets.apps"], NAMESPACE, "web")
    assert (await real_hand.write(put("statefulsets.apps", was, mode="either"))).result == "created"


async def test_fields_that_cannot_be_changed_are_named_with_what_to_do(real_hand, namespace) -> None:
    await real_hand.write(put("statefulsets.apps", stateful_set("fixed"), mode="create"))
    changed = stateful_set("fixed", serviceName="other", replicas=2)
    error = await real_hand.refused(put("statefulsets.apps", changed))
    assert (type(error), error.extra["fields"]) == (Invalid, ["spec.serviceName"])
    assert "delete the object and create it anew" in str(error.remedy)
    service = manifest("services", "fixed", spec={"ports": [{"port": 80}]})
    await real_hand.write(put("services", service, mode="create"))
    service["spec"]["clusterIP"] = "10.0.0.250"
    error = await real_hand.refused(put("services", service))
    assert any(field.startswith("spec.clusterIP") for field in error.extra["fields"])


async def test_a_refusal_of_a_secret_quotes_none_of_its_values(real_hand, namespace) -> None:
    def box(secret: dict[str, Any]) -> dict[str, Any]:
        identity = named("secrets", secret["metadata"]["name"])
        plain = json.dumps(secret).encode()
        recipient = real_hand.house.keyring.recipient()
        return {"id": identity, "sealed": recipient.seal(plain, context=replace_context(identity))}

    secret = manifest("secrets", "locked", data={"key": VALUE}, immutable=True)
    await real_hand.write(Replace(**box(secret), mode="create"))
    broken = manifest("secrets", "locked", data={"key": VALUE + "!no base64"})
    other = manifest("secrets", "locked", data={"key": "b3RoZXI="}, immutable=True)
    locked = await real_hand.refused(Replace(**box(other)))
    assert locked.extra["fields"] == ["data"]
    for error in (locked, await real_hand.refused(Replace(**box(broken)))):
        assert VALUE not in json.dumps([error.detail, error.remedy, error.extra], default=str)
    (failed,) = await many(real_hand, [Replace(**box(broken))], "update")
    assert (failed.result, VALUE in failed.detail) == ("failed", False)
    assert (await live(real_hand, "secrets", "locked"))["data"] == {"key": VALUE}


async def test_many_with_a_service_whose_own_address_is_taken_by_itself_are_skipped_or_put_back(
    real_hand, namespace
) -> None:
    service = manifest("services", "addressed", spec={"ports": [{"name": "http", "port": 80}]})
    await real_hand.write(put("services", service, mode="create"))
    was = await live(real_hand, "services", "addressed")
    items = [put("services", was), put("configmaps", manifest("configmaps", "beside"), item=1)]
    assert [one.result for one in await many(real_hand, items, "skip")] == ["skipped", "created"]
    assert [one.result for one in await many(real_hand, items, "update")] == ["unchanged", "unchanged"]
    assert [one.result for one in await many(real_hand, items)] == ["failed", "failed"]


async def test_pages_of_a_real_api_server_are_its_bytes_until_it_has_forgotten_their_state(
    real_hand, namespace, lab_pair
) -> None:
    names = [f"page-{number}" for number in range(5)]
    made = await many(
        real_hand, [put("configmaps", manifest("configmaps", name), item=n) for n, name in enumerate(names)]
    )
    assert {one.result for one in made} == {"created"}
    asked = Export(cluster="real", type="configmaps", namespace=NAMESPACE, limit=2)
    first = await real_hand.house.bus.request(EXPORT, asked)
    for one in first.items:
        name = one.id.rsplit(":", 1)[1]
        assert one.object == await real_hand.client.get(TYPES["configmaps"], NAMESPACE, name)
    await many(real_hand, [put("configmaps", manifest("configmaps", "page-later"))])
    await lab_pair.first.expire_history()
    asked.continue_token = first.next
    with pytest.raises(Gone):
        await real_hand.house.bus.request(EXPORT, asked)
