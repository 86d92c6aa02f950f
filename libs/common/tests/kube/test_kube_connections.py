"""Connections to an API server that misbehaves: nothing is followed, everything is bounded and named."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Gone,
    Invalid,
    KubeconfigRefused,
    KubeloreError,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unsupported,
    UpstreamError,
)
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient, addresses
from kubelore.common.kube.resource_type import NAMESPACES, PODS
from kubelore.common.kube.transport import KEPT_UP_TO


def answering(document: Any, status: int = 200, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document, status=status, headers=headers)

    return answer


def failing(code: int, reason: str, **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": "no",
        "details": details,
    }


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (400, "BadRequest", BadRequest),
        (401, "Unauthorized", Unauthenticated),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", Unsupported),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (413, "RequestEntityTooLarge", TooLarge),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", UpstreamError),
        (500, "ServerTimeout", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (504, "Timeout", DeadlineExceeded),
    ],
)
async def test_a_status_becomes_its_error(
    start_api: Any, lenient: AddressPolicy, code: int, reason: str, error: type[KubeloreError]
) -> None:
    api = await start_api(answering(failing(code, reason), code))
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(KubeloreError) as caught:
            await client.get(NAMESPACES, None, "x")
    assert type(caught.value) is error
    assert caught.value.extra["kubernetes_reason"] == reason


async def test_causes_and_waiting_times_come_along(start_api: Any, lenient: AddressPolicy) -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "must be positive", "field": "spec.replicas"}]
    api = await start_api(
        answering(failing(429, "TooManyRequests", causes=causes), 429, **{"Retry-After": "7"})
    )
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(TooManyRequests) as caught:
            await client.get(NAMESPACES, None, "x")
    assert caught.value.extra["retry_after_s"] == 7
    assert caught.value.extra["causes"] == causes


async def test_an_error_page_of_a_proxy_is_not_repeated(start_api: Any, lenient: AddressPolicy) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(UpstreamError, match="HTTP status 502"):
            await client.version()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(start_api: Any, lenient: AddressPolicy, status: int) -> None:
    target = await start_api(answering({}))
    api = await start_api(answering({}, status, Location=f"{target.server}/stolen"))
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(UpstreamError, match="redirect"):
            await client.get(NAMESPACES, None, "x")
        with pytest.raises(UpstreamError, match="redirect"):
            await client.exec("default", "pod", None, ["true"])
    assert target.requests == []


async def test_the_environments_proxy_and_credentials_are_ignored(
    start_api: Any, lenient: AddressPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(netrc))
    api = await start_api(answering({"gitVersion": "v1"}))
    access = api.access
    access.token = ""
    async with KubeClient(access, lenient) as client:
        assert await client.version() == {"gitVersion": "v1"}
    assert "Authorization" not in api.requests[0].headers


async def test_cookies_are_not_kept(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(answering({"gitVersion": "v1"}, **{"Set-Cookie": "session=1"}))
    async with KubeClient(api.access, lenient) as client:
        await client.version()
        await client.version()
    assert "Cookie" not in api.requests[1].headers


async def test_every_request_asks_for_the_callers_headers(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(answering({"gitVersion": "v1"}))
    async with KubeClient(api.access, lenient, headers=lambda: {"traceparent": "00-1-2-01"}) as client:
        await client.version()
    assert api.requests[0].headers["traceparent"] == "00-1-2-01"
    assert api.requests[0].headers["Authorization"] == "Bearer a-token"
    assert api.requests[0].headers["Accept-Encoding"] == "identity"


async def test_an_answer_that_does_not_come_ends_with_its_deadline(
    start_api: Any, lenient: AddressPolicy
) -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    api = await start_api(never)
    async with KubeClient(api.access, lenient, timeout_s=0.2) as client:
        with pytest.raises(DeadlineExceeded):
            await client.version()


async def test_a_body_that_trickles_ends_with_the_same_deadline(
    start_api: Any, lenient: AddressPolicy
) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    api = await start_api(trickle)
    async with KubeClient(api.access, lenient, timeout_s=0.3) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get(NAMESPACES, None, "x")


async def test_a_body_over_its_limit_is_not_read(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(answering({"x": "y" * 200_000}))
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(TooLarge):
            await client.version()


async def test_a_write_whose_connection_breaks_is_sent_once_and_of_unknown_outcome(
    start_api: Any, lenient: AddressPolicy
) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    api = await start_api(hang_up)
    async with KubeClient(api.access, lenient) as client:
        for write in (
            client.delete(NAMESPACES, None, "x"),
            client.replace(NAMESPACES, None, "x", b"{}"),
            client.create(NAMESPACES, None, b"{}"),
        ):
            api.requests.clear()
            with pytest.raises(Unavailable) as caught:
                await write
            assert len(api.requests) == 1
            assert caught.value.extra["outcome"] == "unknown"


async def test_a_write_that_never_left_is_not_of_unknown_outcome(
    authority: Any, lenient: AddressPolicy
) -> None:
    access = ClusterAccess(server=f"https://127.0.0.1:{unused_port()}", ca_pem=authority.pem, token="a")
    async with KubeClient(access, lenient) as client:
        with pytest.raises(Unavailable) as caught:
            await client.delete(NAMESPACES, None, "x")
    assert caught.value.extra["step"] == "tcp"
    assert "outcome" not in caught.value.extra


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def test_many_streams_do_not_starve_a_get(start_api: Any, lenient: AddressPolicy) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"gitVersion": "v1"})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n')
        await asyncio.Event().wait()
        return response

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        watches = [client.watch(PODS, rv="1") for _ in range(40)]
        assert len(await asyncio.gather(*(anext(watch) for watch in watches))) == 40
        assert await client.version() == {"gitVersion": "v1"}
        for watch in watches:
            await watch.aclose()


async def test_the_access_is_checked_when_the_client_is_made(authority: Any) -> None:
    access = ClusterAccess(server="https://169.254.169.254", ca_pem=authority.pem, token="a")
    with pytest.raises(KubeconfigRefused) as caught:
        KubeClient(access, AddressPolicy(allow_private=True))
    assert caught.value.code == "link-local"


async def test_a_name_that_changes_its_address_later_is_refused_at_connect_time(
    start_api: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name was harmless when it was added, and points inside when it is connected to."""
    api = await start_api(answering({"gitVersion": "v1"}))
    access = ClusterAccess(server=f"https://api.example.com:{api.port}", ca_pem=authority.pem, token="a")
    client = KubeClient(access, AddressPolicy())
    answer_dns_with(monkeypatch, "127.0.0.1")
    async with client:
        with pytest.raises(KubeconfigRefused) as caught:
            await client.version()
    assert caught.value.code == "private-address"
    assert api.requests == []


