"""container-ops killed in the middle of copies of a real node's files: nothing is half there, and the upload goes on."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import signal
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kubelore.lab.fixtures import LabNode
from kubelore.lab.waiting import wait_for

from .boxes import BOX, NAMESPACE, box

pytestmark = [pytest.mark.lab, pytest.mark.node]

BASE = f"/api/k8s/containers/{BOX}/files"
DATA = random.Random(21).randbytes(6_000_000)


async def test_an_upload_goes_on_after_container_ops_was_killed(own_kubelore, lab_node: LabNode) -> None:
    async with box(own_kubelore, lab_node) as kubectl:
        query = {"path": "/tmp/file", "upload": "killed", "sha256": hashlib.sha256(DATA).hexdigest()}
        killed = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield DATA[:3_000_000]
            await wait_for(arrived, "some of it to be in the container", 30)
            os.kill(own_kubelore.pid("container-ops"), signal.SIGKILL)
            killed.set()
            yield DATA[3_000_000:]

        async def arrived() -> bool:
            return int(await size_of(kubectl, "/tmp/.kubelore-killed") or 0) > 1_000_000

        broken = await own_kubelore.http.post(f"{BASE}/upload", params=query, content=body(), timeout=90)
        assert killed.is_set()
        assert broken.status_code >= 500, broken.text
        assert not await size_of(kubectl, "/tmp/file")

        async def asked() -> bool:
            query_ = {"path": "/tmp/file", "upload": "killed"}
            found = await own_kubelore.http.get(f"{BASE}/upload", params=query_)
            offsets.append(found.json().get("offset", 0))
            return found.status_code == 200

        offsets = list[int]()
        await wait_for(asked, "container-ops to answer again", 60)
        assert 1_000_000 < offsets[-1] <= 3_000_000
        rest = {**query, "offset": offsets[-1]}
        done = await own_kubelore.http.post(f"{BASE}/upload", params=rest, content=DATA[offsets[-1] :])
        assert done.status_code == 201, done.text
        got = await own_kubelore.http.get(f"{BASE}/download", params={"path": "/tmp/file"})
        assert got.content == DATA


async def test_a_download_is_cut_and_not_short_when_container_ops_is_killed(
    own_kubelore, lab_node: LabNode
) -> None:
    async with box(own_kubelore, lab_node) as kubectl:
        await kubectl(
            "-n", NAMESPACE, "exec", "box", "--", "sh", "-c", "head -c 50000000 /dev/zero > /tmp/big"
        )
        with_error = None
        try:
            async with own_kubelore.http.stream(
                "GET", f"{BASE}/download", params={"path": "/tmp/big"}, timeout=90
            ) as answer:
                async for _ in answer.aiter_raw(100_000):
                    if answer.num_bytes_downloaded < 300_000:
                        os.kill(own_kubelore.pid("container-ops"), signal.SIGKILL)
        except httpx.RemoteProtocolError as error:
            with_error = error
        assert with_error is not None, "a body that is not whole must not look whole"


async def test_half_a_tree_is_removed_when_container_ops_is_killed(own_kubelore, lab_node: LabNode) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name in ("one", "two"):
            entry = tarfile.TarInfo(name)
            entry.size = len(DATA)
            archive.addfile(entry, io.BytesIO(DATA))
    async with box(own_kubelore, lab_node) as kubectl:
        query = {"path": "/tmp/tree", "upload": "half", "format": "tar"}

        async def body() -> AsyncIterator[bytes]:
            yield raw.getvalue()[: len(DATA) * 3 // 2]
            await wait_for(unpacked, "some of it to be in the container", 30)
            os.kill(own_kubelore.pid("container-ops"), signal.SIGKILL)
            yield raw.getvalue()[len(DATA) * 3 // 2 :]

        async def unpacked() -> bool:
            return await size_of(kubectl, "/tmp/.kubelore-*/one") == str(len(DATA))

        async def gone() -> bool:
            return await kubectl("-n", NAMESPACE, "exec", "box", "--", "ls", "-A", "/tmp") == ""

        broken = await own_kubelore.http.post(f"{BASE}/upload", params=query, content=body(), timeout=90)
        assert broken.status_code >= 500, broken.text
        await wait_for(gone, "what was left to be removed", 30)


async def size_of(kubectl: Any, path: str) -> str:
    """Bytes of a file in the pod; empty when it is not there."""
    found = await kubectl.run("-n", NAMESPACE, "exec", "box", "--", "sh", "-c", f"stat -c %s {path}")
    return found.stdout.strip() if found.code == 0 else ""
