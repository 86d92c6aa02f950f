"""Writers whose every change is one of content, a watch beside Kubelore's own, and the histories that must equal it."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import aiohttp
import yaml

from kubelore.common.errors import AlreadyExists, KubeloreError, NotFound
from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, decode_meta, read_kubeconfig
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.errors import LabError

CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
NAMESPACE = "faults"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
HAPPENED = {"ADDED": "created", "MODIFIED": "updated", "DELETED": "deleted"}
PAGE = 1000


class Told(NamedTuple):
    """One change as it was told: what happened to which object, and what it held then (None: gone)."""

    happened: str
    uid: str
    rv: str
    data: dict[str, str] | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """Without the content."""
        return self.happened, self.uid, self.rv


class NamedWriter:
    """Makes, changes, deletes and makes again ten ConfigMaps of its own; no write leaves content as it was."""

    def __init__(self, plane: ControlPlane, number: int) -> None:
        policy = AddressPolicy(allow_private=True)
        self._client = KubeClient(read_kubeconfig(plane.kubeconfig(), None, policy), policy, timeout_s=5.0)
        self._random = random.Random(number)
        self._names = [f"w{number}-{name}" for name in range(10)]
        self._writes = 0
        self.done = 0
        self.last_rv = 0

    async def close(self) -> None:
        await self._client.close()

    async def write(self, count: int) -> None:
        """Until the API server has confirmed so many writes; of one that failed nobody knows."""
        until = self.done + count
        while self.done < until:
            try:
                await self._write_one()
                self.done += 1
            except KubeloreError:
                await asyncio.sleep(0.2)

    async def _write_one(self) -> None:
        name, self._writes = self._random.choice(self._names), self._writes + 1
        data = {"n": f"{name}/{self._writes}", "text": "unchanged " * 20}
        if self._random.random() < 0.05:
            with suppress(NotFound):
                await self._client.delete(CONFIG_MAPS, NAMESPACE, name)
            return
        try:
            raw = await self._client.patch(CONFIG_MAPS, NAMESPACE, name, json.dumps({"data": data}).encode())
        except NotFound:
            manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
            try:
                raw = await self._client.create(CONFIG_MAPS, NAMESPACE, json.dumps(manifest).encode())
            except AlreadyExists:
                return
        self.last_rv = max(self.last_rv, int(decode_meta(raw).resource_version))


class RawWatch:
    """Every event of the namespace's ConfigMaps in the order of the API server, read without any of Kubelore."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        pki = plane.layout.pki
        self._ssl = ssl.create_default_context(cadata=plane.authorities.cluster_certificate.decode())
        self._ssl.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self.told: dict[str, list[Told]] = defaultdict(list)
        self.rv = 0

    async def run(self) -> None:
        """Watch from the first list on, and go on behind the last event whenever the API server went away."""
        while True:
            with suppress(aiohttp.ClientError, OSError, LabError):
                if not self.rv:
                    await self._list()
                await self._watch()
            await asyncio.sleep(0.1)

    @property
    def count(self) -> int:
        """Events so far."""
        return sum(map(len, self.told.values()))

    def live(self) -> dict[str, Told]:
        """The last state of each object that is there."""
        return {name: told[-1] for name, told in self.told.items() if told[-1].data is not None}

    async def _list(self) -> None:
        """What is there must be what was told: nobody writes while the API server forgets."""
        listed = await self._plane.api.request("GET", PATH)
        found = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in listed["items"]}
        found.pop("kube-root-ca.crt", None)
        assert found == {name: told.rv for name, told in self.live().items()}
        self.rv = int(listed["metadata"]["resourceVersion"])

    async def _watch(self) -> None:
        query = {"watch": "1", "resourceVersion": str(self.rv)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with (
            aiohttp.ClientSession(self._plane.server, timeout=timeout, read_bufsize=2**22) as http,
            http.get(PATH, params=query, ssl=self._ssl) as answer,
        ):
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self.rv = 0
                    return
                self._take(event["type"], event["object"])

    def _take(self, kind: str, found: Mapping[str, Any]) -> None:
        metadata = found["metadata"]
        self.rv = int(metadata["resourceVersion"])
        if not metadata["name"].startswith("w"):
            return
        data = None if kind == "DELETED" else found["data"]
        told = Told(HAPPENED[kind], metadata["uid"], metadata["resourceVersion"], data)
        self.told[metadata["name"]].append(told)


def id_of(name: str) -> str:
    """The resource id of a ConfigMap of the cluster `victim`."""
    return f"victim:configmaps:{NAMESPACE}:{name}"


async def history(kubelore: Any, name: str) -> list[dict[str, Any]]:
    """Every version of an object over HTTP, oldest first; empty while there is none."""
    versions: list[dict[str, Any]] = []
    token = None
    while True:
        query = {"limit": PAGE, **({"continue": token} if token else {})}
        answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_of(name)}", params=query)
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        page = answer.json()
        versions += page["items"]
        token = page["continue"]
        if not token:
            return versions[::-1]


def places(versions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What happened to which object at which resourceVersion, as a history says."""
    return [(one["happened"], one["uid"], one["resource_version"]) for one in versions]


async def recorded(kubelore: Any, watch: RawWatch, since: Mapping[str, int]) -> bool:
    """Whether the newest version of every object is the last that was told of it.

    `since` is how much was told of each at some time: what nothing was told of after it is not looked at.
    """
    changed = {name: told for name, told in watch.told.items() if len(told) > since.get(name, 0)}
    for name, told in changed.items():
        answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_of(name)}", params={"limit": 1})
        if answer.status_code != 200 or answer.json()["items"][0]["resource_version"] != told[-1].rv:
            return False
    return True


async def assert_sound(kubelore: Any, name: str, versions: Sequence[Mapping[str, Any]]) -> None:
    """Numbered without a hole, only the last is current, and the chain verifies."""
    assert [one["version"] for one in versions] == list(range(1, len(versions) + 1))
    assert [one["is_current"] for one in versions] == [False] * (len(versions) - 1) + [True]
    verified = (await kubelore.http.get(f"/api/k8s/yaml/versions/{id_of(name)}/verify")).json()
    assert (verified["ok"], verified["versions"]) == (True, len(versions)), (name, verified)


async def assert_content(kubelore: Any, name: str, number: int, told: Told) -> None:
    """A version holds what the API server told of it."""
    answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_of(name)}/{number}")
    assert answer.status_code == 200, answer.text
    held = yaml.safe_load(answer.json()["yaml_content"])
    assert (held or {}).get("data") == told.data, (name, number)
