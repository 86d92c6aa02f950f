"""A cluster and a Kubelore that a test may break, a writer that remembers what it wrote, and a witness of every change."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio

from kubelore.common.bus import Bus, ChangeConsumer, connect, create_durables
from kubelore.common.contracts.changes import Change, Gap, Record, Synced
from kubelore.common.errors import KubeloreError
from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, decode_meta, read_kubeconfig
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.wires import Wire

CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
NAMESPACE = "faults"
POLICY = AddressPolicy(allow_private=True)


class Writer:
    """Creates, changes and deletes ConfigMaps as an API client does, and remembers what the API server confirmed.

    A call that failed may or may not have happened, so nothing is remembered of it.
    `size` is how many random bytes it puts into an object that it changes.
    """

    def __init__(self, kubeconfig: str, seed: int, size: int = 100) -> None:
        self._client = KubeClient(read_kubeconfig(kubeconfig, None, POLICY), POLICY, timeout_s=5.0)
        self._random = random.Random(seed)
        self._size = size
        self._live: dict[str, str] = {}
        self._number = 0
        self.written: list[tuple[str, str]] = []
        """(uid, resourceVersion) of every confirmed create and update."""
        self.deleted: set[str] = set()
        """uids of confirmed deletions."""

    async def close(self) -> None:
        await self._client.close()

    async def write(self, count: int, pause_s: float = 0.0) -> None:
        """Make `count` confirmed writes."""
        done = 0
        while done < count:
            try:
                await self._write_one()
                done += 1
            except KubeloreError:
                await asyncio.sleep(0.2)
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _write_one(self) -> None:
        choice = self._random.random()
        if len(self._live) < 20 or choice < 0.2:
            await self._create()
        elif choice < 0.85:
            await self._change(self._random.choice(sorted(self._live)))
        else:
            await self._delete(self._random.choice(sorted(self._live)))

    async def _create(self) -> None:
        self._number += 1
        name = f"w{id(self) % 10_000}-{self._number}"
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": "0"}}
        self._remember(await self._client.create(CONFIG_MAPS, NAMESPACE, json.dumps(manifest).encode()))

    async def _change(self, name: str) -> None:
        data = {"n": str(self._random.getrandbits(40)), "text": self._random.randbytes(self._size).hex()}
        body = json.dumps({"data": data}).encode()
        with suppress_missing(self._live, name):
            self._remember(await self._client.patch(CONFIG_MAPS, NAMESPACE, name, body))

    async def _delete(self, name: str) -> None:
        uid = self._live[name]
        with suppress_missing(self._live, name):
            await self._client.delete(CONFIG_MAPS, NAMESPACE, name, uid=uid)
            self.deleted.add(uid)
            del self._live[name]

    def _remember(self, raw: bytes) -> None:
        meta = decode_meta(raw)
        self._live[meta.name] = meta.uid
        self.written.append((meta.uid, meta.resource_version))


class suppress_missing:  # noqa: N801 - used as a function
    """A deletion whose answer got lost has happened all the same: then the object is not there any more."""

    def __init__(self, live: dict[str, str], name: str) -> None:
        self._live, self._name = live, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> bool:
        if kind is not None and kind.__name__ == "NotFound":
            self._live.pop(self._name, None)
            return True
        return False


class Witness:
    """Consumes every change as a service would, and keeps them in the order of their first arrival."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._consumer = ChangeConsumer(bus, "witness", self._take)
        self._seen: set[tuple[str, str, str]] = set()
        self.changes: list[Change] = []
        self.gaps: list[Gap] = []
        self.synced: list[Synced] = []

    async def run(self) -> None:
        await self._consumer.run()

    async def _take(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, Gap):
                self.gaps.append(record)
            elif isinstance(record, Synced):
                self.synced.append(record)
            elif isinstance(record, Change) and record.type == "configmaps":
                key = (record.uid, record.rv, record.kind)
                if key not in self._seen:
                    self._seen.add(key)
                    self.changes.append(record)

    def versions(self) -> set[tuple[str, str]]:
        return {(change.uid, change.rv) for change in self.changes}

    def deleted(self) -> set[str]:
        return {change.uid for change in self.changes if change.kind == "deleted"}

    def has_all(self, *writers: Writer) -> Callable[[], Awaitable[bool]]:
        """A condition: every confirmed write and deletion has arrived."""

        async def arrived() -> bool:
            versions, gone = self.versions(), self.deleted()
            return all(set(writer.written) <= versions and writer.deleted <= gone for writer in writers)

        return arrived

    def has_all_but_gaps(self, writer: Writer) -> Callable[[], Awaitable[bool]]:
        """A condition: every confirmed write has arrived, or was made behind a recorded gap's last version."""

        async def arrived() -> bool:
            gaps = [int(gap.after_rv) for gap in self.gaps if gap.type == "configmaps"]
            missing = set(writer.written) - self.versions()
            unsaid = writer.deleted - self.deleted()
            return all(gaps and int(rv) > min(gaps) for _, rv in missing) and (not unsaid or bool(gaps))

        return arrived

    def assert_in_order(self) -> None:
        """Changes arrived first in the order in which the API server made them."""
        told = [int(change.rv) for change in self.changes if change.kind != "observed"]
        assert told == sorted(told)


