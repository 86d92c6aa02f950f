"""A real NATS server for the tests of the bus: one shared, and one of its own for a test that kills it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.bus import Bus, connect, ensure_streams
from kubelore.common.bus.streams import StreamLimits
from kubelore.common.settings import CommonSettings
from kubelore.stack.servers import NatsServer

Connect = Callable[..., Awaitable[Bus]]
Eventually = Callable[..., Awaitable[None]]


def bus_settings(server: NatsServer, replica: str = "") -> CommonSettings:
    """Settings that reach this server and nothing else."""
    return CommonSettings(
        nats_url=server.url, nats_user=server.user, nats_password=SecretStr(server.password), replica=replica
    )


@pytest_asyncio.fixture(loop_scope="session")
async def bus_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of the test's own, which it may kill."""
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def joining(bus_server: NatsServer) -> AsyncIterator[Connect]:
    """Connect any number of replicas; they are closed at the end."""
    opened: list[Bus] = []

    async def join(replica: str = "", name: str = "tester") -> Bus:
        bus = await connect(bus_settings(bus_server, replica), name=name)
        opened.append(bus)
        return bus

    yield join
    for bus in opened:
        await bus.close()


@pytest_asyncio.fixture(loop_scope="session")
async def bus(joining: Connect, limits: StreamLimits) -> Bus:
    """One connected replica, with every stream made."""
    joined = await joining()
    await ensure_streams(joined, limits)
    return joined


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, at most a number of seconds."""

    async def wait(condition: Callable[[], object | Awaitable[object]], within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                outcome = condition()
                if await outcome if isinstance(outcome, Awaitable) else outcome:
                    return
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def limits() -> StreamLimits:
    """Sizes of the streams; a test may parametrize them."""
    return StreamLimits()
