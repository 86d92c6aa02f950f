"""MinIO takes and gives objects, and keeps them when it is killed."""

import obstore
import pytest
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from kubelore.lab.minio import Minio

pytestmark = pytest.mark.lab


def _bucket(minio: Minio, secret: str) -> S3Store:
    return S3Store(
        minio.bucket,
        endpoint=minio.endpoint,
        access_key_id=minio.access_key,
        secret_access_key=secret,
        region=minio.region,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


async def test_objects_survive_a_killed_server(minio: Minio) -> None:
    store = _bucket(minio, minio.secret_key)
    await obstore.put_async(store, "a/b", b"content")

    await minio.kill()
    await minio.start()

    kept = await obstore.get_async(store, "a/b")
    assert bytes(await kept.bytes_async()) == b"content"
    with pytest.raises((NotFoundError, FileNotFoundError)):
        await obstore.get_async(store, "a/c")


async def test_a_wrong_secret_is_refused(minio: Minio) -> None:
    store = _bucket(minio, "not-the-secret")

    with pytest.raises((BaseError, PermissionError)):
        await obstore.put_async(store, "x", b"content")
