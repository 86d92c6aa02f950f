"""Files that leave: whole, or visibly cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import httpx
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.errors import Unauthenticated, Unavailable
from kubelore.gateway import standing as standings
from kubelore.gateway.dependencies import StandingOf
from kubelore.gateway.event_stream import Outflow
from kubelore.gateway.standing import Standing
from kubelore.lab.waiting import wait_for


@dataclass
class Server:
    """Sends what never ends to whoever asks, while their token stands."""

    url: str = ""
    stands: bool = True
    ended: bool = False

    async def standing(self) -> Standing:
        if not self.stands:
            raise Unauthenticated("the token was revoked")
        return Standing(ADMINISTRATOR, None, self.standing)

    async def content(self, fails: bool) -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                if fails:
                    raise Unavailable("the store is gone")
                await asyncio.sleep(0.01)
        finally:
            self.ended = True


@pytest_asyncio.fixture(loop_scope="session")
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(standings, "CHECK_S", 0.05)
    made, app = Server(), FastAPI()

    async def authenticated(scope, receive, send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["standing"] = await made.standing()
        await app(scope, receive, send)

    @app.get("/file")
    async def file(standing: Annotated[Standing, StandingOf], fails: bool = False) -> Outflow:
        return Outflow(made.content(fails), standing, "application/x-tar")

    serving = uvicorn.Server(uvicorn.Config(authenticated, port=0, log_config=None, lifespan="off"))
    running = asyncio.create_task(serving.serve())

    async def listens() -> bool:
        return serving.started

    await wait_for(listens, "the server to listen", 10)
    made.url = f"http://127.0.0.1:{serving.servers[0].sockets[0].getsockname()[1]}/file"
    yield made
    serving.should_exit = True
    await running


async def test_a_file_is_cut_off_when_the_token_is_revoked(server: Server) -> None:
    async with httpx.AsyncClient(timeout=10) as http, http.stream("GET", server.url) as answer:
        pieces = answer.aiter_bytes()
        await anext(pieces)
        server.stands = False
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in pieces:
                pass
    assert server.ended


async def test_a_file_whose_source_fails_is_cut_off(server: Server) -> None:
    async with httpx.AsyncClient(timeout=10) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(server.url, params={"fails": "true"})
    assert server.ended


async def test_what_feeds_a_file_ends_when_its_reader_leaves(server: Server) -> None:
    async with httpx.AsyncClient(timeout=10) as http, http.stream("GET", server.url) as answer:
        await anext(answer.aiter_bytes())

    async def ended() -> bool:
        return server.ended

    await wait_for(ended, "the source to end", 10)
