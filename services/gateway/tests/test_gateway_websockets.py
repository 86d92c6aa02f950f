"""WebSockets at the door: tokens, limits, readers that stop reading, and how one ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated

import aiohttp
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI, WebSocket

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.errors import Conflict, Unauthenticated
from kubelore.gateway import standing as standings
from kubelore.gateway import websockets
from kubelore.gateway.dependencies import StandingOf
from kubelore.gateway.event_stream import Slots
from kubelore.gateway.problems import install
from kubelore.gateway.standing import Standing
from kubelore.gateway.websockets import BEARER_PROTOCOL, MAX_MESSAGE, Socket, accepted, take_token
from kubelore.lab.waiting import wait_for

TOKEN = "a-token-for-tests-only"
PROTOCOL = "v5.channel.k8s.io"


def as_protocol(token: str) -> str:
    return BEARER_PROTOCOL + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


@dataclass
class Server:
    """An application whose one socket does what `serve` says."""

    url: str = ""
    slots: Slots = field(default_factory=lambda: Slots(2, "sockets"))
    stands: bool = True
    words: list[str] = field(default_factory=list)

    async def standing(self) -> Standing:
        if not self.stands:
            raise Unauthenticated("the token was revoked")
        return Standing(ADMINISTRATOR, None, self.standing)

    async def serve(self, socket: Socket) -> None:
        async for word in _words(socket):
            self.words.append(word)
            if word == "fail":
                raise Conflict("it is taken", remedy="Take another.")
            if word == "break":
                raise ZeroDivisionError
            if word == "flood":
                while True:
                    await socket.send(b"x" * 60_000)
            await socket.send(word)


async def until(condition: Callable[[], bool], what: str) -> None:
    async def met() -> bool:
        return condition()

    await wait_for(met, what, 10)


async def _words(socket: Socket) -> AsyncIterator[str]:
    while True:
        word = await socket.receive()
        assert isinstance(word, str)
        if word == "bye":
            return
        yield word


@pytest_asyncio.fixture(loop_scope="session")
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(standings, "CHECK_S", 0.05)
    made = Server()
    app = FastAPI()
    install(app)

    async def authenticated(scope, receive, send) -> None:
        if scope["type"] == "websocket":
            scope.setdefault("state", {})["standing"] = await made.standing()
        await app(scope, receive, send)

    @app.websocket("/socket")
    async def open_socket(websocket: WebSocket, standing: Annotated[Standing, StandingOf]) -> None:
        async with accepted(websocket, standing, made.slots, (PROTOCOL,)) as socket:
            await made.serve(socket)

    serving = uvicorn.Server(
        uvicorn.Config(authenticated, port=0, log_config=None, lifespan="off", **websockets.options())
    )
    running = asyncio.create_task(serving.serve())
    await until(lambda: serving.started, "the server to listen")
    made.url = f"http://127.0.0.1:{serving.servers[0].sockets[0].getsockname()[1]}/socket"
    yield made
    serving.should_exit = True
    await running


@pytest_asyncio.fixture(loop_scope="session")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def test_a_word_comes_back_and_the_end_is_a_normal_one(server, http) -> None:
    async with http.ws_connect(server.url, protocols=(PROTOCOL,)) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_str("bye")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert (socket.protocol, socket.close_code) == (PROTOCOL, websockets.NORMAL)


async def test_who_offers_no_protocol_of_ours_is_told_which_there_are(server, http) -> None:
    async with http.get(server.url, headers=_upgrade("v1.channel.k8s.io")) as answer:
        problem = await answer.json()
    assert (answer.status, problem["reason"]) == (400, "BadRequest")
    assert PROTOCOL in problem["remedy"]


async def test_no_more_sockets_are_open_than_there_are_slots(server, http) -> None:
    async with (
        http.ws_connect(server.url, protocols=(PROTOCOL,)),
        http.ws_connect(server.url, protocols=(PROTOCOL,)),
        http.get(server.url, headers=_upgrade(PROTOCOL)) as answer,
    ):
        assert answer.status == 429
        assert "2 sockets are open already" in (await answer.json())["detail"]
    await until(lambda: server.slots.taken == 0, "the slots to be free")


async def test_a_typed_error_is_told_in_the_close_frame_with_its_remedy(server, http) -> None:
    message = await _end_after(server, http, "fail")
    assert message.data == websockets.INTERNAL_ERROR
    assert message.extra == "Conflict: it is taken. Take another."


async def test_of_an_unexpected_error_only_its_id_goes_out(server, http) -> None:
    message = await _end_after(server, http, "break")
    assert message.data == websockets.INTERNAL_ERROR
    assert message.extra.startswith("unexpected error ")
    assert "division" not in message.extra


async def test_a_revoked_token_ends_the_socket_and_says_so(server, http) -> None:
    async with http.ws_connect(server.url, protocols=(PROTOCOL,)) as socket:
        server.stands = False
        message = await socket.receive()
    assert (message.data, message.extra) == (
        websockets.POLICY_VIOLATION,
        "Unauthorized: the token was revoked",
    )


async def test_a_message_over_the_limit_ends_the_socket(server, http) -> None:
    async with http.ws_connect(server.url, protocols=(PROTOCOL,)) as socket:
        await socket.send_str("x" * (MAX_MESSAGE + 1))
        assert (await socket.receive()).data == websockets.TOO_BIG
    assert server.words == []


async def test_a_message_of_fragments_without_an_end_ends_the_socket(server) -> None:
    reader, writer = await _raw(server)
    writer.write(_frame(0x01, b"", final=False))
    for _ in range(websockets.MAX_FRAGMENTS + 1):
        writer.write(_frame(0x00, b"", final=False))
    head = await asyncio.wait_for(reader.readexactly(4), 10)
    assert (head[0] & 0x0F, int.from_bytes(head[2:4])) == (8, websockets.TOO_BIG)
    writer.close()


async def test_pings_whose_answers_are_never_read_end_the_connection(server) -> None:
    _, writer = await _raw(server)

    async def ping_for_ever() -> None:
        while True:
            writer.write(_frame(0x09, b"p" * 125) * 1000)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(ping_for_ever(), 20)


async def test_a_client_that_stops_reading_loses_its_socket(
    server, http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "STALLED_S", 0.3)
    _, writer = await _raw(server)
    writer.write(_frame(0x01, b"flood"))
    await until(lambda: server.words == ["flood"], "the flood to begin")
    await until(lambda: server.slots.taken == 0, "the slot to be free")
    writer.close()


async def test_nothing_is_compressed(server, http) -> None:
    headers = {**_upgrade(PROTOCOL), "Sec-WebSocket-Extensions": "permessage-deflate"}
    async with http.get(server.url, headers=headers) as answer:
        assert (answer.status, answer.headers.get("Sec-WebSocket-Extensions")) == (101, None)


def test_the_token_is_taken_out_of_the_offered_protocols() -> None:
    scope = {"subprotocols": [as_protocol("geheim"), PROTOCOL]}
    assert take_token(scope) == "geheim"
    assert scope["subprotocols"] == [PROTOCOL]
    assert take_token(scope) is None


async def test_a_browser_sends_its_token_as_a_subprotocol(world, http) -> None:
    async with http.get(_api(world), headers=_upgrade(as_protocol(TOKEN), PROTOCOL)) as answer:
        assert answer.status != 401


@pytest.mark.parametrize(
    ("offered", "status"),
    [
        ([PROTOCOL], 401),
        ([as_protocol("wrong"), PROTOCOL], 401),
        ([BEARER_PROTOCOL + "!!", PROTOCOL], 400),
        ([BEARER_PROTOCOL + "_w", PROTOCOL], 400),
        ([as_protocol(TOKEN), as_protocol(TOKEN), PROTOCOL], 400),
    ],
)
async def test_a_socket_without_a_good_token_is_refused_before_it_is_accepted(
    world, http, offered: list[str], status: int
) -> None:
    async with http.get(_api(world), headers=_upgrade(*offered)) as answer:
        problem = await answer.json()
    assert (answer.status, problem["status"]) == (status, status)
    assert TOKEN not in json.dumps(problem)


async def test_a_token_in_the_url_opens_nothing(world, http) -> None:
    async with http.get(_api(world) + f"?token={TOKEN}", headers=_upgrade(PROTOCOL)) as answer:
        assert answer.status == 401


def _api(world) -> str:
    return f"http://127.0.0.1:{world.settings.gateway_port}/api/k8s/containers/a:b:c:d/exec/ws"


def _upgrade(*protocols: str) -> dict[str, str]:
    key = base64.b64encode(b"0123456789abcdef").decode()
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": ", ".join(protocols),
    }


async def _end_after(server: Server, http: aiohttp.ClientSession, word: str) -> aiohttp.WSMessage:
    async with http.ws_connect(server.url, protocols=(PROTOCOL,)) as socket:
        await socket.send_str(word)
        return await socket.receive()


async def _raw(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection after its handshake, of which nobody reads."""
    host, _, port = server.url.removeprefix("http://").removesuffix("/socket").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    head = "".join(f"{name}: {value}\r\n" for name, value in _upgrade(PROTOCOL).items())
    writer.write(f"GET /socket HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def _frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame of a client, with a mask of zeros."""
    return bytes([opcode | (0x80 if final else 0), 0x80 | len(payload)]) + bytes(4) + payload
