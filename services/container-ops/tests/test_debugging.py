"""Debug containers beside others, made in a simulated cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import NotFound, Unsupported
from kubelore.common.kube import AddressPolicy, KubeClient, decode_meta, read_kubeconfig
from kubelore.common.kube.resource_type import PODS
from kubelore.common.reach import Reached
from kubelore.container_ops.debugging import PREFIX, TARGET_ROOT, debug_container
from kubelore.container_ops.running import Command, run_command
from kubelore.kubesim.app import SimulatedFleet

POLICY = AddressPolicy(allow_private=True)
IMAGE = "tools.example/busybox:1"


@dataclass
class Place:
    reached: Reached
    target: ContainerId

    async def added(self) -> list[dict[str, object]]:
        raw = await self.reached.client.get(PODS, self.target.namespace, self.target.pod)
        return json.loads(raw)["spec"].get("ephemeralContainers", [])


@pytest_asyncio.fixture(loop_scope="session")
async def place() -> AsyncIterator[Place]:
    async with (
        SimulatedFleet(clusters=1, pods=3) as fleet,
        KubeClient(read_kubeconfig(fleet[0].kubeconfig, None, POLICY), POLICY) as client,
    ):
        running = [
            raw for raw in (await client.list(PODS)).items if json.loads(raw)["status"]["phase"] == "Running"
        ]
        meta = decode_meta(running[0])
        name = json.loads(running[0])["spec"]["containers"][0]["name"]
        yield Place(Reached(client, 1), ContainerId("sim", meta.namespace, meta.name, name))


async def test_it_shares_the_process_namespace_of_its_target_and_is_used_again(place: Place) -> None:
    made = await debug_container(place.reached, place.target, IMAGE)
    again = await debug_container(place.reached, place.target, IMAGE)
    assert made == again
    assert made.container.startswith(PREFIX)
    (added,) = await place.added()
    assert added["targetContainerName"] == place.target.container
    assert added["image"] == IMAGE


async def test_the_files_of_the_target_are_below_its_root(place: Place) -> None:
    made = await debug_container(place.reached, place.target, IMAGE)
    said = bytearray()

    async def take(_: object, data: bytes) -> None:
        said.extend(data)

    command = Command(made, ["cat", f"{TARGET_ROOT}/etc/hostname"], 10)
    end = await run_command(place.reached, command, take)
    assert end.exit_code == 0
    assert said.decode() == f"{place.target.pod}\n"


async def test_there_is_none_for_a_container_that_is_not_there(place: Place) -> None:
    with pytest.raises(NotFound):
        await debug_container(
            place.reached, ContainerId("sim", place.target.namespace, place.target.pod, "nobody"), IMAGE
        )
    assert not await place.added()


async def test_there_is_none_where_it_would_see_the_processes_of_the_node(place: Place) -> None:
    raw = json.loads(await place.reached.client.get(PODS, place.target.namespace, place.target.pod))
    spec = {"hostPID": True, "containers": [{"name": "web", "image": IMAGE}]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host-pid"}, "spec": spec}
    await place.reached.client.create(PODS, raw["metadata"]["namespace"], json.dumps(made).encode())
    with pytest.raises(Unsupported):
        await debug_container(
            place.reached, ContainerId("sim", place.target.namespace, "host-pid", "web"), IMAGE
        )
