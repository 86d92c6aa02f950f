"""Blobs beyond the contract: addresses, keys, a folder's durability, and a storage that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest, Conflict, DeadlineExceeded, Unavailable
from kubelore.common.store import BlobStore, blob_key
from kubelore.common.store import blobs as limits
from kubelore.common.store.keys import checked_key


@pytest.mark.parametrize(
    "url",
    ["", "/tmp/x", "file://host/x", "file:relative", "s3://", "gs://bucket", "http://x/y", "s3://key:hunter2@bucket",
     "s3://bucket?region=x", "file:///x#y"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        BlobStore.open(url)
    assert "hunter2" not in str(caught.value)


def test_no_repr_shows_the_secret_key() -> None:
    store = BlobStore.open("s3://bucket", endpoint="http://127.0.0.1:1", access_key="a", secret_key="hunter2")
    assert "hunter2" not in repr((store, vars(store)))


@given(parts=st.lists(st.text(), min_size=1, max_size=4))
def test_any_texts_make_a_key_that_is_safe(parts: list[str]) -> None:
    key = blob_key(*parts)
    assert checked_key(key) == key
    assert len(key.split("/")) == len(parts)
    assert os.path.normpath(key) == key


@given(one=st.text(), other=st.text())
def test_different_texts_make_different_keys(one: str, other: str) -> None:
    assert (blob_key(one) == blob_key(other)) == (one == other)


async def test_a_folder_is_private(tmp_path: Path) -> None:
    await BlobStore.open((tmp_path / "blobs").as_uri()).put("a/b", b"x")
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "blobs" / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "blobs" / "a" / "b").stat().st_mode) == 0o600


async def test_a_key_that_is_a_folder_of_others_is_a_conflict(tmp_path: Path) -> None:
    store = BlobStore.open(tmp_path.as_uri())
    await store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(Conflict):
            await store.put(key, b"y")
    assert await store.get("a/b") == b"x"


async def test_every_file_and_folder_is_synced_before_a_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix())
        real(descriptor)

    async def two() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b"x" * limits.PART_BYTES

    store = BlobStore.open(tmp_path.as_uri())
    monkeypatch.setattr(os, "fsync", fsync)
    for content in (b"x", two()):
        synced.clear()
        key = f"new{id(content)}/deep/name"
        await store.put(key, content)
        folder = key.split("/")[0]
        assert synced[0].startswith(".drafts/")
        assert synced[1:] == [".", folder, f"{folder}/deep"]


PUT_FOREVER = """
import asyncio, itertools, sys
from kubelore.common.store import BlobStore

async def main():
    store = BlobStore.open(sys.argv[1])
    for number in itertools.count():
        await store.put(f"n/{number}", b"%d " % number * 100_000, create_only=number % 2 == 0)
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_put_killed_at_any_moment_leaves_whole_blobs_or_none(tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    child = subprocess.Popen([sys.executable, "-c", PUT_FOREVER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    done = [int(child.stdout.readline()) for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    done += [int(line) for line in child.stdout.read().split()]
    child.wait(10)
    child.stdout.close()

    async def check() -> None:
        store = BlobStore.open(url)
        found = {int(blob.key.split("/")[1]) async for blob in store.list()}
        assert found >= set(done)
        for number in found:
            assert await store.get(f"n/{number}") == b"%d " % number * 100_000

    asyncio.run(check())


def test_a_draft_of_a_killed_writer_goes_a_day_later(tmp_path: Path) -> None:
    BlobStore.open(tmp_path.as_uri())
    old, young = tmp_path / ".drafts" / "old", tmp_path / ".drafts" / "young"
    for draft in (old, young):
        draft.write_bytes(b"x")
    os.utime(old, (0, time.time() - 25 * 3600))
    BlobStore.open(tmp_path.as_uri())
    assert not old.exists()
    assert young.exists()


async def test_a_full_or_forbidden_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((Conflict, Unavailable)):
        BlobStore.open((tmp_path / "file" / "below").as_uri())


async def test_a_storage_that_is_not_there_is_told_with_a_remedy() -> None:
    store = BlobStore.open("s3://bucket", endpoint="http://127.0.0.1:1", access_key="a", secret_key="hunter2")
    for attempt in (
        store.get("a"),
        store.put("a", b"x"),
        store.put("a", b"x", create_only=True),
        store.ping(),
    ):
        with pytest.raises(Unavailable, match="cannot be used") as caught:
            await attempt
        assert "KUBELORE_BLOB_URL" in str(caught.value.remedy)


async def test_a_storage_that_hangs_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(limits, "DEADLINE_S", 0.3)
    monkeypatch.setattr(limits, "BYTES_PER_S", 1024**4)
    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = BlobStore.open("s3://bucket", endpoint=f"http://127.0.0.1:{port}", access_key="a", secret_key="b")
    for attempt in (store.get("a"), store.head("a"), store.put("a", b"x"), store.delete("a"), store.ping()):
        with pytest.raises(DeadlineExceeded):
            await attempt
    server.close()
