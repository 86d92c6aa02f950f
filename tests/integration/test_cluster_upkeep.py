"""Clusters kept up on real API servers: rotated, limited, renewed, measured, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelore.cluster_registry.__main__ import build
from kubelore.cluster_registry.lifetimes import RENEW_AT
from kubelore.common.bus import connect, ensure_streams
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import AddCluster, ClusterRef, Empty, Sealed
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.kube.credentials import token_claims
from kubelore.common.store import open_database
from kubelore.lab import kubeconfig as lab_kubeconfig
from kubelore.lab.kubectl import kubectl_program
from kubelore.lab.waiting import wait_for
from kubelore.stack.fixtures import speak_as

pytestmark = pytest.mark.lab


async def answered(kubelore, method: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await kubelore.http.request(method, f"/api/k8s/clusters/{path}", json=body or None)
    return answer.status_code, answer.json()


async def test_a_rotated_cluster_goes_on_with_its_new_credentials(kubelore, lab_pair) -> None:
    first, second = lab_pair.first, lab_pair.second
    await kubelore.onboard("turned", first.kubeconfig(), tags=["kept"])
    try:
        status, problem = await answered(kubelore, "PUT", "turned/kubeconfig", kubeconfig=second.kubeconfig())
        assert (status, problem["reason"]) == (409, "Conflict")
        assert problem["remedy"]
        await first.kubectl()(
            "create", "clusterrolebinding", "turned", "--clusterrole=view", "--serviceaccount=default:turned"
        )
        limited = await first.service_account_kubeconfig("turned")
        status, rotated = await answered(kubelore, "PUT", "turned/kubeconfig", kubeconfig=limited)
        assert (status, rotated["tags"]) == (200, ["kept"])
        assert rotated["credentials_expire_at"]
        await kubelore.until_live("turned")

        async def without_secrets() -> bool:
            return not await kubelore.ids(type="roles", clusters="turned")

        await wait_for(without_secrets, "what the new credentials may not read to be gone", 30)
        status, tested = await answered(kubelore, "POST", "turned/test")
        assert tested["ok"], tested
        assert tested["verbs"]["pods"] == ["get", "list", "watch"]
        assert tested["verbs"]["secrets"] == []
        assert "secrets" in tested["skipped_types"]
        assert tested["token_days_left"] is not None
    finally:
        await kubelore.remove("turned")
        await first.kubectl()("delete", "clusterrolebinding", "turned", "--ignore-not-found")


async def test_a_certificate_that_has_expired_is_named_and_rotating_mends_it(kubelore, lab_pair) -> None:
    plane = lab_pair.first
    brief = plane.authorities.cluster.client("brief", ["system:masters"], timedelta(seconds=12))
    text = lab_kubeconfig.with_certificate(
        plane.name, plane.server, plane.authorities.cluster_certificate, "brief", brief
    )
    assert (await kubelore.add("brief", text)).status_code == 201
    try:

        async def expired() -> bool:
            _, tested = await answered(kubelore, "POST", "brief/test")
            return not tested["ok"]

        await wait_for(expired, "the certificate to expire", 30)
        _, tested = await answered(kubelore, "POST", "brief/test")
        failed = next(step for step in tested["steps"] if step["ok"] is False)
        assert failed["name"] == "authentication"
        assert "expired" in failed["detail"]
        assert "clusters rotate" in failed["remedy"]
        assert tested["certificate_days_left"] < 0
        status, _ = await answered(kubelore, "PUT", "brief/kubeconfig", kubeconfig=plane.kubeconfig())
        assert status == 200
        assert (await answered(kubelore, "GET", "brief"))[1]["status"] == "connected"
    finally:
        await kubelore.remove("brief")


async def test_credentials_for_one_namespace_are_added_tested_and_observed(kubelore, lab_pair) -> None:
    kubectl = lab_pair.first.kubectl()
    await kubectl("create", "namespace", "narrow")
    await kubectl("create", "rolebinding", "narrow", "-n", "narrow", "--clusterrole=edit",
                  "--serviceaccount=narrow:narrow")  # fmt: skip
    text = await lab_pair.first.service_account_kubeconfig("narrow", "narrow")
    try:
        await kubelore.onboard("narrow", text, namespaces=["narrow"])
        _, tested = await answered(kubelore, "POST", "narrow/test")
        assert tested["ok"], tested
        assert tested["namespaces"] == ["narrow"]
        assert set(tested["verbs"]["pods"]) == {"get", "list", "watch", "create", "patch", "delete"}
        assert "nodes" in tested["skipped_types"]
        status, report = await answered(kubelore, "POST", "narrow/sync")
        assert (status, report["status"]) == (200, "live")
        states = {state["type"]: state["status"] for state in report["types"]}
        assert (states["pods"], states["nodes"]) == ("live", "skipped")
        _, metrics = await answered(kubelore, "GET", "narrow/metrics")
        assert metrics["capacity"] is None
        assert metrics["missing"]["capacity"]
        assert metrics["namespaces"] == ["narrow"]
    finally:
        await kubelore.remove("narrow")
        await kubectl("delete", "namespace", "narrow", "--wait=false")


async def test_usage_is_null_where_no_metrics_server_runs(kubelore, lab_pair) -> None:
    await kubelore.onboard("plain", lab_pair.second.kubeconfig())
    try:
        status, metrics = await answered(kubelore, "GET", "plain/metrics")
        assert (status, metrics["usage"]) == (200, None)
        assert "metrics.k8s.io" in metrics["missing"]["usage"]
        assert metrics["nodes"]["total"] == 0
    finally:
        await kubelore.remove("plain")


@pytest.mark.node
async def test_figures_of_a_real_node_are_those_that_kubectl_shows(kubelore, lab_node) -> None:
    await lab_node.node.wait_for_metrics()
    await kubelore.onboard("measured", lab_node.plane.kubeconfig())
    try:
        said = json.loads(await lab_node.plane.kubectl()("get", "nodes", "-o", "json"))["items"][0]["status"]

        async def measured() -> bool:
            _, metrics = await answered(kubelore, "GET", "measured/metrics")
            return metrics["usage"] is not None and metrics["nodes"]["ready"] == 1

        await wait_for(measured, "usage to be there", 60)
        _, metrics = await answered(kubelore, "GET", "measured/metrics")
        assert metrics["capacity"]["cpu"] == said["capacity"]["cpu"]
        assert metrics["capacity"]["pods"] == int(said["capacity"]["pods"])
        assert 0 < metrics["usage"]["cpu_cores"] < metrics["capacity"]["cpu_cores"]
        assert 0 < metrics["usage"]["memory_bytes"] < metrics["capacity"]["memory_bytes"]
        described = await lab_node.plane.kubectl()("describe", "nodes")
        assert f"cpu                {metrics['requests']['cpu']} (" in described
    finally:
        await kubelore.remove("measured")


async def test_a_token_renews_itself_before_it_expires(lab_pair, settings) -> None:
    """On a registry of its own, whose clock is turned forward to where a third of the token's life is left."""
    plane = lab_pair.first
    kubectl = plane.kubectl()
    await kubectl("create", "namespace", "renewing")
    text = await plane.service_account_kubeconfig("robot", "renewing", seconds=3600)
    await kubectl("create", "role", "renews", "-n", "renewing", "--verb=create",
                  "--resource=serviceaccounts/token", "--resource-name=robot")  # fmt: skip
    await kubectl("create", "rolebinding", "renews", "-n", "renewing", "--role=renews",
                  "--serviceaccount=renewing:robot")  # fmt: skip
    Keyring.load_or_create(settings.keyring_dir / "clusters.json", "clusters")
    bus = speak_as(await connect(settings, name=clusters.SERVICE), settings)
    await ensure_streams(bus)
    now = [0.0]
    async with await open_database(settings) as database:
        house = await build(settings, bus, database, lambda: now[0])
        await house.service.start()
        try:
            key = await bus.request(clusters.RECIPIENT, Empty())
            box = Recipient(key.key).seal(text.encode(), context="kubeconfig:renewing")

            async def added() -> bool:
                request = AddCluster(name="renewing", sealed=Sealed(box), renew_token=True)
                return (await bus.request(clusters.ADD, request)).renews_token

            from kubelore.common.errors import Invalid

            await wait_for(added, "the role to be in force", 10, ignoring=(Invalid,))
            before = await bus.request(clusters.GET, ClusterRef("renewing"))
            token = yaml.safe_load(text)["users"][0]["user"]["token"]
            claims = token_claims(token)
            assert claims is not None
            assert claims.exp is not None
            assert claims.iat is not None
            now[0] = claims.exp - (claims.exp - claims.iat) * RENEW_AT - 5
            assert await house.renewal.renew_due() == 0
            # A token made in the same second would last no longer than the first.
            await asyncio.sleep(1.1)
            now[0] += 10
            assert await house.renewal.renew_due() == 1
            after = await bus.request(clusters.GET, ClusterRef("renewing"))
            assert after.generation == before.generation + 1
            assert (after.credentials_expire_at or "") > (before.credentials_expire_at or "")
            tested = await bus.request(clusters.TEST, ClusterRef("renewing"))
            assert tested.steps[3].ok, tested
        finally:
            await house.service.stop()
            await bus.close()
            await kubectl("delete", "namespace", "renewing", "--wait=false")


