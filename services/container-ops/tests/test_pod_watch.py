"""Containers as they come and go, from one watch that all who ask share."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.kube.resource_type import PODS
from kubelore.container_ops.pod_watch import LoggedContainer, PodWatch, Sighting, differences
from kubelore.container_ops.targets import PodSelection
from kubelore.kubesim import podlife
from kubelore.lab.images import BUSYBOX

CALM_S = 15.0


async def until(batches: AsyncIterator[list[Sighting]], happening: str, pod: str) -> Sighting:
    async with asyncio.timeout(CALM_S):
        async for batch in batches:
            for one in batch:
                if one.happening == happening and one.container.id.pod == pod:
                    return one
    raise AssertionError("the watch ended")


def run_pod(scene: Any, name: str, labels: dict[str, str]) -> None:
    """A pod that runs, as a kubelet reports it."""
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels, "uid": str(uuid.uuid4())},
        "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
    }
    pod["status"] = podlife.running(pod, "2026-11-01T00:00:00Z")
    scene.clusters[scene.name].state.seed_object("pods", pod)


async def test_what_is_there_comes_first_and_whole(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    async with aclosing(watch.follow(simulated.name, PodSelection())) as batches:
        first = await anext(batches)
    assert len(first) == 12
    assert {one.happening for one in first} == {"appeared"}


async def test_only_the_namespaces_that_were_asked_for_are_seen(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    asked = PodSelection(namespaces=("team-01", "team-02"))
    async with aclosing(watch.follow(simulated.name, asked)) as batches:
        first = await anext(batches)
    assert {one.container.id.namespace for one in first} == {"team-01", "team-02"}


async def test_nothing_selected_is_an_empty_first_batch(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    async with aclosing(watch.follow(simulated.name, PodSelection(labels="app=nobody"))) as batches:
        assert await anext(batches) == []


async def test_a_new_pod_appears_and_a_deleted_one_ends(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    async with aclosing(watch.follow(simulated.name, PodSelection(labels="app=late"))) as batches:
        assert await anext(batches) == []
        run_pod(simulated, "late-1", {"app": "late"})
        seen = await until(batches, "appeared", "late-1")
        await simulated.client.delete(PODS, "default", "late-1")
        gone = await until(batches, "ended", "late-1")
    assert seen.container.key == gone.container.key


async def test_two_who_follow_the_same_share_one_watch(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    async with (
        aclosing(watch.follow(simulated.name, PodSelection())) as one,
        aclosing(watch.follow(simulated.name, PodSelection())) as other,
    ):
        assert len(await anext(one)) == len(await anext(other)) == 12
        assert simulated.clusters[simulated.name].drop_watches() == 1


async def test_a_watch_that_is_cut_goes_on(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    async with aclosing(watch.follow(simulated.name, PodSelection(labels="app=late"))) as batches:
        assert await anext(batches) == []
        assert simulated.clusters[simulated.name].drop_watches() == 1
        run_pod(simulated, "late-2", {"app": "late"})
        await until(batches, "appeared", "late-2")


async def test_what_went_while_the_history_was_compacted_has_ended(simulated: Any) -> None:
    watch = PodWatch(simulated.reach)
    cluster = simulated.clusters[simulated.name]
    run_pod(simulated, "late-3", {"app": "late"})
    async with aclosing(watch.follow(simulated.name, PodSelection(labels="app=late"))) as batches:
        await until(batches, "appeared", "late-3")
        await simulated.client.delete(PODS, "default", "late-3")
        assert cluster.drop_watches() == 1
        cluster.compact()
        await until(batches, "ended", "late-3")


def _container(uid: str, **more: Any) -> LoggedContainer:
    values: dict[str, Any] = {
        "id": ContainerId("sim", "shop", "web-0", "web"),
        "pod_uid": uid,
        "node": "node-1",
        "kind": "container",
        "running": True,
        "restarts": 0,
        "workload": "",
        "labels": {},
    }
    return LoggedContainer(**(values | more))


def test_a_pod_of_the_same_name_is_another_container() -> None:
    found = differences((_container("a"),), (_container("b"),))
    assert [(one.happening, one.container.pod_uid) for one in found] == [("ended", "a"), ("appeared", "b")]


def test_a_restart_is_a_change() -> None:
    found = differences((_container("a"),), (_container("a", restarts=1),))
    assert [one.happening for one in found] == ["changed"]


@pytest.mark.lab
@pytest.mark.node
async def test_a_real_pod_is_followed_from_its_start_to_its_end(real: Any) -> None:
    kubectl, pod = real.clusters[real.name].kubectl(), f"followed-{secrets.token_hex(3)}"
    async with aclosing(PodWatch(real.reach).follow(real.name, PodSelection())) as batches:
        await kubectl("run", pod, f"--image={BUSYBOX}", "--image-pull-policy=Never")
        found = await until(batches, "appeared", pod)
        assert found.container.id.cluster == real.name
        await kubectl("delete", "pod", pod, "--now", "--wait=false")
        await until(batches, "ended", pod)
