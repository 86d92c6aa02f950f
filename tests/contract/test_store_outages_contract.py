"""How the database fails: refused, killed, hanging, not there. On every MongoDB server that Kubelore runs with."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.errors import DeadlineExceeded, Unavailable
from kubelore.common.settings import CommonSettings
from kubelore.common.store import gt, open_database
from kubelore.lab.waiting import wait_for
from kubelore.stack.ports import free_port
from kubelore.stack.servers import MongoServer, secantus_engine


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["mongod", "secantusdb"])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MongoServer]:
    engine = secantus_engine() if request.param == "secantusdb" else None
    async with MongoServer(tmp_path_factory.mktemp(request.param), engine=engine) as running:
        if running.engine.kind != request.param:
            pytest.skip(f"there is no {request.param} here")
        yield running


def settings_for(url: str) -> CommonSettings:
    return CommonSettings(mongo_url=SecretStr(url), mongo_database="contract")  # type: ignore[call-arg]


@asynccontextmanager
async def _hanging(server: MongoServer) -> AsyncIterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(os.waitid, os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_without_credentials_nothing_opens(server: MongoServer) -> None:
    with pytest.raises(Unavailable, match="credentials") as caught:
        await open_database(settings_for(f"mongodb://127.0.0.1:{server.port}/?directConnection=true"))
    assert caught.value.__cause__ is not None


async def test_with_a_wrong_password_nothing_opens_and_it_is_not_repeated(server: MongoServer) -> None:
    url = server.url.replace(server.password, "hunter2wrong")
    with pytest.raises(Unavailable, match="credentials") as caught:
        await open_database(settings_for(url))
    assert "hunter2" not in repr((caught.value.args, caught.value.remedy, caught.value.extra))


async def test_what_was_acknowledged_is_there_after_kill_9(server: MongoServer) -> None:
    database = await open_database(settings_for(server.url))
    survivors = database.collection("survivors")
    await survivors.put({"_id": 0})
    written = 0
    enough = asyncio.Event()

    async def write() -> None:
        nonlocal written
        for n in itertools.count(1):
            await survivors.insert({"_id": n})
            written = n
            if n == 50:
                enough.set()

    writer = asyncio.create_task(write())
    async with asyncio.timeout(30):
        await enough.wait()
    await server.kill()
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await writer
    await server.restart()
    found = {row["_id"] async for row in survivors.scan({"_id": gt(0)})}
    assert found >= set(range(1, written + 1))
    await database.close()


async def test_a_server_that_hangs_is_given_up_at_the_deadline(server: MongoServer) -> None:
    async with await open_database(settings_for(server.url)) as database:
        things = database.collection("things")
        await things.put({"_id": "a"})
        async with _hanging(server):
            started = time.monotonic()
            outcomes = await asyncio.gather(
                things.get("a"), things.put({"_id": "a"}), database.ping(), return_exceptions=True
            )
            # Of its own PyMongo would wait for 30 s.
            assert time.monotonic() - started < 20
        assert all(isinstance(outcome, (DeadlineExceeded, Unavailable)) for outcome in outcomes), outcomes
        assert await things.get("a") == {"_id": "a"}


async def test_many_who_are_cancelled_at_their_deadline_leave_connections_to_those_after_them(
    server: MongoServer,
) -> None:
    async with await open_database(settings_for(server.url)) as database:
        things = database.collection("things")

        async def read_together() -> bool:
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(things.count())
                    group.create_task(database.ping())
            return True

        for _ in range(2):
            async with _hanging(server), asyncio.timeout(30):
                groups = (read_together() for _ in range(16))
                outcomes = await asyncio.gather(*groups, return_exceptions=True)
                assert all(isinstance(outcome, ExceptionGroup) for outcome in outcomes)
            # A server that was stopped may take long over so many new connections.
            await wait_for(read_together, "all to be answered again", 60, ignoring=(ExceptionGroup,))


async def test_a_server_that_is_not_there_is_named_with_a_remedy() -> None:
    password = "hunter" + "2"
    url = f"mongodb://user:{password}@127.0.0.1:{free_port('127.0.0.1')}"
    started = time.monotonic()
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        await open_database(settings_for(url))
    assert time.monotonic() - started < 20
    assert "KUBELORE_MONGO_URL" in str(caught.value.remedy)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://hunter2@x",
        "mongodb://",
        "mongodb://user:hun/ter2@host",
        "mongodb://user:hunter2@host:port",
    ],
)
async def test_a_connection_string_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Unavailable, match="not a MongoDB connection string") as caught:
        await open_database(settings_for(url))
    assert "ter2" not in "".join(traceback.format_exception(caught.value))
