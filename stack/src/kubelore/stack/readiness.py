"""Whether a service is there: by the bus (NATS ADR-32 answers PING), or by HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client

_ANSWER_S = 1.0


@dataclass(frozen=True)
class BusPing:
    """Asks services on the bus whether they are there."""

    client: Client

    def of(self, service: str) -> Callable[[], Awaitable[bool]]:
        """A probe for one service: true once any replica of it answers."""

        async def probe() -> bool:
            import nats.errors

            try:
                await self.client.request(f"$SRV.PING.{service}", b"", timeout=_ANSWER_S)
            except (nats.errors.Error, TimeoutError):
                return False
            return True

        return probe


@asynccontextmanager
async def bus_ping(url: str, user: str, password: str) -> AsyncIterator[BusPing]:
    """Connected for as long as the block runs."""
    import nats

    client = await nats.connect(url, user=user, password=password, connect_timeout=5, name="kubelore-stack")
    try:
        yield BusPing(client)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                await client.close()


def http_ready(host: str, port: int, path: str) -> Callable[[], Awaitable[bool]]:
    """A probe: true once a GET answers 200."""

    def get() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def probe() -> bool:
        return await asyncio.to_thread(get)

    return probe
