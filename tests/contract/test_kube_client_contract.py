"""What the Kubernetes client relies on, held against kubesim and against a real API server alike.

The scenarios are written once; a cluster inherits them. Where one fails on
kubesim alone, kubesim is wrong; on the real server alone, the client is.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Gone,
    Invalid,
    KubeloreError,
    NotFound,
    Unauthenticated,
)
from kubelore.common.kube import (
    AddressPolicy,
    Discovery,
    KubeClient,
    ResourceType,
    WatchEvent,
    WatchSilent,
    decode_meta,
    read_kubeconfig,
)
from kubelore.common.kube.resource_type import NAMESPACES
from kubelore.common.kube.writing import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.fixtures import LabPair
from kubelore.lab.waiting import wait_for

POLICY = AddressPolicy(allow_private=True)
NAMESPACE = "kube-client-contract"
CONFIGMAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SERVICES = ResourceType(group="", version="v1", plural="services", kind="Service", namespaced=True)
CLUSTERROLES = ResourceType(
    group="rbac.authorization.k8s.io",
    version="v1",
    plural="clusterroles",
    kind="ClusterRole",
    namespaced=False,
)
DEFINITIONS = ResourceType(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
)
APISERVICES = ResourceType(
    group="apiregistration.k8s.io", version="v1", plural="apiservices", kind="APIService", namespaced=False
)
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
ORDERS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "orders.contract.kubelore.dev"},
    "spec": {
        "group": "contract.kubelore.dev",
        "scope": "Namespaced",
        "names": {"plural": "orders", "singular": "order", "kind": "Order"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": ANYTHING}},
        ],
    },
}


@dataclass
class Cluster:
    """One cluster under test, and what its makers alone can do to it."""

    client: KubeClient
    kubeconfig: str
    forget_history: Callable[[], Awaitable[None]]


def configmap(name: str, data: dict[str, str] | None = None, **metadata: Any) -> bytes:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE} | metadata,
            "data": data or {"key": "value"},
        }
    ).encode()


async def open_cluster(kubeconfig: str, forget_history: Callable[[], Awaitable[None]]) -> Cluster:
    client = KubeClient(read_kubeconfig(kubeconfig, None, POLICY), POLICY)
    namespace = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    with suppress(AlreadyExists):
        await client.create(NAMESPACES, None, namespace.encode())
    return Cluster(client, kubeconfig, forget_history)


async def collect(cluster: Cluster, rv: str, count: int, **selection: Any) -> list[WatchEvent]:
    """The first `count` changes behind `rv`, bookmarks left out; fails when they do not come."""
    found: list[WatchEvent] = []
    async with (
        asyncio.timeout(20),
        aclosing(cluster.client.watch(CONFIGMAPS, namespace=NAMESPACE, rv=rv, **selection)) as events,
    ):
        async for event in events:
            if event.kind != "BOOKMARK":
                found.append(event)
            if len(found) == count:
                break
    return found


class KubeClientContract:
    """Inherited by each kind of cluster, which brings the fixture `cluster`."""

    async def test_version_and_readiness(self, cluster: Cluster) -> None:
        assert (await cluster.client.version())["gitVersion"].startswith("v1.")
        assert 0 < await cluster.client.ready() < 3

    async def test_discovery_finds_each_type_once(self, cluster: Cluster) -> None:
        found = await cluster.client.discovery()
        names = [each.name for each in found.types]
        assert len(names) == len(set(names))
        types = found.by_name()
        assert types["pods"].observable
        assert "po" in types["pods"].short_names
        assert types["deployments.apps"].versioned == "deployments.v1.apps"
        assert not types["namespaces"].namespaced
        assert "events" in types
        assert "events.events.k8s.io" not in types
        assert found.broken == {}

    async def test_an_object_is_the_same_bytes_whichever_way_it_comes(self, cluster: Cluster) -> None:
        client = cluster.client
        before = await client.list(CONFIGMAPS, namespace=NAMESPACE)
        created = await client.create(
            CONFIGMAPS, NAMESPACE, configmap("bytes", {"umlaut": "ä<&>\u2028", "n": "1.0"})
        )
        got = await client.get(CONFIGMAPS, NAMESPACE, "bytes")
        listed = await client.list(CONFIGMAPS, namespace=NAMESPACE, fields="metadata.name=bytes")
        (event,) = await collect(cluster, before.rv, 1, fields="metadata.name=bytes")
        assert list(listed.items) == [got]
        assert event.object == got
        assert created == got
        assert event.rv == decode_meta(got).resource_version

    async def test_custom_objects_come_and_go_with_their_definition(self, cluster: Cluster) -> None:
        client = cluster.client
        await client.create(DEFINITIONS, None, json.dumps(ORDERS).encode())
        try:

            async def served() -> ResourceType | None:
                return (await client.discovery()).by_name().get("orders.contract.kubelore.dev")

            orders = await wait_for(served, "orders are served", 20)
            assert orders is not None
            assert orders.observable
            order = {
                "apiVersion": orders.api_version,
                "kind": "Order",
                "metadata": {"name": "one"},
                "spec": {"n": 1},
            }
            before = await client.list(orders, namespace=NAMESPACE)
            await client.create(orders, NAMESPACE, json.dumps(order).encode())
            got = await client.get(orders, NAMESPACE, "one")
            assert list((await client.list(orders)).items) == [got]
            async with asyncio.timeout(20), aclosing(client.watch(orders, rv=before.rv)) as events:
                assert (await anext(events)).object == got
        finally:
            await client.delete(DEFINITIONS, None, "orders.contract.kubelore.dev")

    async def test_pages_hold_every_object_once(self, cluster: Cluster) -> None:
        for number in range(7):
            await cluster.client.create(
                CONFIGMAPS, NAMESPACE, configmap(f"page-{number}", labels={"contract": "pages"})
            )
        pages = [
            page
            async for page in cluster.client.pages(
                CONFIGMAPS, namespace=NAMESPACE, labels="contract=pages", limit=3
            )
        ]
        names = [decode_meta(item).name for page in pages for item in page.items]
        assert names == [f"page-{number}" for number in range(7)]
        assert [len(page.items) for page in pages] == [3, 3, 1]
        assert pages[-1].continue_ == ""
        assert len({page.rv for page in pages}) == 1

    async def test_label_and_field_selectors_reach_the_server(self, cluster: Cluster) -> None:
        for name, tier in (("sel-a", "web"), ("sel-b", "db")):
            await cluster.client.create(CONFIGMAPS, NAMESPACE, configmap(name, labels={"tier": tier}))
        found = await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE, labels="tier in (web, cache)")
        assert [decode_meta(item).name for item in found.items] == ["sel-a"]
        found = await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE, fields="metadata.name=sel-b")
        assert [decode_meta(item).name for item in found.items] == ["sel-b"]
        with pytest.raises(BadRequest):
            await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE, labels="tier in (")

    async def test_a_watch_goes_on_from_where_it_was(self, cluster: Cluster) -> None:
        client = cluster.client
        rv = (await client.list(CONFIGMAPS, namespace=NAMESPACE)).rv
        await client.create(CONFIGMAPS, NAMESPACE, configmap("resume"))
        changed = await client.patch(CONFIGMAPS, NAMESPACE, "resume", b'{"data":{"key":"2"}}')
        await client.delete(CONFIGMAPS, NAMESPACE, "resume")
        events = await collect(cluster, rv, 3)
        assert [event.kind for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        assert events[1].object == changed
        again = await collect(cluster, events[0].rv, 2)
        assert [event.kind for event in again] == ["MODIFIED", "DELETED"]
        assert [event.rv for event in again] == [event.rv for event in events[1:]]

    async def test_a_watch_can_begin_with_everything(self, cluster: Cluster) -> None:
        await cluster.client.create(CONFIGMAPS, NAMESPACE, configmap("initial"))
        names: list[str] = []
        async with (
            asyncio.timeout(20),
            aclosing(cluster.client.watch(CONFIGMAPS, namespace=NAMESPACE, send_initial=True)) as events,
        ):
            async for event in events:
                if event.initial_end:
                    break
                names.append(decode_meta(event.object).name)
        assert "initial" in names
        listed = await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE)
        assert sorted(names) == sorted(decode_meta(item).name for item in listed.items)

    async def test_a_silent_watch_is_an_error(self, cluster: Cluster) -> None:
        rv = (await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE)).rv
        started = time.monotonic()
        with pytest.raises(WatchSilent):
            await anext(
                cluster.client.watch(CONFIGMAPS, namespace=NAMESPACE, rv=rv, bookmarks=False, idle_s=0.5)
            )
        assert time.monotonic() - started < 5

    async def test_a_watch_ends_when_the_server_says_so(self, cluster: Cluster) -> None:
        rv = (await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE)).rv
        async with asyncio.timeout(20):
            events = cluster.client.watch(CONFIGMAPS, namespace=NAMESPACE, rv=rv, timeout_s=1)
            assert all([event.kind == "BOOKMARK" async for event in events])

    async def test_metadata_alone(self, cluster: Cluster) -> None:
        before = await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE, metadata=True)
        await cluster.client.create(CONFIGMAPS, NAMESPACE, configmap("partial", {"secret": "not-here"}))
        listed = await cluster.client.list(
            CONFIGMAPS, namespace=NAMESPACE, fields="metadata.name=partial", metadata=True
        )
        (event,) = await collect(cluster, before.rv, 1, fields="metadata.name=partial", metadata=True)
        assert list(listed.items) == [event.object]
        assert json.loads(event.object)["kind"] == "PartialObjectMetadata"
        assert b"not-here" not in event.object

    async def test_a_table_has_columns_and_rows(self, cluster: Cluster) -> None:
        await cluster.client.create(CONFIGMAPS, NAMESPACE, configmap("printed"))
        table = json.loads(
            await cluster.client.table(CONFIGMAPS, namespace=NAMESPACE, fields="metadata.name=printed")
        )
        assert table["kind"] == "Table"
        assert table["columnDefinitions"][0]["name"] == "Name"
        assert [row["cells"][0] for row in table["rows"]] == ["printed"]

    async def test_refusals_have_their_types(self, cluster: Cluster) -> None:
        client = cluster.client
        await client.create(CONFIGMAPS, NAMESPACE, configmap("taken"))
        with pytest.raises(AlreadyExists):
            await client.create(CONFIGMAPS, NAMESPACE, configmap("taken"))
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, NAMESPACE, "nothing")
        with pytest.raises(NotFound):
            await client.delete(CONFIGMAPS, NAMESPACE, "nothing")
        with pytest.raises(BadRequest):
            await client.create(CONFIGMAPS, NAMESPACE, b"no json")
        with pytest.raises(Invalid) as caught:
            await client.create(CONFIGMAPS, NAMESPACE, configmap("Not_A_Name"))
        assert caught.value.extra["causes"][0]["field"] == "metadata.name"

    async def test_a_stale_replace_is_a_conflict(self, cluster: Cluster) -> None:
        client = cluster.client
        stale = await client.create(CONFIGMAPS, NAMESPACE, configmap("stale"))
        await client.patch(CONFIGMAPS, NAMESPACE, "stale", b'{"data":{"key":"2"}}', MERGE_PATCH)
        with pytest.raises(Conflict):
            await client.replace(CONFIGMAPS, NAMESPACE, "stale", stale)
        fresh = json.loads(await client.get(CONFIGMAPS, NAMESPACE, "stale"))
        fresh["data"] = {"key": "3"}
        replaced = await client.replace(CONFIGMAPS, NAMESPACE, "stale", json.dumps(fresh).encode())
        assert json.loads(replaced)["data"] == {"key": "3"}

    async def test_a_delete_can_name_the_very_object(self, cluster: Cluster) -> None:
        client = cluster.client
        meta = decode_meta(await client.create(CONFIGMAPS, NAMESPACE, configmap("very")))
        with pytest.raises(Conflict):
            await client.delete(CONFIGMAPS, NAMESPACE, "very", uid="00000000-0000-0000-0000-000000000000")
        with pytest.raises(Conflict):
            await client.delete(CONFIGMAPS, NAMESPACE, "very", rv="1")
        await client.delete(CONFIGMAPS, NAMESPACE, "very", uid=meta.uid, rv=meta.resource_version)
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, NAMESPACE, "very")

    async def test_the_patches(self, cluster: Cluster) -> None:
        client = cluster.client
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "patched", "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"app": "web"}},
        }
        await client.create(SERVICES, NAMESPACE, json.dumps(service).encode())
        strategic = b'{"spec":{"ports":[{"name":"https","port":443}]}}'
        await client.patch(SERVICES, NAMESPACE, "patched", strategic, STRATEGIC_PATCH)
        await client.patch(SERVICES, NAMESPACE, "patched", b'{"metadata":{"labels":{"a":"b"}}}', MERGE_PATCH)
        pointed = b'[{"op":"replace","path":"/spec/selector/app","value":"api"}]'
        patched = json.loads(await client.patch(SERVICES, NAMESPACE, "patched", pointed, JSON_PATCH))
        assert sorted(port["port"] for port in patched["spec"]["ports"]) == [80, 443]
        assert patched["metadata"]["labels"] == {"a": "b"}
        assert patched["spec"]["selector"] == {"app": "api"}

    async def test_apply_shares_fields_by_their_owners(self, cluster: Cluster) -> None:
        client = cluster.client
        await client.apply(CONFIGMAPS, NAMESPACE, "applied", configmap("applied"), field_manager="one")
        with pytest.raises(Conflict) as caught:
            await client.apply(
                CONFIGMAPS, NAMESPACE, "applied", configmap("applied", {"key": "2"}), field_manager="two"
            )
        assert caught.value.extra["causes"][0]["field"] == ".data.key"
        forced = await client.apply(
            CONFIGMAPS,
            NAMESPACE,
            "applied",
            configmap("applied", {"key": "2"}),
            field_manager="two",
            force=True,
        )
        assert json.loads(forced)["data"] == {"key": "2"}

    async def test_a_dry_run_changes_nothing(self, cluster: Cluster) -> None:
        client = cluster.client
        await client.create(CONFIGMAPS, NAMESPACE, configmap("dry"))
        before = await client.get(CONFIGMAPS, NAMESPACE, "dry")
        await client.create(CONFIGMAPS, NAMESPACE, configmap("dry-created"), dry_run=True)
        await client.patch(CONFIGMAPS, NAMESPACE, "dry", b'{"data":{"key":"2"}}', dry_run=True)
        await client.apply(
            CONFIGMAPS, NAMESPACE, "dry", configmap("dry", {"key": "3"}), force=True, dry_run=True
        )
        await client.delete(CONFIGMAPS, NAMESPACE, "dry", dry_run=True)
        assert await client.get(CONFIGMAPS, NAMESPACE, "dry") == before
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, NAMESPACE, "dry-created")

    async def test_names_with_colons_are_addressed_safely(self, cluster: Cluster) -> None:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "contract:reader"},
            "rules": [],
        }
        await cluster.client.create(CLUSTERROLES, None, json.dumps(role).encode())
        try:
            assert decode_meta(await cluster.client.get(CLUSTERROLES, None, "contract:reader")).name
        finally:
            await cluster.client.delete(CLUSTERROLES, None, "contract:reader")

    @pytest.mark.parametrize("name", ["../secrets/x", "a/b", "%2e%2e", "a?watch=true", "a#b", "ä", "a b"])
    async def test_a_name_never_reaches_another_path(self, cluster: Cluster, name: str) -> None:
        with pytest.raises((NotFound, BadRequest, Invalid)):
            await cluster.client.get(CONFIGMAPS, NAMESPACE, name)

    async def test_a_wrong_token_is_not_accepted(self, cluster: Cluster) -> None:
        access = read_kubeconfig(cluster.kubeconfig, None, POLICY)
        access.token, access.client_cert_pem, access.client_key_pem = "wrong", b"", b""
        async with KubeClient(access, POLICY) as client:
            with pytest.raises(Unauthenticated):
                await client.list(CONFIGMAPS, namespace=NAMESPACE)
            result = await client.test()
        failed = next(step for step in result.steps if not step.ok)
        assert failed.name == "authentication"

    async def test_the_connection_test_passes(self, cluster: Cluster) -> None:
        result = await cluster.client.test("contract")
        assert result.ok, result.steps
        assert result.version.startswith("v1.")
        assert [step.name for step in result.steps] == [
            "dns",
            "tcp",
            "tls",
            "authentication",
            "authorization",
            "version",
        ]

    async def test_a_position_that_is_no_longer_kept_is_gone(self, cluster: Cluster) -> None:
        old = await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE)
        first = await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE, limit=1)
        await cluster.client.create(CONFIGMAPS, NAMESPACE, configmap("forgotten"))
        await cluster.client.delete(CONFIGMAPS, NAMESPACE, "forgotten")
        await cluster.forget_history()
        with pytest.raises(Gone):
            await collect(cluster, old.rv, 1)
        with pytest.raises(Gone):
            await cluster.client.list(CONFIGMAPS, namespace=NAMESPACE, limit=1, continue_=first.continue_)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def simulated() -> AsyncIterator[Cluster]:
    async with SimulatedFleet(clusters=1) as fleet:

        async def forget() -> None:
            fleet[0].state.store.compact()

        cluster = await open_cluster(fleet[0].kubeconfig, forget)
        async with cluster.client:
            yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def real(lab_pair: LabPair) -> AsyncIterator[Cluster]:
    cluster = await open_cluster(lab_pair.first.kubeconfig(), lab_pair.first.expire_history)
    async with cluster.client:
        yield cluster
        await cluster.client.delete(NAMESPACES, None, NAMESPACE)


class TestKubesim(KubeClientContract):
    @pytest.fixture
    def cluster(self, simulated: Cluster) -> Cluster:
        return simulated


@pytest.mark.lab
class TestRealApiServer(KubeClientContract):
    @pytest.fixture
    def cluster(self, real: Cluster) -> Cluster:
        return real

    async def test_an_extension_that_does_not_answer_is_named(self, cluster: Cluster) -> None:
        name = "v1.broken.kubelore.dev"
        spec = {
            "group": "broken.kubelore.dev",
            "version": "v1",
            "groupPriorityMinimum": 1,
            "versionPriority": 1,
            "insecureSkipTLSVerify": True,
            "service": {"name": "nothing", "namespace": NAMESPACE},
        }
        manifest = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": name},
            "spec": spec,
        }
        await cluster.client.create(APISERVICES, None, json.dumps(manifest).encode())
        try:

            async def named() -> Discovery | None:
                found = await cluster.client.discovery()
                return found if "broken.kubelore.dev/v1" in found.broken else None

            found = await wait_for(named, "the broken extension is named", 30)
            assert found is not None
            assert "pods" in found.by_name()
        finally:
            await cluster.client.delete(APISERVICES, None, name)

    async def test_a_limited_user_is_told_what_is_missing(self, lab_pair: LabPair) -> None:
        kubeconfig = lab_pair.first.kubeconfig("nobody-special")
        async with KubeClient(read_kubeconfig(kubeconfig, None, POLICY), POLICY) as client:
            result = await client.test()
        failed = next(step for step in result.steps if not step.ok)
        assert failed.name == "authorization"
        assert "pods" in result.skipped_types

    async def test_a_service_account_reads_what_its_role_allows(self, lab_pair: LabPair) -> None:
        plane = lab_pair.first
        kubeconfig = await plane.service_account_kubeconfig("contract-viewer")
        async with KubeClient(read_kubeconfig(kubeconfig, None, POLICY), POLICY) as client:
            result = await client.test()
            assert "serviceaccount" in result.steps[3].detail
            with pytest.raises(KubeloreError):
                await client.list(CONFIGMAPS, namespace="kube-system")
