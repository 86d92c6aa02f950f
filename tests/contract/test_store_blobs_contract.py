"""What a blob store promises, on every kind of storage that Kubelore runs with.

Written once, run against memory, a local folder, a real MinIO and SeaweedFS.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from kubelore.common.errors import AlreadyExists, BadRequest, NotFound, TooLarge, Unavailable
from kubelore.common.store import BlobStore, blob_key
from kubelore.common.store import blobs as limits
from kubelore.lab.ports import free_ports
from kubelore.lab.process import Program
from kubelore.lab.waiting import wait_for

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seaweed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """What opens the S3 door of a running SeaweedFS."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        pytest.skip("there is no SeaweedFS here")
    folder = tmp_path_factory.mktemp("seaweed")
    access, secret, ports = "lab" + secrets.token_hex(6), secrets.token_hex(20), free_ports(8)
    identity = {
        "name": "lab",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    doors = ("master.port", "volume.port", "filer.port", "s3.port")
    doors += tuple(f"{door}.grpc" for door in doors)
    command = [
        weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        *(f"-{door}={port}" for door, port in zip(doors, ports, strict=True)),
        "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
        f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}",
    ]  # fmt: skip
    opens = {"endpoint": f"http://127.0.0.1:{ports[3]}", "access_key": access, "secret_key": secret}
    store = BlobStore.open("s3://kubelore", **opens)

    async def takes_writes() -> bool:
        await store.put("ready", b"", create_only=True)
        return True

    program = Program("seaweedfs", command, folder / "weed.log", {"HOME": str(folder)})
    program.start()
    try:
        await wait_for(takes_writes, "SeaweedFS to take writes", 60, ignoring=(Unavailable, NotFound))
        yield opens
    finally:
        await program.kill()


@pytest.fixture(params=["memory", "folder", "minio", "seaweedfs"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], BlobStore]:
    """Opens the same empty store each time; memory is always another."""
    prefix = f"t{next(_numbers)}"
    if request.param == "memory":
        return lambda: BlobStore.open("memory://")
    if request.param == "folder":
        return lambda: BlobStore.open((tmp_path / "blobs").as_uri())
    if request.param == "minio":
        server = request.getfixturevalue("minio")
        return lambda: BlobStore.open(
            f"s3://{server.bucket}/{prefix}",
            endpoint=server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
        )
    access = request.getfixturevalue("seaweed")
    return lambda: BlobStore.open(f"s3://kubelore/{prefix}", **access)


@pytest.fixture
def store(open_store: Callable[[], BlobStore]) -> BlobStore:
    return open_store()


