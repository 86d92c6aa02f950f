"""Values: resource types and their paths, lists cut into objects, metadata."""

from __future__ import annotations

import json
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest, Invalid, UpstreamError
from kubelore.common.kube import ResourceType, decode_meta, metadata_only
from kubelore.common.kube.facts import read
from kubelore.common.kube.listing import parse_list
from kubelore.common.kube.nesting import UNREADABLE
from kubelore.common.kube.resource_type import NAMESPACES, PODS

DEPLOYMENTS = ResourceType(
    group="apps", version="v1", plural="deployments", kind="Deployment", namespaced=True
)
ROLES = ResourceType(
    group="rbac.authorization.k8s.io",
    version="v1",
    plural="clusterroles",
    kind="ClusterRole",
    namespaced=False,
)


def test_names_are_written_as_kubectl_does() -> None:
    assert (PODS.name, PODS.versioned, PODS.api_version) == ("pods", "pods.v1", "v1")
    assert (DEPLOYMENTS.name, DEPLOYMENTS.versioned) == ("deployments.apps", "deployments.v1.apps")
    assert DEPLOYMENTS.api_version == "apps/v1"


def test_paths() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("shop") == "/api/v1/namespaces/shop/pods"
    assert PODS.path("shop", "web-1", "log") == "/api/v1/namespaces/shop/pods/web-1/log"
    assert DEPLOYMENTS.path("shop", "web") == "/apis/apps/v1/namespaces/shop/deployments/web"
    assert NAMESPACES.path(None, "shop") == "/api/v1/namespaces/shop"
    assert ROLES.path(None, "system:node").endswith("/clusterroles/system%3Anode")


@pytest.mark.parametrize(
    ("resource_type", "arguments"),
    [
        (PODS, ("shop", "..")),
        (PODS, ("shop", "web-1/log")),
        (PODS, ("shop", "..%2Fsecrets%2Fx")),
        (PODS, ("shop/pods/web-1", None)),
        (PODS, ("shop", "web-1", "log/x")),
        (PODS, ("shop", ".")),
        (PODS, ("shop", "")),
        (PODS, ("..", "web")),
        (PODS, (None, "web")),
        (ROLES, ("shop", "admin")),
        (PODS, ("shop", None, "log")),
    ],
)
def test_paths_that_cannot_be(resource_type: ResourceType, arguments: tuple[str | None, ...]) -> None:
    with pytest.raises(BadRequest):
        resource_type.path(*arguments)


@given(namespace=st.text(min_size=1), name=st.text(min_size=1))
def test_no_name_leaves_its_place_in_a_path(namespace: str, name: str) -> None:
    try:
        path = PODS.path(namespace, name)
    except BadRequest:
        return
    parts = urlsplit(f"https://host{path}")
    assert not parts.query
    assert not parts.fragment
    assert parts.netloc == "host"
    segments = parts.path.split("/")
    assert segments[:4] == ["", "api", "v1", "namespaces"]
    assert segments[5] == "pods"
    assert len(segments) == 7
    assert (unquote(segments[4]), unquote(segments[6])) == (namespace, name)


def page(items: str, kind: str = "PodList", meta: str = '{"resourceVersion":"9"}') -> bytes:
    return f'{{"kind":"{kind}","apiVersion":"v1","metadata":{meta},"items":{items}}}'.encode()


def test_items_get_their_kind_in_front_as_a_get_has_it() -> None:
    found = parse_list(page('[{"metadata":{"name":"a"},"spec":{"x": 1.0}}]'))
    assert list(found.items) == [
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"x": 1.0}}'
    ]


@pytest.mark.parametrize(
    "item",
    [
        '{"apiVersion":"shop.dev/v1","kind":"Order","metadata":{}}',
        '{"kind":"Order","apiVersion":"shop.dev/v1","metadata":{}}',
        '{ "spec": {}, "kind": "Order", "metadata": {} }',
    ],
)
def test_items_that_say_their_kind_are_left_as_they_are(item: str) -> None:
    assert list(parse_list(page(f"[{item}]", "OrderList")).items) == [item.encode()]


def test_an_item_that_is_nested_too_deep_is_unreadable_and_the_others_are_as_ever() -> None:
    deep = '{"metadata":{"name":"b"},"spec":' + "[" * 5_000 + "]" * 5_000 + "}"
    found = parse_list(page(f'[{{"metadata":{{"name":"a"}}}},{deep},{{"metadata":{{"name":"c"}}}}]'))
    first, second, third = found.items
    assert (decode_meta(first).name, decode_meta(third).name) == ("a", "c")
    assert second == UNREADABLE
    with pytest.raises(UpstreamError):
        decode_meta(second)
    with pytest.raises(UpstreamError):
        decode_meta(deep.encode())
    with pytest.raises(Invalid):
        read("deeps.shop.dev", deep.encode())


def test_a_page_says_where_to_go_on() -> None:
    found = parse_list(page("null", meta='{"resourceVersion":"9","continue":"abc","remainingItemCount":7}'))
    assert (found.rv, found.continue_, found.remaining, list(found.items)) == ("9", "abc", 7, [])


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"kind":"Status","metadata":{}}', b'{"kind":"PodList"}']
)
def test_what_is_no_list_is_an_error_of_the_server(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        parse_list(body)


POD = json.dumps(
    {
        "kind": "Pod",
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u",
            "resourceVersion": "7",
            "labels": {"app": "web"},
            "creationTimestamp": None,
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": "r", "controller": True}],
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"containers": []},
    }
).encode()


def test_metadata_is_decoded() -> None:
    meta = decode_meta(POD)
    assert (meta.name, meta.namespace, meta.uid, meta.resource_version) == ("web-1", "shop", "u", "7")
    assert meta.labels == {"app": "web"}
    assert meta.owner_references is not None
    assert meta.owner_references[0].controller is True


def test_metadata_only_keeps_the_metadata_byte_for_byte() -> None:
    partial = json.loads(metadata_only(POD))
    assert partial["kind"] == "PartialObjectMetadata"
    assert partial["metadata"] == json.loads(POD)["metadata"]
    assert "spec" not in partial


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"metadata":{"name":7}}', b"{}"])
def test_what_is_no_object_is_an_error(raw: bytes) -> None:
    with pytest.raises(UpstreamError):
        decode_meta(raw)
