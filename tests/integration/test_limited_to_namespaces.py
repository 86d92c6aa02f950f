"""A ServiceAccount that may read one namespace of a real cluster is enough to observe that namespace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

NAMESPACE, OTHER, CLUSTER = "shop", "vault", "limited"


def role(*resources: str) -> str:
    rules = [
        {"apiGroups": ["", "apps"], "resources": list(resources), "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    ]
    metadata = {"name": "reader", "namespace": NAMESPACE}
    return json.dumps(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    )


def config_map(name: str, namespace: str) -> str:
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def limited(kubelore, lab_pair) -> AsyncIterator[None]:
    """The first lab cluster, onboarded with an account that may read configmaps and deployments of one namespace."""
    plane = lab_pair.first
    kubectl = plane.kubectl()
    for namespace in (NAMESPACE, OTHER):
        await kubectl("create", "namespace", namespace)
    await kubectl("apply", "-f", "-", stdin=role("configmaps", "deployments"))
    await kubectl(
        *("create", "rolebinding", "reader", "-n", NAMESPACE),
        *("--role=reader", f"--serviceaccount={NAMESPACE}:reader"),
    )
    for namespace in (NAMESPACE, OTHER):
        await kubectl("apply", "-f", "-", stdin=config_map("before", namespace))
    kubeconfig = await plane.service_account_kubeconfig("reader", NAMESPACE)
    await kubelore.onboard(CLUSTER, kubeconfig, namespaces=[NAMESPACE], allow_duplicate=True)
    yield
    await kubelore.remove(CLUSTER)
    await kubectl("delete", "namespace", NAMESPACE, OTHER, "--wait=false")


async def test_what_the_account_may_read_is_there_and_nothing_else(limited, kubelore) -> None:
    page = await kubelore.list(clusters=CLUSTER, limit=10_000)
    assert [state["status"] for state in page["clusters"]] == ["live"]
    ids = {item["id"] for item in page["items"]}
    assert f"{CLUSTER}:configmaps:{NAMESPACE}:before" in ids
    assert f"{CLUSTER}:namespaces::{NAMESPACE}" in ids
    assert {name.split(":")[1] for name in ids} <= {"configmaps", "deployments.apps", "namespaces"}
    assert {name.split(":")[2] for name in ids} <= {"", NAMESPACE}


async def test_a_type_that_may_not_be_listed_is_an_error_to_who_asks_for_it(limited, kubelore) -> None:
    for name in ("secrets", "nodes"):
        (state,) = (await kubelore.list(clusters=CLUSTER, type=name))["clusters"]
        assert state["status"] == "error"
        assert name in state["error"]


async def test_a_change_in_the_namespace_arrives(limited, kubelore, lab_pair) -> None:
    await lab_pair.first.kubectl()("apply", "-f", "-", stdin=config_map("later", NAMESPACE))

    async def arrived() -> bool:
        return f"{CLUSTER}:configmaps:{NAMESPACE}:later" in await kubelore.ids(clusters=CLUSTER, type="cm")

    await wait_for(arrived, "the change")
