"""Commands in containers: channels, exit codes, closing stdin, and a peer that hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from kubelore.common.errors import BadRequest, NotFound, Unavailable, Unsupported, UpstreamError
from kubelore.common.kube import AddressPolicy, Channel, KubeClient

SUCCESS = b"\x03" + json.dumps({"metadata": {}, "status": "Success"}).encode()
Script = Callable[[web.WebSocketResponse], Awaitable[None]]


def ended_with(code: int) -> bytes:
    status = {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
    return b"\x03" + json.dumps(status).encode()


def speaking(script: Script, *protocols: str) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=protocols or ("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        await script(socket)
        return socket

    return answer


async def test_output_comes_by_channel_and_the_exit_code_last(start_api: Any, lenient: AddressPolicy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for message in (b"\x01", b"\x02", b"\x01out", b"\x02err", ended_with(3)):
            await socket.send_bytes(message)

    api = await start_api(speaking(script))
    async with (
        KubeClient(api.access, lenient) as client,
        await client.exec("shop", "web-1", "app", ["sh", "-c", "echo $HOME; exit 3"]) as stream,
    ):
        assert [each async for each in stream] == [(Channel.STDOUT, b"out"), (Channel.STDERR, b"err")]
        assert stream.exit_code == 3
    request = api.requests[0]
    assert request.path == "/api/v1/namespaces/shop/pods/web-1/exec"
    assert request.query.getall("command") == ["sh", "-c", "echo $HOME; exit 3"]
    assert request.query["container"] == "app"
    assert request.query["stdin"] == "false"


async def test_success_is_exit_code_zero(start_api: Any, lenient: AddressPolicy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(SUCCESS)

    api = await start_api(speaking(script))
    async with KubeClient(api.access, lenient) as client:
        stream = await client.exec("shop", "web-1", None, ["true"])
        assert [each async for each in stream] == []
        assert stream.exit_code == 0
        await stream.close()


async def echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY and message.data[0] == Channel.STDIN:
            await socket.send_bytes(b"\x01" + message.data[1:])
        elif message.data[:2] == b"\xff\x00":
            await socket.send_bytes(SUCCESS)
        elif message.data[0] == Channel.RESIZE:
            await socket.send_bytes(b"\x02" + message.data[1:])


async def test_input_is_sent_whole_and_ended_over_v5(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(speaking(echo))
    data = bytes(range(256)) * 1024
    async with (
        KubeClient(api.access, lenient) as client,
        await client.exec("shop", "web-1", None, ["cat"], stdin=True) as stream,
    ):
        sending = asyncio.create_task(stream.send(data))
        received = bytearray()
        async for _, part in stream:
            received += part
            if len(received) == len(data):
                await sending
                await stream.close_stdin()
        assert bytes(received) == data
        assert stream.exit_code == 0


async def test_v4_cannot_end_the_input_and_says_so(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(speaking(echo, "v4.channel.k8s.io"))
    async with (
        KubeClient(api.access, lenient) as client,
        await client.exec("shop", "web-1", None, ["cat"], stdin=True) as stream,
    ):
        assert stream.protocol == "v4.channel.k8s.io"
        await stream.send(b"still works")
        assert await anext(aiter(stream)) == (Channel.STDOUT, b"still works")
        with pytest.raises(Unsupported):
            await stream.close_stdin()


async def test_a_terminal_is_told_its_size(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(speaking(echo))
    async with (
        KubeClient(api.access, lenient) as client,
        await client.exec("shop", "web-1", None, ["sh"], stdin=True, tty=True) as stream,
    ):
        await stream.resize(120, 40)
        assert json.loads((await anext(aiter(stream)))[1]) == {"Width": 120, "Height": 40}
    assert api.requests[0].query["stderr"] == "false"


async def test_a_connection_that_breaks_is_no_success(start_api: Any, lenient: AddressPolicy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01half")
        await socket.close()

    api = await start_api(speaking(script))
    async with KubeClient(api.access, lenient) as client:
        stream = await client.exec("shop", "web-1", None, ["long"])
        with pytest.raises(Unavailable) as caught:
            [each async for each in stream]
        assert stream.exit_code is None
    assert caught.value.extra["outcome"] == "unknown"


async def test_a_command_that_does_not_exist(start_api: Any, lenient: AddressPolicy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        status = {
            "kind": "Status",
            "status": "Failure",
            "reason": "InternalError",
            "message": "exec: no such file",
        }
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())

    api = await start_api(speaking(script))
    async with KubeClient(api.access, lenient) as client:
        stream = await client.exec("shop", "web-1", None, ["nothing"])
        with pytest.raises(UpstreamError, match="no such file"):
            [each async for each in stream]


@pytest.mark.parametrize(("code", "error"), [(404, NotFound), (400, BadRequest)])
async def test_a_refused_handshake_says_why(
    start_api: Any, lenient: AddressPolicy, code: int, error: type[Exception]
) -> None:
    async def answer(_: web.Request) -> web.Response:
        status = {
            "kind": "Status",
            "code": code,
            "reason": "",
            "message": "container app is not valid for pod",
        }
        return web.json_response(status, status=code)

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(error, match="not valid for pod"):
            await client.exec("shop", "web-1", "app", ["true"])


async def test_a_reader_that_stops_makes_the_peer_wait(start_api: Any, lenient: AddressPolicy) -> None:
    sent = 0

    async def script(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        while sent < 200_000_000:
            await socket.send_bytes(b"\x01" + b"x" * 100_000)
            sent += 100_000

    api = await start_api(speaking(script))
    async with (
        KubeClient(api.access, lenient) as client,
        await client.exec("shop", "web-1", None, ["yes"]) as stream,
    ):
        await anext(aiter(stream))
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 50_000_000, "what nobody reads piles up in the kernel's buffers alone"


async def test_logs_come_as_they_are_written(start_api: Any, lenient: AddressPolicy) -> None:
    more = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        await more.wait()
        await response.write(b"second\n")
        return response

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        logs = client.logs("shop", "web-1", "app", follow=True, tail=10, since_time="2026-01-01T00:00:00Z")
        assert await anext(logs) == b"first\n"
        more.set()
        assert [each async for each in logs] == [b"second\n"]
    assert dict(api.requests[0].query) == {
        "container": "app",
        "follow": "true",
        "previous": "false",
        "timestamps": "false",
        "tailLines": "10",
        "sinceTime": "2026-01-01T00:00:00Z",
    }
