"""Whether a service is there: by the bus (NATS ADR-32 answers PING), or by HTTP.

The bus is asked in NATS' client protocol itself, a few lines of text. The
client library would cost every start a third of a second, and the supervisor
that stays behind 20 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
from collections.abc import Awaitable, Callable

from kubelore.stack.servers import NatsServer
from kubelore.stack.servers.base import HOST

_ANSWER_S = 1.0


def bus_ready(nats: NatsServer, user: str, service: str) -> Callable[[str], Awaitable[bool]]:
    """A probe: true once the replica of the service that has the given id answers."""
    password = nats.accounts[0].users[user]

    async def probe(replica: str) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await _ping(nats.port, user, password, service, replica)
        except (OSError, TimeoutError, ValueError):
            return False

    return probe


async def _ping(port: int, user: str, password: str, service: str, replica: str) -> bool:
    """Every replica answers; until the deadline for the one that is meant."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        await reader.readline()
        inbox = f"_INBOX_{user}.{secrets.token_hex(8)}"
        options = {"user": user, "pass": password, "headers": True, "no_responders": True, "verbose": False}
        told = f"CONNECT {json.dumps(options)}\r\nSUB {inbox} 1\r\nPUB $SRV.PING.{service} {inbox} 0\r\n\r\n"
        writer.write(told.encode())
        while line := await reader.readline():
            if line.startswith((b"HMSG ", b"-ERR")):
                # Headers come with "nobody is there" only.
                return False
            if line.startswith(b"MSG "):
                answer = json.loads(await reader.readexactly(int(line.split()[-1])))
                if answer["metadata"].get("replica") == replica:
                    return True
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def http_ready(port: int, path: str) -> Callable[[str], Awaitable[bool]]:
    """A probe: true once a GET answers 200, whatever the replica calls itself."""

    def get() -> bool:
        connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def probe(_: str) -> bool:
        return await asyncio.to_thread(get)

    return probe
