"""Objects are made what a manifest says: on the very state that was meant, with what cannot be changed named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.authz import Caller, Grant
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import Delete, Replace, replace_context
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    IntegrityError,
    Invalid,
    NotFound,
)
from kubelore.common.kube import ResourceType
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.replacing import SERVER_SET, read_replacement, with_fields

CLUSTER = "sim-01"
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
VIEWER = Caller(subject="vera", grants=(Grant(role="viewer"),))


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def named(name: str, kind: str = "configmaps") -> str:
    return f"{CLUSTER}:{kind}:default:{name}"


def replace(manifest: dict[str, Any], **more: Any) -> Replace:
    return Replace(id=named(manifest["metadata"]["name"]), manifest=json.dumps(manifest).encode(), **more)


async def test_a_replace_leaves_nothing_that_the_manifest_does_not_say(hand, applied) -> None:
    made = await hand.apply(config_map("whole", a="1", b="2"))
    written = await hand.write(replace(config_map("whole", b="3"), reason="back to before"))
    assert (written.result, written.uid) == ("changed", made.uid)
    live = await hand.live(CONFIG_MAPS, "whole")
    assert live["data"] == {"b": "3"}
    record = await hand.record()
    assert (record.action, record.state, record.rv, record.reason) == (
        "replace",
        "done",
        live["metadata"]["resourceVersion"],
        "back to before",
    )

    async def published() -> bool:
        return any(one.action == "replace" and one.rv == written.rv for one in applied)

    async with hand.house.replica("b"):
        await wait_for(published, "who replaced it to be published", 30)
    again = await hand.write(replace(config_map("whole", b="3")))
    assert (again.result, again.rv) == ("unchanged", written.rv)


async def test_what_was_there_once_can_be_put_back_as_it_was_read(hand) -> None:
    await hand.apply(config_map("once", a="1"))
    was = await hand.live(CONFIG_MAPS, "once")
    await hand.apply(config_map("once", a="2"))
    assert (await hand.write(replace(was))).result == "changed"
    assert (await hand.live(CONFIG_MAPS, "once"))["data"] == {"a": "1"}
    await hand.write(Delete(id=named("once")))
    assert isinstance(await hand.refused(replace(was)), NotFound)
    made = await hand.write(replace(was, mode="either"))
    assert (made.result, made.uid != was["metadata"]["uid"]) == ("created", True)
    assert isinstance(await hand.refused(replace(was, mode="create")), AlreadyExists)


async def test_a_replace_of_another_state_than_was_meant_is_a_conflict_and_changes_nothing(hand) -> None:
    first = await hand.apply(config_map("meant", a="1"))
    second = await hand.apply(config_map("meant", a="2"))
    error = await hand.refused(replace(config_map("meant", a="1"), rv=first.rv))
    assert isinstance(error, Conflict)
    assert error.detail.endswith(f"has changed since {first.rv}")
    assert error.extra["rv"] == second.rv
    error = await hand.refused(replace(config_map("meant", a="1"), uid="another"))
    assert (type(error), error.extra["uid"]) == (Conflict, second.uid)
    assert (await hand.live(CONFIG_MAPS, "meant"))["data"] == {"a": "2"}
    done = await hand.write(replace(config_map("meant", a="1"), rv=second.rv, uid=second.uid))
    assert done.result == "changed"


async def test_a_dry_run_of_a_replace_tells_and_does_nothing(hand) -> None:
    await hand.apply(config_map("tried", a="1"))
    told = await hand.write(replace(config_map("tried", a="2"), dry_run=True))
    assert (told.result, told.changes[0].path) == ("changed", "data.a")
    assert (await hand.live(CONFIG_MAPS, "tried"))["data"] == {"a": "1"}
    assert (
        await hand.write(replace(config_map("no", a="1"), mode="either", dry_run=True))
    ).result == "created"
    assert await hand.is_gone(CONFIG_MAPS, "no")


async def test_a_secret_sealed_for_its_id_is_written_and_its_values_are_in_no_answer(hand) -> None:
    value = "c2VhbGVkLXZhbHVl"
    identity = named("sealed", "secrets")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sealed"}, "data": {"key": value}}

    def box(manifest: dict[str, Any], context: str = replace_context(identity)) -> bytes:
        return hand.house.keyring.recipient().seal(json.dumps(manifest).encode(), context=context)

    made = await hand.write(Replace(id=identity, sealed=box(secret), mode="either"))
    assert (await hand.live(SECRETS, "sealed"))["data"] == {"key": value}
    assert value.encode() not in msgspec.json.encode(made)
    elsewhere = box(secret, replace_context(named("other", "secrets")))
    assert isinstance(await hand.refused(Replace(id=identity, sealed=elsewhere)), IntegrityError)
    assert isinstance(await hand.refused(Replace(id=identity)), BadRequest)


async def test_a_replace_needs_what_an_apply_needs_and_a_manifest_of_that_very_object(hand) -> None:
    await hand.apply(config_map("held", a="1"))
    assert isinstance(await hand.refused(replace(config_map("held", a="2")), VIEWER), Forbidden)
    other = Replace(id=named("held"), manifest=json.dumps(config_map("another")).encode())
    error = await hand.refused(other)
    assert (type(error), error.extra["field"]) == (Invalid, "metadata.name")
    for manifest in (b"[]", b"{", b'{"metadata":1}', b'{"kind":"Pod","metadata":{"name":"held"}}'):
        assert isinstance(
            await hand.refused(Replace(id=named("held"), manifest=manifest)), BadRequest | Invalid
        )
    assert (await hand.live(CONFIG_MAPS, "held"))["data"] == {"a": "1"}


@given(
    st.dictionaries(st.sampled_from([*SERVER_SET, "labels", "annotations", "finalizers"]), st.text()),
    st.dictionaries(
        st.sampled_from(["data", "spec", "status", "immutable"]), st.recursive(st.text(), st.lists)
    ),
)
def test_a_manifest_keeps_all_but_what_the_api_server_writes_itself(metadata, rest) -> None:
    identity = ResourceId(CLUSTER, "configmaps", "default", "one")
    manifest = {"metadata": metadata, **rest}
    sent = json.loads(read_replacement(json.dumps(manifest).encode(), identity, CONFIG_MAPS).body(rv="7"))
    kept = {name: value for name, value in metadata.items() if name not in SERVER_SET}
    assert sent.pop("metadata") == kept | {"name": "one", "namespace": "default", "resourceVersion": "7"}
    assert sent == rest | {"apiVersion": "v1", "kind": "ConfigMap"}


STATEFUL = (
    "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy' are forbidden"
)


@pytest.mark.parametrize(
    ("cause", "fields"),
    [
        ({"field": "spec.selector", "message": "Invalid value: {}: field is immutable"}, ["spec.selector"]),
        ({"field": "spec", "message": STATEFUL}, ["spec.serviceName"]),
        ({"field": "spec.clusterIPs[0]", "message": "may not change once set"}, ["spec.clusterIPs[0]"]),
        ({"field": "spec.replicas", "message": "Invalid value: -1: must be greater"}, None),
    ],
)
def test_what_cannot_be_changed_is_named_where_the_api_server_names_only_the_whole(cause, fields) -> None:
    live = {"spec": {"serviceName": "a", "replicas": 1, "podManagementPolicy": "OrderedReady"}}
    wanted = {"spec": {"serviceName": "b", "replicas": 2}}
    error = with_fields(Invalid("no", causes=[cause]), live, wanted)
    assert error.extra.get("fields") == fields