@pytest_asyncio.fixture(loop_scope="session")
async def plane(lab_or_skip, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A control plane of the test's own."""
    async with ControlPlane(tmp_path / "plane", "victim") as running:
        await running.kubectl()("create", "namespace", NAMESPACE)
        yield running


class Way(Wire):
    """A wire to an API server, and the kubeconfig that leads over it."""

    kubeconfig = ""


@pytest_asyncio.fixture(loop_scope="session")
async def way(plane: ControlPlane) -> AsyncIterator[Way]:
    """Between Kubelore and the control plane."""
    port = urlsplit(plane.server).port
    assert port is not None
    async with Way(port) as made:
        made.kubeconfig = plane.kubeconfig().replace(f":{port}", f":{made.port}")
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def writer(plane: ControlPlane) -> AsyncIterator[Writer]:
    writing = Writer(plane.kubeconfig(), seed=7)
    yield writing
    await writing.close()


@pytest_asyncio.fixture(loop_scope="session")
async def witness(own_kubelore) -> AsyncIterator[Witness]:
    """Reads from before the first observer publishes."""
    bus = await connect(own_kubelore.bus_settings(), name="witness")
    await create_durables(bus, "witness")
    watching = Witness(bus)
    task = asyncio.create_task(watching.run())
    yield watching
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bus.close()


@pytest.fixture
def second_replica(own_kubelore):
    """Starts another resource-ops beside the supervised one, with the same environment, but for the id."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = psutil.Process(own_kubelore.pid("resource-ops")).environ()
        environment.pop("KUBELORE_REPLICA")
        process = subprocess.Popen([sys.executable, "-m", "kubelore.resource_ops"], env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)


async def same_as_kubectl(kubelore, plane: ControlPlane, name: str) -> bool:
    """Whether the read model of a cluster equals what kubectl says, byte for meaning, for the types the tests touch."""
    said = json.loads(
        await plane.kubectl()(
            "get", "configmaps,namespaces,serviceaccounts", "-A", "-o", "json", "--show-managed-fields"
        )
    )
    expected = {item["metadata"]["uid"]: item for item in said["items"]}
    page = await kubelore.list(type="configmaps,namespaces,serviceaccounts", clusters=name, limit=10_000)
    return {item["object"]["metadata"]["uid"]: item["object"] for item in page["items"]} == expected


@pytest.fixture
def equals_kubectl(own_kubelore, plane: ControlPlane):
    """A condition for `wait_for`."""

    async def equal() -> bool:
        with suppress(AssertionError):
            return await same_as_kubectl(own_kubelore, plane, "victim")
        return False

    return equal