async def test_a_name_is_judged_anew_for_every_connection(
    start_api: Any, authority: Any, monkeypatch: pytest.MonkeyPatch, lenient: AddressPolicy
) -> None:
    api = await start_api(answering({"gitVersion": "v1"}, Connection="close"))
    access = ClusterAccess(
        server=f"https://api.example.com:{api.port}",
        ca_pem=authority.pem,
        token="a",
        tls_server_name="127.0.0.1",
    )
    async with KubeClient(access, lenient) as client:
        answer_dns_with(monkeypatch, "127.0.0.1")
        await client.version()
        answer_dns_with(monkeypatch, "169.254.169.254")
        with pytest.raises(KubeconfigRefused) as caught:
            await client.version()
    assert caught.value.code == "link-local"


async def test_the_socket_itself_refuses_an_address_that_slipped_through(
    start_api: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: Any, **__: Any) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname="api.example.com",
                host="127.0.0.1",
                port=api.port,
                family=socket.AF_INET,
                proto=0,
                flags=0,
            )
        ]

    api = await start_api(answering({}))
    monkeypatch.setattr(addresses.PolicyResolver, "resolve", resolve)
    access = ClusterAccess(server=f"https://api.example.com:{api.port}", ca_pem=authority.pem, token="a")
    async with KubeClient(access, AddressPolicy()) as client:
        with pytest.raises(KubeconfigRefused):
            await client.version()
    assert api.requests == []


def answer_dns_with(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Stand in for the machine's DNS: the one thing outside that a test cannot have for real."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_a_proxy_gets_a_tunnel_and_no_credentials(
    start_api: Any, authority: Any, lenient: AddressPolicy, server_context: Any
) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        host, _, port = heads[-1].split()[1].decode().rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    api = await start_api(answering({"gitVersion": "v1"}))
    proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(authority.issue()))
    access = api.access
    access.proxy_url = f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    async with KubeClient(access, lenient) as client:
        assert await client.version() == {"gitVersion": "v1"}
    proxy.close()
    assert heads[0].startswith(f"CONNECT 127.0.0.1:{api.port} ".encode())
    assert b"a-token" not in heads[0]
    assert api.requests[0].headers["Authorization"] == "Bearer a-token"


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_a_server_that_repeats_the_token_in_its_error_does_not_get_it_shown(
    start_api: Any, lenient: AddressPolicy, status: int
) -> None:
    async def repeating(request: web.Request) -> web.Response:
        return web.Response(status=status, text=f"you sent {request.headers['Authorization']}")

    api = await start_api(repeating)
    access = ClusterAccess(server=api.server, ca_pem=api.authority.pem, token="canary-0123456789")
    async with KubeClient(access, lenient) as client:
        with pytest.raises(KubeloreError) as refusal:
            await client.get(PODS, "default", "a")
    shown = repr((refusal.value.detail, refusal.value.remedy, refusal.value.extra))
    assert "canary" not in shown
    assert "you sent Bearer [redacted]" in shown


@pytest.mark.parametrize(("status", "unknown"), [(502, True), (504, True), (503, False), (422, False)])
async def test_a_write_that_something_in_between_gave_up_on_is_of_unknown_outcome(
    start_api: Any, lenient: AddressPolicy, status: int, unknown: bool
) -> None:
    api = await start_api(answering(failing(status, "Timeout", retryAfterSeconds=3), status))
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(KubeloreError) as refusal:
            await client.patch(PODS, "default", "a", b"{}")
    assert (refusal.value.extra.get("outcome") == "unknown") is unknown
    assert ("retry_after_s" in refusal.value.extra) is not unknown


@pytest.mark.parametrize(("size", "connections"), [(1_000, 1), (8 * KEPT_UP_TO, 3)])
async def test_a_connection_is_kept_unless_it_brought_a_large_answer(
    start_api: Any, lenient: AddressPolicy, size: int, connections: int
) -> None:
    ports: set[int] = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.json_response({"kind": "Namespace", "padding": "x" * size})

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        for _ in range(3):
            assert len(await client.get(NAMESPACES, None, "x")) > size
    assert len(ports) == connections
