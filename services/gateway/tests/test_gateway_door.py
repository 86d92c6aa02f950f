"""Who gets in, and how errors, limits and pages look from outside."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import tracemalloc
from contextlib import suppress

import pytest
from pydantic import SecretStr

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.bus import Leases, connect
from kubelore.common.errors import Invalid, Unavailable
from kubelore.common.operations import is_operation_id
from kubelore.gateway import protocol
from kubelore.gateway.auth import Authentication
from kubelore.gateway.limits import Limits
from kubelore.gateway.origins import Origins
from kubelore.gateway.problems import Boundary
from kubelore.gateway.rates import Buckets
from kubelore.gateway.roster import Roster
from kubelore.gateway.settings import GatewaySettings

TOKEN = "a-token-for-tests-only"


async def test_nothing_answers_without_the_token(world) -> None:
    for path in (
        "/api/k8s/clusters/list",
        "/openapi.json",
        "/docs/",
        "/%2F",
        "/docs%2F..",
        "/livez/x",
        "/nothing",
    ):
        for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
            answer = await world.stranger.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == 'Bearer realm="kubelore"'


async def test_no_other_credential_is_taken(world) -> None:
    for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"):
        headers = {"Authorization": header.encode()}
        answer = await world.stranger.get("/api/k8s/clusters/list", headers=headers)
        assert answer.status_code == 401, header


async def test_the_token_is_taken_whatever_the_case_of_its_scheme(world) -> None:
    answer = await world.stranger.get("/api/k8s/clusters/list", headers={"Authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200


async def test_a_mutating_request_is_an_operation_with_an_id_also_when_it_is_refused(world) -> None:
    seen = []
    for client, method in ((world.http, "DELETE"), (world.http, "DELETE"), (world.stranger, "DELETE")):
        answer = await client.request(method, "/api/k8s/clusters/nowhere")
        seen.append(answer.headers["operation-id"])
    assert all(is_operation_id(found) for found in seen)
    assert len(set(seen)) == 3
    assert "operation-id" not in (await world.http.get("/api/k8s/clusters/list")).headers


async def test_health_and_pages_answer_everybody(world) -> None:
    for path in ("/", "/docs", "/livez", "/readyz"):
        assert (await world.stranger.get(path)).status_code == 200
        head = await world.stranger.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert (await world.stranger.post(path)).status_code == 405


async def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    sent = []

    async def never(scope, receive, send) -> None:
        pytest.fail("the application was reached")

    async def send(message) -> None:
        sent.append(message)

    nobody = Authentication(never, None, Origins(), Buckets(0, 1), Buckets(0, 1))
    await nobody({"type": "websocket", "path": "/", "headers": []}, None, send)
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert sent[0]["status"] == 401


async def test_a_path_that_is_not_there_is_a_problem_document(world) -> None:
    status, problem = await world.refused("/api/k8s/nothing")
    assert (status, problem["reason"], problem["title"]) == (404, "NotFound", "Not Found")


async def test_a_method_that_is_not_there_names_those_that_are(world) -> None:
    answer = await world.http.put("/api/k8s/clusters/add")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert (answer.json()["status"], answer.json()["reason"]) == (405, "MethodNotAllowed")


async def test_a_trailing_slash_is_not_redirected_to_wherever_the_host_header_says(world) -> None:
    answer = await world.http.get("/api/k8s/clusters/list/", headers={"Host": "evil.example"})
    assert "location" not in answer.headers
    assert answer.status_code == 404


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b'{"name": "a"}',
    b'{"name": 1, "kubeconfig": "x"}',
    b'{"name": "a", "kubeconfig": "x", "surprise": 1}',
    b'{"name": "a", "kubeconfig": "x", "\\ud800": 1}',
    b'{"name": "a", "kubeconfig": "\\ud800"}',
    b'{"name": "a", "kubeconfig": "x", "tags": ["a,b"]}',
    b'{"name": "a", "kubeconfig": "x", "display_name": "\\u001b[2J"}',
    b'{"name": "a", "kubeconfig": "x", "group": "' + b"g" * 64 + b'"}',
    b'{"name": "a", "kubeconfig": "x", "provider": "nobody"}',
    b"\xff\xfe",
]


async def test_a_body_that_cannot_be_understood_is_refused(world) -> None:
    for body in MALFORMED:
        answer = await world.http.post(
            "/api/k8s/clusters/add", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest"), body
    assert world.registry.clusters == {}


async def test_a_body_nested_too_deep_is_refused_whatever_its_type(world) -> None:
    for kind in ("application/json", "text/plain"):
        answer = await world.http.post("/api/tokens", content=b"[" * 200_000, headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text


async def test_an_error_repeats_little_of_what_was_sent_and_no_value(world) -> None:
    body = {"name": "a", "kubeconfig": ["hunter2"], "x" * 100_000: 1}
    answer = await world.http.post("/api/k8s/clusters/add", json=body)
    assert answer.status_code == 400
    assert "hunter2" not in answer.text
    assert len(answer.content) < 5_000


async def test_a_body_over_the_limit_is_refused_by_its_declared_size(world) -> None:
    answer = await world.http.post("/api/k8s/clusters/add", content=b"x" * (9 * 1024 * 1024))
    assert (answer.status_code, answer.json()["reason"]) == (413, "RequestEntityTooLarge")


async def test_a_body_over_the_limit_is_refused_as_it_arrives_when_it_declares_no_size(world) -> None:
    async def pieces():
        for _ in range(9):
            yield b"x" * (1024 * 1024)

    answer = await world.http.post(
        "/api/k8s/clusters/add", content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


REQUEST = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def test_a_body_that_never_ends_is_given_up() -> None:
    async def silence():
        await asyncio.Event().wait()

    async def reads(scope, receive, send) -> None:
        await receive()

    with pytest.raises(Exception, match="408"):
        await Limits(reads, 100, body_deadline_s=0.05)(REQUEST, silence, None)


async def test_a_head_that_never_ends_is_cut(world) -> None:
    port = world.settings.gateway_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n")
    try:
        async with asyncio.timeout(20):
            while not reader.at_eof() and not reader._buffer:
                writer.write(b"X-Filler: " + b"x" * 8_000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
            answer = await reader.read()
    except ConnectionError:
        return
    finally:
        writer.close()
    assert answer.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (
            b"POST /api/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X-Filler: x\r\n",
        ),
        (b"POST /api/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n", b"x"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 9\r\n\r\n",
            b"x",
        ),
    ],
    ids=["trailers", "a refused body", "blank lines", "the body of a handshake"],
)
async def test_what_comes_without_a_request_and_never_ends_is_cut(
    world, monkeypatch: pytest.MonkeyPatch, head: bytes, rest: bytes
) -> None:
    """Nobody needs a token for it: else whoever can connect would hold connections for ever."""
    monkeypatch.setattr(protocol, "HEAD_DEADLINE_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.gateway_port)
    writer.write(head)
    reading = asyncio.ensure_future(reader.read())
    try:
        async with asyncio.timeout(20):
            while not reading.done():
                writer.write(rest)
                await writer.drain()
                await asyncio.sleep(0.02)
    except ConnectionError:
        return
    finally:
        reading.cancel()
        writer.close()


@pytest.mark.parametrize(
    "filler", [b"X-Filler: " + b"x" * 8_000 + b"\r\n", b"x" * 8_000], ids=["many", "one without an end"]
)
async def test_trailers_are_not_kept(world, filler: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.gateway_port)
    writer.write(b"POST /api/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    tracemalloc.start()
    try:
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                for _ in range(1000):
                    writer.write(filler)
                    await writer.drain()
                await reader.read()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        writer.close()
    assert most < 2_000_000


async def test_what_is_no_http_is_a_problem_document_all_the_same(world) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.gateway_port)
    writer.write(b"this is no request\r\n\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json" in answer
    assert b'"reason":"BadRequest"' in answer


async def test_an_ordinary_connection_serves_request_after_request(world) -> None:
    port = world.settings.gateway_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(20):
        for _ in range(20):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"x" * 8_000 + b"\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"ok"
    writer.close()


async def answered(app, scope=None) -> tuple[int, dict[str, str], bytes]:
    sent = []

    async def send(message) -> None:
        sent.append(message)

    await app({**REQUEST, **(scope or {})}, None, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


async def test_an_unexpected_error_shows_an_id_and_nothing_of_the_inside() -> None:
    async def broken(scope, receive, send) -> None:
        raise RuntimeError("password=hunter2")

    status, headers, body = await answered(Limits(Boundary(broken), 100))
    assert status == 500
    assert b"hunter2" not in body
    assert b"error_id" in body
    assert headers["x-content-type-options"] == "nosniff"


async def test_an_error_in_the_middle_of_an_answer_cuts_it() -> None:
    async def broken(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError):
        await answered(Boundary(broken))


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "9" * 5000, "x"])
async def test_a_content_length_that_is_no_number_is_refused(length: str) -> None:
    async def never(scope, receive, send) -> None:
        pytest.fail("the application was reached")

    headers = [(b"content-length", length.encode("latin-1"))]
    assert (await answered(Limits(never, 100), {"headers": headers}))[0] == 413


async def test_every_answer_has_the_security_headers(world) -> None:
    for answer in (
        await world.stranger.get("/api/k8s/clusters/list"),
        await world.http.get("/api/k8s/clusters/list"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_may_run_its_own_script_and_no_other(world, path: str) -> None:
    answer = await world.stranger.get(path)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    scripts = re.findall("<script>(.*?)</script>", answer.text, re.DOTALL)
    assert len(scripts) == answer.text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"""\son\w+=|style=|javascript:|innerHTML""", answer.text)


async def test_before_it_knows_the_clusters_it_says_so_instead_of_showing_none(world, settings) -> None:
    bus = await connect(settings, name="gateway")
    with pytest.raises(Unavailable, match="not known yet"):
        Roster(bus, Leases(bus)).select(ADMINISTRATOR, ())
    await bus.close()


@pytest.mark.parametrize("token", ["", "short", "ümlaut-in-the-admin-token", "with\nline-break-in-it"])
def test_a_gateway_without_a_real_token_does_not_start(token: str) -> None:
    with pytest.raises(Invalid) as refused:
        GatewaySettings(admin_token=SecretStr(token)).read_admin_token()
    assert "KUBELORE_ADMIN_TOKEN" in (refused.value.remedy or "")
    assert not token or token not in refused.value.detail


def test_the_token_may_come_from_a_file(tmp_path) -> None:
    file = tmp_path / "token"
    with pytest.raises(Invalid, match="cannot be read"):
        GatewaySettings(admin_token_file=file).read_admin_token()
    file.write_text(f"{TOKEN}\n")
    assert GatewaySettings(admin_token_file=file).read_admin_token() == TOKEN
    assert TOKEN not in repr(GatewaySettings(admin_token=SecretStr(TOKEN)))
