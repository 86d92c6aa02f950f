"""Backups through every door: made of simulated clusters, verified, fetched, read offline, refused when altered."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
import yaml

from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, read_kubeconfig
from kubelore.common.kube.resource_type import NAMESPACES
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for

POLICY = AddressPolicy(allow_private=True)
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
SPACES = ("shop", "other")
PASSWORD = "correct horse battery staple"
API = "/api/k8s/yaml/backup"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(kubelore) -> AsyncIterator[Any]:
    """A running Kubelore with two simulated clusters, each with two namespaces of config maps and a Secret."""
    async with SimulatedFleet(clusters=2, pods=50) as fleet:
        for name, simulated in zip(("kept-a", "kept-b"), fleet, strict=True):
            async with KubeClient(read_kubeconfig(simulated.kubeconfig, None, POLICY), POLICY) as client:
                await _furnish(client)
            await kubelore.onboard(name, simulated.kubeconfig)
        yield kubelore
        for name in ("kept-a", "kept-b"):
            await kubelore.remove(name)


async def _furnish(client: KubeClient) -> None:
    for space in SPACES:
        await _make(client, NAMESPACES, "", space)
        for number in range(20):
            await _make(client, CONFIG_MAPS, space, f"map-{number}", data={"text": "x" * 500})
        await _make(client, SECRETS, space, "login", stringData={"password": PASSWORD})


async def _make(client: KubeClient, kind: ResourceType, space: str, name: str, **body: Any) -> None:
    manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **body}
    await client.create(kind, space or None, json.dumps(manifest).encode())


async def made(kubelore, http: httpx.AsyncClient | None = None, **asked: Any) -> dict[str, Any]:
    """A backup that has ended."""
    answer = await (http or kubelore.http).post(f"{API}/create", json=asked)
    assert answer.status_code == 202, answer.text
    return await ended(kubelore, answer.json()["id"])


async def ended(kubelore, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def has() -> bool:
        answer = await kubelore.http.get(f"{API}/{id_}")
        assert answer.status_code == 200, answer.text
        found.update(answer.json())
        return found["status"] in ("completed", "failed", "cancelled")

    await wait_for(has, "the backup to end", 60)
    return found


async def verified(kubelore, id_: str) -> dict[str, Any]:
    answer = await kubelore.http.post(f"{API}/{id_}/verify")
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = {}

    async def has() -> bool:
        told.update((await kubelore.http.get(f"{API}/{id_}")).json()["verification"])
        return told["state"] != "running"

    await wait_for(has, "the verification to end", 60)
    return told


def folder_of(kubelore, id_: str) -> Path:
    return next(Path(kubelore.data).rglob(f"backups/{id_}"))


def keyring_of(kubelore) -> Path:
    return next(Path(kubelore.data).rglob("versions.json"))


async def test_a_backup_of_everything_holds_what_the_clusters_hold_and_verifies(kept) -> None:
    found = await made(kept, clusters=["kept-a", "kept-b"], name="all", reason="to see")
    assert (found["status"], found["partial"], found["missing"]) == ("completed", False, []), found
    assert [one["status"] for one in found["clusters"]] == ["completed", "completed"]
    assert found["objects"] == sum(one["objects"] for one in found["clusters"]) > 180
    assert (found["created_by"], found["reason"]) == ("admin", "to see")
    told = await verified(kept, found["id"])
    assert (told["state"], told["objects"]) == ("passed", found["objects"])
    progress = (await kept.http.get(f"{API}/{found['id']}/progress")).json()
    assert (progress["status"], progress["objects"]) == ("completed", found["objects"])
    listed = (await kept.http.get(API, params={"cluster": "kept-a"})).json()["items"]
    assert listed[0]["id"] == found["id"]


async def test_a_download_is_read_without_any_service_and_shows_secrets_only_when_asked(
    kept, command_line, tmp_path: Path
) -> None:
    found = await made(kept, clusters=["kept-a"], namespaces=["shop"])
    run = command_line(kept.url, kept.token)
    archive, keyring = tmp_path / "backup.tar", str(keyring_of(kept))
    fetched = await run("backup", "download", found["id"], "-o", str(archive))
    assert fetched.code == 0, fetched.err
    assert PASSWORD.encode() not in archive.read_bytes()
    offline = command_line("http://127.0.0.1:1", "none")
    checked = await offline("backup", "verify", str(archive), "--keyring", keyring)
    assert checked.code == 0, checked.err
    plain = await offline(
        "backup", "decrypt", str(archive), "--keyring", keyring, "-o", str(tmp_path / "out")
    )
    assert plain.code == 0, plain.err
    home = tmp_path / "out" / "kept-a" / "shop"
    assert len(list((home / "configmaps").iterdir())) >= 20
    assert yaml.safe_load((home / "configmaps" / "map-3.yaml").read_text())["data"] == {"text": "x" * 500}
    assert "data" not in yaml.safe_load((home / "secrets" / "login.yaml").read_text())
    assert {one.name for one in (tmp_path / "out" / "kept-a").iterdir()} == {"_", "shop"}
    from_folder = str(folder_of(kept, found["id"]))
    shown = await offline(
        "backup", "decrypt", from_folder, "--keyring", keyring, "--secrets", "--format", "json"
    )
    secret = next(
        one for one in map(json.loads, shown.out.splitlines()) if one["metadata"]["name"] == "login"
    )
    assert secret["data"] == {"password": "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ=="}


async def test_types_and_labels_narrow_a_backup(kept) -> None:
    found = await made(kept, clusters=["kept-a"], namespaces=["shop"], types=["cm"], labels="app=none")
    assert (found["types"], found["objects"], found["status"]) == (["configmaps"], 0, "completed")
    found = await made(kept, clusters=["kept-a"], namespaces=["shop"], types=["cm"])
    assert found["objects"] >= 20
    answer = await kept.http.post(f"{API}/create", json={"clusters": ["kept-a"], "types": ["nosuchthings"]})
    assert answer.status_code == 400, answer.text


async def test_an_altered_backup_is_named_as_such_by_its_verification(kept) -> None:
    found = await made(kept, clusters=["kept-a"], namespaces=["shop"])
    chunk = folder_of(kept, found["id"]) / "chunks" / "00000000"
    raw = bytearray(chunk.read_bytes())
    raw[-1] ^= 1
    chunk.write_bytes(bytes(raw))
    told = await verified(kept, found["id"])
    assert (told["state"], told["reason"]) == ("failed", "BackupChunkAltered")


async def test_a_deleted_backup_is_gone_with_its_files(kept) -> None:
    found = await made(kept, clusters=["kept-a"], namespaces=["shop"], types=["cm"])
    folder = folder_of(kept, found["id"])
    assert (await kept.http.delete(f"{API}/{found['id']}")).status_code == 200
    assert (await kept.http.get(f"{API}/{found['id']}")).status_code == 404

    async def gone() -> bool:
        return not any(path.is_file() for path in folder.rglob("*"))

    await wait_for(gone, "the files to be gone", 20)


async def test_a_backup_needs_its_right_and_is_seen_by_whoever_may_read_all_of_it(kept) -> None:
    whole = await made(kept, clusters=["kept-a"], types=["cm"])
    part = await made(kept, clusters=["kept-a"], namespaces=["shop"], types=["cm"])
    grant = {"role": "viewer", "clusters": ["kept-a"], "namespaces": ["shop"]}
    async with (
        kept.somebody("reader", **grant) as looking,
        kept.somebody("keeper", rights=["backup"], **grant) as keeping,
    ):
        reader, keeper = looking.http, keeping.http
        seen = [one["id"] for one in (await reader.get(API)).json()["items"]]
        assert part["id"] in seen
        assert whole["id"] not in seen
        assert (await reader.get(f"{API}/{whole['id']}")).status_code == 404
        for answer in (
            await reader.post(f"{API}/create", json={"clusters": ["kept-a"], "namespaces": ["shop"]}),
            await reader.get(f"{API}/{part['id']}/download"),
            await reader.delete(f"{API}/{part['id']}"),
            await keeper.post(f"{API}/create", json={"clusters": ["kept-a"]}),
        ):
            assert answer.status_code == 403, answer.text
        mine = await made(kept, keeper, clusters=["kept-a"], namespaces=["shop"])
    assert (mine["status"], mine["partial"], mine["created_by"]) == ("completed", True, "keeper")
    assert [one["type"] for one in mine["missing"]] == ["secrets"]


async def test_a_backup_whose_replica_is_killed_fails_and_leaves_nothing_that_looks_whole(
    own_kubelore,
) -> None:
    async with SimulatedFleet(clusters=1, pods=20_000) as fleet:
        await own_kubelore.onboard("killed", fleet[0].kubeconfig)
        answer = await own_kubelore.http.post(f"{API}/create", json={"clusters": ["killed"]})
        id_, data = answer.json()["id"], own_kubelore.data

        async def has_chunks() -> bool:
            return any(data.rglob(f"backups/{id_}/chunks/*"))

        await wait_for(has_chunks, "the first chunk", 60)
        os.kill(own_kubelore.pid("yaml-vcs"), signal.SIGKILL)
        folder = folder_of(own_kubelore, id_)
        assert not (folder / "manifest").exists()

        async def failed() -> bool:
            answer = await own_kubelore.http.get(f"{API}/{id_}")
            return answer.status_code == 200 and answer.json()["status"] == "failed"

        await wait_for(failed, "another replica to say that it failed", 90)

        async def gone() -> bool:
            return not any(path.is_file() for path in folder.rglob("*"))

        await wait_for(gone, "what was written to be removed", 20)
