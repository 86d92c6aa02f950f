"""pytest fixtures: real servers for a whole run, and settings that share nothing with another test.

Every `settings` gets a NATS account, a database, a blob folder and a folder
with the gateway's keyring of its own, so that tests need not tidy up after themselves. A test that
kills a server starts its own with `async with NatsServer(tmp_path / "nats")`.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.authz import ADMINISTRATOR, Caller
from kubelore.common.bus import Bus
from kubelore.common.callers import CallerSigner
from kubelore.common.crypto import Keyring
from kubelore.common.settings import CommonSettings
from kubelore.stack.servers import Account, MongoServer, NatsServer

_ACCOUNTS = 300


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """One NATS server for the whole run; leave it running."""
    names = [f"TEST{number:03}" for number in range(_ACCOUNTS)]
    accounts = tuple(Account(name, {name.lower(): secrets.token_urlsafe(16)}) for name in names)
    # Streams reserve their limit when they are made; nothing like it is ever stored.
    async with NatsServer(
        tmp_path_factory.mktemp("nats"), accounts=accounts, max_file_store=1024**5
    ) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MongoServer]:
    """One MongoDB server for the whole run; leave it running."""
    async with MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(scope="session")
def nats_accounts(nats_server: NatsServer) -> deque[Account]:
    """Accounts of the NATS server that are free (the first belongs to `nats_server.user`).

    One that was used is put back at the end, so that whatever a test left
    running has long ended before another test meets it.
    """
    return deque(nats_server.accounts[1:])


@pytest_asyncio.fixture(loop_scope="session")
async def settings(
    nats_server: NatsServer, mongo_server: MongoServer, nats_accounts: deque[Account], tmp_path: Path
) -> AsyncIterator[CommonSettings]:
    """Settings of a service that finds an empty bus, database and blob store, and only the gateway's keyring."""
    account = nats_accounts.popleft()
    Keyring.create(tmp_path / "keyring" / "gateway.json", "gateway")
    ((user, password),) = account.users.items()
    chosen = CommonSettings(
        nats_url=nats_server.url,
        nats_user=user,
        nats_password=SecretStr(password),
        mongo_url=SecretStr(mongo_server.url),
        mongo_database=f"t{account.name.lower()}",
        blob_url=(tmp_path / "blobs").as_uri(),
        keyring_dir=tmp_path / "keyring",
        allow_private_addresses=True,
        allow_insecure_tls=False,
        replica="",
        otlp_endpoint="",
        log_format="console",
        log_level="warning",
    )
    yield chosen
    await _remove_streams(chosen)
    await _drop_database(chosen)
    nats_accounts.append(account)


def speak_as(bus: Bus, settings: CommonSettings, caller: Caller = ADMINISTRATOR) -> Bus:
    """Let a test's bus ask as the gateway does: vouching for one caller."""
    keyring = Keyring.load(settings.keyring_dir / "gateway.json")
    bus.signer, bus.speaks_for = CallerSigner(keyring.signer()), caller
    return bus


async def _remove_streams(used: CommonSettings) -> None:
    import nats

    client = await nats.connect(
        used.nats_url, user=used.nats_user, password=used.nats_password.get_secret_value(), connect_timeout=5
    )
    try:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
    finally:
        await client.close()


async def _drop_database(used: CommonSettings) -> None:
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(used.mongo_url.get_secret_value(), timeoutMS=10_000) as client:
        await client.drop_database(used.mongo_database)
