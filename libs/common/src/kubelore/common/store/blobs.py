"""Blobs: large sealed things under a key, in S3-compatible storage, a local folder, or memory.

The same contract on each, held by tests/contract: a blob appears whole or not
at all, and of many that create one key, exactly one succeeds. Nothing here
encrypts; what is put should be sealed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store
from pydantic import SecretStr

from kubelore.common.errors import BadRequest, KubeloreError, TooLarge, Unavailable
from kubelore.common.store.blob_errors import translated
from kubelore.common.store.keys import checked_key
from kubelore.common.store.source import Source
from kubelore.common.store.writers import DRAFTS, PART_BYTES, DirectoryWriter, ObjectWriter, Writer

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

Content: TypeAlias = bytes | AsyncIterable[bytes]

CREATE_ONLY_BYTES = 64 * 1024 * 1024
"""A create-only put is one request, as nothing longer is create-only on every store (docs/decisions/0013)."""

GET_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
DEADLINE_S = 30.0
BYTES_PER_S = 512 * 1024
"""The slowest transfer that is waited for."""


class BlobInfo(NamedTuple):
    """What is known of a blob without reading it. `size` is in bytes, `modified_at` in UTC."""

    key: str
    size: int
    modified_at: datetime


class BlobStore:
    """An open store. Made by `open`.

    Every method may raise Unavailable and DeadlineExceeded; after these it is
    open whether a write happened. Keys are as `blob_key` makes them; any other
    raises BadRequest.
    """

    def __init__(self, store: ObjectStore, writer: Writer, name: str) -> None:
        self._store = store
        self._writer = writer
        self._name = name

    def __repr__(self) -> str:
        return f"BlobStore({self._name!r})"

    @classmethod
    def open(
        cls,
        url: str,
        *,
        endpoint: str = "",
        region: str = "",
        access_key: str = "",
        secret_key: SecretStr | str = "",
    ) -> BlobStore:
        """The store at `file:///folder`, `s3://bucket/prefix` or `memory://`.

        For S3, what is not given is taken from AWS_ENDPOINT_URL, AWS_REGION,
        AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Plain HTTP is used only with
        an endpoint that says so. Raises BadRequest, Unavailable.
        """
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise BadRequest(
                "A blob URL holds no credentials and no options.", remedy="Use the AWS_* variables."
            )
        match parts.scheme:
            case "file" if not parts.netloc and parts.path.startswith("/"):
                return cls._open_folder(Path(unquote(parts.path)), url)
            case "memory":
                memory = MemoryStore()
                return cls(memory, ObjectWriter(memory, memory), url)
            case "s3" if parts.netloc:
                secret = secret_key.get_secret_value() if isinstance(secret_key, SecretStr) else secret_key
                stores = [
                    _s3(parts.netloc, parts.path, endpoint, region, access_key, secret, retries)
                    for retries in (3, 0)
                ]
                return cls(stores[0], ObjectWriter(stores[0], stores[1]), url)
        raise BadRequest(
            f"{url!r} is not the URL of a blob store.", remedy="Write file:///folder or s3://bucket/prefix."
        )

    @classmethod
    def _open_folder(cls, folder: Path, url: str) -> BlobStore:
        with translated(url):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(LocalStore(prefix=folder), DirectoryWriter(folder), url)

    async def ping(self) -> None:
        """See that the store answers, takes the credentials and has the bucket. Raises Unavailable."""
        async for _ in self.list("ping"):
            break

    async def put(self, key: str, content: Content, *, create_only: bool = False) -> None:
        """Write a blob, of any size when `content` is an async iterator.

        At most 32 MiB of an iterator are held, 128 MiB when create-only, which
        raises AlreadyExists, and TooLarge over 64 MiB: write larger things in
        parts, and a create-only list of them last.
        """
        checked_key(key)
        if isinstance(content, bytes):
            await self._put_whole(key, content, create_only)
            return
        source = Source(content)
        try:
            start, ended = await source.gather(CREATE_ONLY_BYTES if create_only else PART_BYTES)
            if ended:
                await self._put_whole(key, start, create_only)
            elif create_only:
                raise _too_large_to_create(key)
            else:
                source.give_back(start)
                await self._put_stream(key, source)
        finally:
            await source.close()

    async def _put_whole(self, key: str, content: bytes, create_only: bool) -> None:
        if create_only and len(content) > CREATE_ONLY_BYTES:
            raise _too_large_to_create(key)
        with translated(key):
            async with asyncio.timeout(_deadline(len(content))):
                await self._writer.put(key, content, create_only=create_only)

    async def _put_stream(self, key: str, source: Source) -> None:
        try:
            with translated(key):
                await self._writer.put_stream(key, source)
        except KubeloreError:
            if source.failure is not None:
                raise source.failure from None
            raise

    async def get(self, key: str, *, max_bytes: int = GET_BYTES) -> bytes:
        """The whole blob. Raises NotFound, and TooLarge before anything over `max_bytes` is read."""
        checked_key(key)
        with translated(key):
            async with asyncio.timeout(_deadline(max_bytes)):
                found = await obstore.get_async(self._store, key)
                size = found.meta["size"]
                if size > max_bytes:
                    raise TooLarge(f"The blob {key!r} has {size} bytes; {max_bytes} were expected at most.")
                content = bytes(await found.bytes_async())
        _see_whole(key, len(content), size)
        return content

    async def get_range(self, key: str, start: int, size: int) -> bytes:
        """A part of a blob, `size` bytes from `start`. Raises NotFound, and Unavailable when they are not there."""
        checked_key(key)
        if not 0 < size <= GET_BYTES or start < 0:
            raise BadRequest(f"{size} bytes from {start} are no part of a blob.")
        with translated(key):
            async with asyncio.timeout(_deadline(size)):
                found = await obstore.get_range_async(self._store, key, start=start, length=size)
        content = bytes(found)
        _see_whole(key, len(content), size)
        return content

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """The blob in chunks of at most 1 MiB. Raises NotFound, and Unavailable when it ends too soon."""
        checked_key(key)
        with translated(key):
            async with asyncio.timeout(DEADLINE_S):
                found = await obstore.get_async(self._store, key)
        size, seen = found.meta["size"], 0
        chunks = aiter(found.stream(CHUNK_BYTES))
        while True:
            with translated(key):
                async with asyncio.timeout(DEADLINE_S):
                    chunk = await anext(chunks, None)
            if chunk is None:
                break
            seen += len(chunk)
            view = memoryview(chunk)
            for start in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[start : start + CHUNK_BYTES])
        _see_whole(key, seen, size)

    async def head(self, key: str) -> BlobInfo:
        """Size and time of a blob. Raises NotFound."""
        checked_key(key)
        with translated(key):
            async with asyncio.timeout(DEADLINE_S):
                return _info(await obstore.head_async(self._store, key))

    async def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        """Every blob below a folder (`a` holds `a/b`, not `ab`), in no order; all of them without one."""
        if prefix:
            checked_key(prefix)
        pages = aiter(obstore.list(self._store, prefix or None, chunk_size=500))
        while True:
            with translated(prefix):
                async with asyncio.timeout(DEADLINE_S):
                    page = await anext(pages, None)
            if page is None:
                return
            for found in page:
                if not found["path"].startswith(f"{DRAFTS}/"):
                    yield _info(found)

    async def folders(self, prefix: str) -> list[str]:
        """The names of the folders right below a folder, in order, however many blobs they hold."""
        checked_key(prefix)
        with translated(prefix):
            async with asyncio.timeout(DEADLINE_S):
                found = await obstore.list_with_delimiter_async(self._store, prefix)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    async def delete(self, key: str) -> None:
        """Remove a blob; nothing happens when there is none."""
        checked_key(key)
        with translated(key):
            async with asyncio.timeout(DEADLINE_S):
                await self._writer.delete(key)


def _s3(
    bucket: str, path: str, endpoint: str, region: str, access_key: str, secret: str, retries: int
) -> S3Store:
    config: S3Config = {}
    if endpoint:
        config["endpoint"] = endpoint
    if access_key:
        config["access_key_id"] = access_key
    if secret:
        config["secret_access_key"] = secret
    if region or not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        config["region"] = region or "us-east-1"
    where = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    client: ClientConfig = {
        "connect_timeout": "5s",
        "read_timeout": "30s",
        "timeout": "15m",
        "user_agent": "kubelore",
        "allow_http": where.startswith("http://"),
    }
    retry: RetryConfig = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=20),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
    }
    with translated(bucket):
        return S3Store(
            bucket, prefix=path.strip("/") or None, config=config, client_options=client, retry_config=retry
        )


def _deadline(size: int) -> float:
    return DEADLINE_S + size / BYTES_PER_S


def _info(found: obstore.ObjectMeta) -> BlobInfo:
    return BlobInfo(found["path"], found["size"], found["last_modified"])


def _see_whole(key: str, seen: int, size: int) -> None:
    if seen != size:
        raise Unavailable(f"The blob {key!r} ended after {seen} of {size} bytes.", remedy="Read it again.")


def _too_large_to_create(key: str) -> TooLarge:
    return TooLarge(
        f"The blob {key!r} is over {CREATE_ONLY_BYTES} bytes, and so cannot be created only once.",
        remedy="Write it in parts, and a create-only list of the parts last.",
    )