async def chunks(count: int, size: int = 1024 * 1024) -> AsyncIterator[bytes]:
    for number in range(count):
        yield number.to_bytes(4, "big") * (size // 4)


async def read(store: BlobStore, key: str) -> bytes:
    return b"".join([chunk async for chunk in store.stream(key)])


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=len)
async def test_what_is_put_is_got(store: BlobStore, content: bytes) -> None:
    await store.put("a/b", content)
    assert await store.get("a/b") == content
    assert await read(store, "a/b") == content
    info = await store.head("a/b")
    assert (info.key, info.size) == ("a/b", len(content))
    assert abs(info.modified_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_put_replaces(store: BlobStore) -> None:
    await store.put("a", b"old and longer")
    await store.put("a", b"new")
    assert await store.get("a") == b"new"


async def test_a_missing_blob_is_not_found(store: BlobStore) -> None:
    for attempt in (store.get("none"), store.head("none"), read(store, "none")):
        with pytest.raises(NotFound, match="none"):
            await attempt


async def test_a_deleted_blob_is_gone_and_deleting_again_does_nothing(store: BlobStore) -> None:
    await store.put("a/b", b"x")
    await store.delete("a/b")
    await store.delete("a/b")
    await store.delete("never/was")
    with pytest.raises(NotFound):
        await store.get("a/b")
    assert [blob async for blob in store.list()] == []


async def test_a_create_only_put_never_overwrites(store: BlobStore) -> None:
    await store.put("head", b"first", create_only=True)
    with pytest.raises(AlreadyExists):
        await store.put("head", b"second", create_only=True)
    with pytest.raises(AlreadyExists):
        await store.put("head", chunks(3), create_only=True)
    assert await store.get("head") == b"first"


@pytest.mark.parametrize("size", [10, 3 * 1024 * 1024])
async def test_of_many_that_create_one_key_exactly_one_succeeds(store: BlobStore, size: int) -> None:
    # SeaweedFS lets those who lose wait in steps of a second, up to five.
    for turn in range(3):
        key = f"head/{turn}"
        done = await asyncio.gather(
            *(store.put(key, bytes([n]) * size, create_only=True) for n in range(6)), return_exceptions=True
        )
        winners = [n for n, outcome in enumerate(done) if outcome is None]
        assert len(winners) == 1, done
        assert all(isinstance(outcome, AlreadyExists) for outcome in done if outcome is not None)
        assert await store.get(key) == bytes(winners) * size


async def test_a_stream_of_many_parts_arrives_whole(store: BlobStore) -> None:
    await store.put("big", chunks(41))
    assert (await store.head("big")).size == 41 * 1024 * 1024
    sent, got, longest = hashlib.sha256(), hashlib.sha256(), 0
    async for chunk in chunks(41):
        sent.update(chunk)
    async for piece in store.stream("big"):
        longest = max(longest, len(piece))
        got.update(piece)
    assert got.digest() == sent.digest()
    assert longest <= 1024 * 1024


async def test_a_stream_of_nothing_is_an_empty_blob(store: BlobStore) -> None:
    await store.put("nothing", chunks(0))
    assert await store.get("nothing") == b""


async def test_a_stream_over_the_limit_is_not_created_only_once(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CREATE_ONLY_BYTES", 1024)
    for content in (b"x" * 1025, chunks(1)):
        with pytest.raises(TooLarge, match="1024"):
            await store.put("a", content, create_only=True)
    assert [blob async for blob in store.list()] == []


@pytest.mark.parametrize("parts", [1, 20])
async def test_a_source_that_fails_leaves_nothing_and_its_error_is_its_own(
    store: BlobStore, parts: int
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunks(parts):
            yield chunk
        raise FileNotFoundError("the source's own")

    with pytest.raises(FileNotFoundError, match="the source's own"):
        await store.put("a", broken())
    assert [blob async for blob in store.list()] == []


async def test_a_cancelled_put_leaves_nothing_running_and_nothing_behind(store: BlobStore) -> None:
    await store.put("warm", b"")
    stuck, closed = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks(20):
                yield chunk
            stuck.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    before = asyncio.all_tasks()
    put = asyncio.create_task(store.put("a", endless()))
    async with asyncio.timeout(30):
        await stuck.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert closed.is_set()
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=5)
    assert asyncio.all_tasks() - before == set()
    with pytest.raises(NotFound):
        await store.head("a")


async def test_a_get_reads_nothing_over_its_bound(store: BlobStore) -> None:
    await store.put("a", b"x" * 101)
    with pytest.raises(TooLarge, match="101 bytes"):
        await store.get("a", max_bytes=100)
    assert len(await store.get("a", max_bytes=101)) == 101


async def test_a_list_gives_what_lies_below_a_folder(store: BlobStore) -> None:
    keys = {f"logs/prod/{number:04}" for number in range(30)} | {"logs/produce/1", "log", "other/logs/prod/1"}
    await asyncio.gather(*(store.put(key, key.encode()) for key in keys))
    assert {blob.key async for blob in store.list()} == keys
    below = {blob.key: blob.size async for blob in store.list("logs/prod")}
    assert below == {key: len(key) for key in keys if key.startswith("logs/prod/")}
    assert [blob async for blob in store.list("nowhere")] == []


async def test_the_folders_of_a_folder_are_named_in_order_each_once(store: BlobStore) -> None:
    keys = {f"logs/{day}/{hour}/{part}" for day in ("b", "a", "c") for hour in range(3) for part in range(2)}
    await asyncio.gather(*(store.put(key, b"") for key in keys | {"logs/alone", "logsabc/d/1"}))
    assert await store.folders("logs") == ["a", "b", "c"]
    assert await store.folders("nowhere") == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        ".",
        "a/./b",
        ".drafts/x",
        "a\\b",
        "a\0",
        "a b",
        "a%2e",
        "ä",
        "x" * 901,
    ],
)
async def test_a_key_that_is_none_is_refused_everywhere(store: BlobStore, key: str) -> None:
    for attempt in (
        lambda: store.put(key, b"x"),
        lambda: store.put(key, chunks(1), create_only=True),
        lambda: store.get(key),
        lambda: read(store, key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(BadRequest):
            await attempt()


async def test_any_texts_make_a_key(store: BlobStore) -> None:
    parts = ("prod-eu", "clusterroles.rbac.authorization.k8s.io", "system:node", "..", "", "ü/🚀", "x" * 253)
    key = blob_key(*parts)
    await store.put(key, b"x")
    assert [blob.key async for blob in store.list()] == [key]
    assert await store.get(key) == b"x"


async def test_an_open_store_answers_a_ping(store: BlobStore) -> None:
    await store.ping()


async def test_what_was_put_is_there_for_the_next_who_opens(open_store: Callable[[], BlobStore]) -> None:
    first = open_store()
    if repr(first) == "BlobStore('memory://')":
        pytest.skip("memory is not shared")
    await first.put("a", b"x")
    assert await open_store().get("a") == b"x"


async def test_wrong_credentials_are_told_from_a_missing_blob(seaweed: dict[str, str], minio: object) -> None:
    for access in (seaweed, {key: getattr(minio, key) for key in ("endpoint", "access_key", "secret_key")}):
        store = BlobStore.open("s3://kubelore", **{**access, "secret_key": "hunter2wrong"})
        with pytest.raises(Unavailable, match="credentials") as caught:
            await store.get("a")
        assert "hunter2" not in repr(
            (caught.value.args, caught.value.remedy, store, str(caught.value.__cause__))
        )


async def test_a_missing_bucket_is_named(minio: object) -> None:
    access = {key: getattr(minio, key) for key in ("endpoint", "access_key", "secret_key")}
    with pytest.raises(Unavailable, match="cannot be used") as caught:
        await BlobStore.open("s3://nowhere", **access).ping()
    assert "bucket" in str(caught.value.remedy)
