"""NATS and MongoDB as the stack runs them: closed without a password, and nothing acknowledged is lost."""

from __future__ import annotations

import stat
from pathlib import Path

import nats
import nats.errors
import psutil
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from kubelore.common.errors import Conflict, Unavailable
from kubelore.common.settings import CommonSettings
from kubelore.stack.servers import Engine, MongoServer, NatsServer, secantus_engine


async def refuse(_: Exception) -> None:
    """Keeps nats-py from logging what the test expects."""


async def connected(server: NatsServer, password: str | None = None) -> nats.NATS:
    return await nats.connect(
        server.url,
        user=server.user,
        password=server.password if password is None else password,
        allow_reconnect=False,
        error_cb=refuse,
    )


async def test_nats_refuses_a_wrong_password(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await connected(server, "wrong")


async def test_nats_configuration_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        config = tmp_path / "nats.conf"
        assert server.password in config.read_text()
        assert stat.S_IMODE(config.stat().st_mode) == 0o600


async def test_acknowledged_messages_survive_a_kill_of_nats(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        client = await connected(server)
        await client.jetstream().add_stream(name="CHANGES", subjects=["changes.>"])
        for number in range(20):
            await client.jetstream().publish("changes.one", str(number).encode())
        port = server.port
        await server.kill()
        await client.close()
        await server.restart()
        assert server.port == port
        client = await connected(server)
        info = await client.jetstream().stream_info("CHANGES")
        assert info.state.messages == 20
        await client.close()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "first") as first:
        second = NatsServer(tmp_path / "second", port=first.port)
        second.ready_within_s = 5.0
        second.probe = lambda: _never()  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="address already in use"):
            await second.start()


async def _never() -> bool:
    return False


@pytest.mark.parametrize("engine", [None, secantus_engine()], ids=["mongod", "secantusdb"])
async def test_mongo_wants_its_password_and_keeps_journaled_writes_over_a_kill(
    tmp_path: Path, engine: Engine | None
) -> None:
    async with MongoServer(tmp_path, engine=engine) as server:
        async with AsyncMongoClient(f"mongodb://127.0.0.1:{server.port}/?directConnection=true") as stranger:
            with pytest.raises(OperationFailure):
                await stranger.kubelore.clusters.find_one()
        async with AsyncMongoClient(server.url, w="majority", journal=True, timeoutMS=10_000) as client:
            await client.kubelore.clusters.insert_one({"_id": "prod-eu"})
            await server.kill()
            await server.restart()
            assert await client.kubelore.clusters.find_one() == {"_id": "prod-eu"}


async def test_a_lost_mongo_password_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    async with MongoServer(tmp_path) as server, AsyncMongoClient(server.url, timeoutMS=10_000) as client:
        await client.kubelore.clusters.insert_one({"_id": "prod-eu"})
    async with MongoServer(tmp_path) as again, AsyncMongoClient(again.url, timeoutMS=10_000) as client:
        assert again.password != server.password
        assert await client.kubelore.clusters.find_one() == {"_id": "prod-eu"}


async def test_data_of_one_engine_is_not_opened_by_the_other(tmp_path: Path) -> None:
    async with MongoServer(tmp_path):
        pass
    with pytest.raises(Conflict, match="holds data of mongod") as caught:
        await MongoServer(tmp_path, engine=secantus_engine()).start()
    assert "mongod on PATH" in str(caught.value.remedy)


async def test_a_stopped_server_leaves_no_process(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        pid = server.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


async def test_settings_of_a_test_reach_an_empty_bus_and_database(settings: CommonSettings) -> None:
    client = await nats.connect(
        settings.nats_url, user=settings.nats_user, password=settings.nats_password.get_secret_value()
    )
    assert await client.jetstream().streams_info() == []
    await client.jetstream().add_stream(name="CHANGES", subjects=["kubelore.>"], max_bytes=1024**3)
    await client.close()
    async with AsyncMongoClient(settings.mongo_url.get_secret_value(), timeoutMS=5_000) as mongo:
        assert await mongo[settings.mongo_database].list_collection_names() == []
        await mongo[settings.mongo_database].clusters.insert_one({"_id": "left-behind"})


async def test_the_next_test_sees_nothing_of_the_one_before(settings: CommonSettings) -> None:
    await test_settings_of_a_test_reach_an_empty_bus_and_database(settings)
