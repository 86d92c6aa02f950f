"""A command in the pods of a workload, which need not be in every cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet

EXEC = "/api/k8s/containers/exec"
CLUSTERS = ["work-shop", "work-data"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(kubelore: Any) -> AsyncIterator[Any]:
    """The clusters of the demo: the deployment `storefront` is in the first alone."""
    async with SimulatedFleet(clusters=0, demo=True) as fleet:
        for name, cluster in zip(CLUSTERS, fleet, strict=True):
            await kubelore.onboard(name, cluster.kubeconfig)
        yield kubelore
        for name in CLUSTERS:
            await kubelore.remove(name)


def _body(workload: str) -> dict[str, Any]:
    selection = {"clusters": CLUSTERS, "namespaces": ["shop"], "workload": workload}
    return {"selection": selection, "command": ["hostname"]}


async def test_a_workload_runs_it_in_the_clusters_that_have_the_workload(pair) -> None:
    answer = await pair.http.post(EXEC, json=_body("deployments.apps/storefront"))
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert results
    assert {one["container"].partition(":")[0] for one in results} == {"work-shop"}
    assert all(one["report"]["stdout"].strip() == one["container"].split(":")[2] for one in results)


async def test_a_workload_that_no_cluster_has_is_not_found(pair) -> None:
    answer = await pair.http.post(EXEC, json=_body("deployments.apps/nothing"))
    assert answer.status_code == 404
    assert "nothing" in answer.json()["detail"]


async def test_a_container_that_the_pod_does_not_have_is_told_those_that_it_has(pair) -> None:
    found = await pair.http.post(EXEC, json=_body("deployments.apps/storefront"))
    pod = found.json()["results"][0]["container"].rpartition(":")[0]
    answer = await pair.http.post(f"/api/k8s/containers/{pod}:nope/exec", json={"command": ["hostname"]})
    assert answer.status_code == 404
    assert "'nope'" in answer.json()["detail"]
    assert "web" in answer.json()["remedy"]
