"""A recorder over a real MongoDB, and changes as an observer would publish them."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import zstandard

from kubelore.common.contracts.changes import Change, Kind
from kubelore.common.crypto import Signer
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.normalising import Normaliser
from kubelore.yaml_vcs.recorder import Recorder
from kubelore.yaml_vcs.repository import VersionRepository

SIGNER = Signer(bytes(32))
UID = "6b1f0f4e-0000-4000-8000-00000000000{}"


def change(
    kind: Kind,
    rv: int,
    data: Any = None,
    *,
    name: str = "web",
    type_name: str = "configmaps",
    cluster: str = "prod",
    uid: int = 1,
    incarnation: int = 1,
    at: float | None = None,
    manager: str = "kubectl",
    metadata: dict[str, Any] | None = None,
    **more: Any,
) -> Change:
    """One change of an object in the namespace `shop`."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": UID.format(uid),
            "resourceVersion": str(rv),
            "managedFields": [{"manager": manager, "operation": "Update", "time": "2026-01-01T00:00:00Z"}],
            **(metadata or {}),
        },
        "data": data,
        **more,
    }
    return Change(
        cluster=cluster,
        incarnation=incarnation,
        type=type_name,
        uid=UID.format(uid),
        id=f"{cluster}:{type_name}:shop:{name}",
        kind=kind,
        rv=str(rv),
        at=1_700_000_000.0 + rv if at is None else at,
        object=zstandard.compress(json.dumps(body).encode()),
    )


@pytest.fixture
def changed() -> Callable[..., Change]:
    """Makes changes; see `change`."""
    return change


async def no_blob(key: str) -> bytes:
    raise AssertionError(f"nobody stored {key}")


@pytest_asyncio.fixture(loop_scope="session")
async def repository(settings: CommonSettings) -> AsyncIterator[VersionRepository]:
    async with await open_database(settings) as database:
        opened = VersionRepository(database)
        await opened.prepare()
        yield opened


@pytest.fixture
def start(repository: VersionRepository) -> Callable[[], Recorder]:
    """A recorder that knows nothing, as after a start."""
    return lambda: Recorder(repository, Normaliser(), SIGNER, no_blob)


@pytest.fixture
def signer() -> Signer:
    return SIGNER


@pytest.fixture
def histories(repository: VersionRepository) -> Histories:
    return Histories(repository, SIGNER.verifier)


@pytest.fixture
def recorder(start: Callable[[], Recorder]) -> Recorder:
    return start()


@pytest.fixture
def fresh_name() -> Callable[[], str]:
    """Names that no other example of the same test has used."""
    numbers = itertools.count()
    return lambda: f"web-{next(numbers)}"