async def test_a_cluster_whose_kubeconfig_runs_a_program_comes_in_by_a_service_account(
    kubelore, lab_pair, command_line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = lab_pair.second
    token = yaml.safe_load(await plane.service_account_kubeconfig("person", "default"))["users"][0]["user"][
        "token"
    ]
    await plane.kubectl()("create", "clusterrolebinding", "person", "--clusterrole=cluster-admin",
                          "--serviceaccount=default:person")  # fmt: skip
    plugin = tmp_path / "login"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    plugin.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(credential)}\nE\n")
    plugin.chmod(0o700)
    config = yaml.safe_load(plane.kubeconfig())
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "interactiveMode": "Never",
        }
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("PATH", f"{kubectl_program().parent}:{os.environ['PATH']}")
    cli = command_line(kubelore.url, kubelore.token)
    try:
        refused = await cli("clusters", "add", "exec", "--from-kubeconfig", str(path))
        assert refused.code == 1
        assert "kubelore clusters add --create-service-account" in refused.err
        added = await cli(
            "clusters",
            "add",
            "exec",
            "--from-kubeconfig",
            str(path),
            "--create-service-account",
            "--role",
            "view",
        )
        assert added.code == 0, added.err
        assert added.out.endswith("cluster exec added\n")
        await kubelore.until_live("exec")
        _, found = await answered(kubelore, "GET", "exec")
        assert found["renews_token"] is True
        _, tested = await answered(kubelore, "POST", "exec/test")
        assert tested["verbs"]["pods"] == ["get", "list", "watch"]
        assert tested["verbs"]["secrets"] == []
        assert "nodes" not in tested["skipped_types"]
        said = await cli("clusters", "rotate", "exec", "--from-kubeconfig", str(path),
                         "--create-service-account", "--role", "edit")  # fmt: skip
        assert said.code == 0, said.err
        bindings = await plane.kubectl()("get", "clusterrolebindings", "-o", "name")
        assert "kubelore-edit" in bindings
        assert "kubelore-view" not in bindings
    finally:
        await kubelore.remove("exec")
        await plane.kubectl()("delete", "namespace", "kubelore-system", "--wait=false", "--ignore-not-found")
        await plane.kubectl()(
            "delete",
            "clusterrolebinding",
            "person",
            "kubelore-edit",
            "kubelore-cluster-reader",
            "--ignore-not-found",
        )
