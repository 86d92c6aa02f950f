"""The connection test tells apart what can be wrong, and says what to do about each."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from kubelore.common.contracts.clusters import ConnectionTest, TestStep
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient

STEPS = ["dns", "tcp", "tls", "authentication", "authorization", "version"]


def healthy(**refuse: int) -> Any:
    """An API server that lets everything through but the reviews named, which answer with a status."""

    async def answer(request: web.Request) -> web.Response:
        last = request.path.rpartition("/")[2]
        if last in refuse:
            status = {"kind": "Status", "code": refuse[last], "message": "refused"}
            return web.json_response(status, status=refuse[last])
        if last == "selfsubjectreviews":
            return web.json_response({"status": {"userInfo": {"username": "alice"}}}, status=201)
        if last == "selfsubjectaccessreviews":
            return web.json_response({"status": {"allowed": True}}, status=201)
        return web.json_response({"gitVersion": "v1.34.4"})

    return answer


async def run(access: ClusterAccess, policy: AddressPolicy) -> ConnectionTest:
    async with KubeClient(access, policy) as client:
        return await client.test("prod")


def failed(result: ConnectionTest) -> TestStep:
    """The step that failed; those before it passed, those behind were not tried."""
    assert not result.ok
    assert [step.name for step in result.steps] == STEPS
    outcomes = [step.ok for step in result.steps]
    at = outcomes.index(False)
    assert outcomes == [True] * at + [False] + [None] * (len(STEPS) - at - 1)
    assert result.steps[at].remedy
    return result.steps[at]


async def test_a_healthy_cluster_passes_every_step(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(healthy())
    result = await run(api.access, lenient)
    assert result.ok, result.steps
    assert [step.ok for step in result.steps] == [True] * len(STEPS)
    assert result.version == "v1.34.4"
    assert result.latency_ms is not None
    assert "alice" in result.steps[3].detail


async def test_a_name_that_does_not_resolve(lenient: AddressPolicy) -> None:
    step = failed(await run(ClusterAccess(server="https://nothing.invalid", token="a"), lenient))
    assert step.name == "dns"
    assert "nothing.invalid" in step.detail


async def test_a_name_that_points_where_it_may_not(
    lenient: AddressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    step = failed(await run(ClusterAccess(server="https://api.example.com", token="a"), lenient))
    assert step.name == "dns"
    assert "metadata" in step.detail


async def test_a_port_where_nobody_listens(lenient: AddressPolicy) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    step = failed(await run(ClusterAccess(server=f"https://127.0.0.1:{port}", token="a"), lenient))
    assert step.name == "tcp"
    assert "refused" in step.detail


async def tls_failure(start_api: Any, lenient: AddressPolicy, identity: Any, **access: Any) -> TestStep:
    api = await start_api(healthy(), identity=identity)
    given = api.access
    for name, value in access.items():
        setattr(given, name, value)
    step = failed(await run(given, lenient))
    assert step.name == "tls"
    return step


async def test_an_expired_server_certificate(start_api: Any, authority: Any, lenient: AddressPolicy) -> None:
    step = await tls_failure(start_api, lenient, authority.issue(days=(-10, -2)))
    assert "expired" in step.detail


async def test_a_server_certificate_of_the_future(
    start_api: Any, authority: Any, lenient: AddressPolicy
) -> None:
    step = await tls_failure(start_api, lenient, authority.issue(days=(2, 10)))
    assert "not valid yet" in step.detail


async def test_a_certificate_for_another_name(start_api: Any, authority: Any, lenient: AddressPolicy) -> None:
    step = await tls_failure(start_api, lenient, authority.issue(names=("kubernetes",)))
    assert "another name" in step.detail
    assert "tls-server-name" in (step.remedy or "")


async def test_a_certificate_for_another_name_than_the_one_asked_for(
    start_api: Any, authority: Any, lenient: AddressPolicy
) -> None:
    identity = authority.issue(names=("kubernetes",))
    step = await tls_failure(start_api, lenient, identity, tls_server_name="other")
    assert "another name" in step.detail


async def test_tls_server_name_makes_such_a_certificate_good(
    start_api: Any, authority: Any, lenient: AddressPolicy
) -> None:
    api = await start_api(healthy(), identity=authority.issue(names=("kubernetes",)))
    access = api.access
    access.tls_server_name = "kubernetes"
    assert (await run(access, lenient)).ok


async def test_a_certificate_of_an_unknown_authority(
    start_api: Any, authority: Any, lenient: AddressPolicy
) -> None:
    stranger = type(authority)("stranger")
    step = await tls_failure(start_api, lenient, stranger.issue())
    assert "authority" in step.detail
    assert "certificate-authority-data" in (step.remedy or "")


async def test_something_that_speaks_no_tls(lenient: AddressPolicy) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        step = failed(await run(ClusterAccess(server=f"https://127.0.0.1:{port}", token="a"), lenient))
    assert step.name == "tls"


async def test_a_missing_client_certificate(start_api: Any, authority: Any, lenient: AddressPolicy) -> None:
    """In TLS 1.3 the refusal arrives behind the handshake, so it shows when we authenticate."""
    api = await start_api(healthy(), client_ca=authority.pem)
    assert failed(await run(api.access, lenient)).name == "authentication"


async def test_a_client_certificate_is_presented(
    start_api: Any, authority: Any, lenient: AddressPolicy
) -> None:
    api = await start_api(healthy(), client_ca=authority.pem)
    issued = authority.issue("alice")
    access = ClusterAccess(
        server=api.server, ca_pem=authority.pem, client_cert_pem=issued.certificate, client_key_pem=issued.key
    )
    result = await run(access, lenient)
    assert result.ok
    assert result.certificate_expires_at is not None


async def test_credentials_that_are_not_accepted(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(healthy(selfsubjectreviews=401))
    step = failed(await run(api.access, lenient))
    assert step.name == "authentication"
    assert "renew" in (step.remedy or "")


async def test_credentials_that_are_taken_for_nobodys(start_api: Any, lenient: AddressPolicy) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"status": {"userInfo": {"username": "system:anonymous"}}}, status=201)

    step = failed(await run((await start_api(answer)).access, lenient))
    assert step.name == "authentication"
    assert "anonymous" in step.detail


async def test_a_server_older_than_the_self_review_is_still_tested(
    start_api: Any, lenient: AddressPolicy
) -> None:
    result = await run((await start_api(healthy(selfsubjectreviews=404))).access, lenient)
    assert result.ok


async def test_a_server_that_never_answers(start_api: Any, lenient: AddressPolicy, monkeypatch: Any) -> None:
    from kubelore.common.kube import connection_test

    monkeypatch.setattr(connection_test, "STEP_TIMEOUT_S", 0.3)

    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    step = failed(await run((await start_api(never)).access, lenient))
    assert step.name == "authentication"
    assert "within" in step.detail


def limited(*readable: str) -> Any:
    """An API server whose user may list and watch only these plurals."""

    async def answer(request: web.Request) -> web.Response:
        last = request.path.rpartition("/")[2]
        if last == "selfsubjectreviews":
            return web.json_response({"status": {"userInfo": {"username": "alice"}}})
        if last == "selfsubjectaccessreviews":
            asked = (await request.json())["spec"]["resourceAttributes"]
            return web.json_response({"status": {"allowed": asked["resource"] in readable}})
        if last == "version":
            return web.json_response({"gitVersion": "v1.34.4"})
        if request.path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if request.path == "/apis":
            return web.json_response({"kind": "APIGroupList", "groups": []})
        verbs = ["list", "watch"]
        resources = [
            {"name": name, "kind": name, "namespaced": name != "nodes", "verbs": verbs}
            for name in ("pods", "secrets", "nodes")
        ]
        return web.json_response({"kind": "APIResourceList", "resources": resources})

    return answer


async def test_types_that_may_not_be_read_are_named(start_api: Any, lenient: AddressPolicy) -> None:
    result = await run((await start_api(limited("pods"))).access, lenient)
    assert result.ok
    assert result.skipped_types == ["nodes", "secrets"]
    assert "1 of 3" in result.steps[4].detail


async def test_a_user_who_may_read_nothing(start_api: Any, lenient: AddressPolicy) -> None:
    step = failed(await run((await start_api(limited())).access, lenient))
    assert step.name == "authorization"
    assert "clusterrolebinding" in (step.remedy or "")


async def test_something_that_is_no_api_server(start_api: Any, lenient: AddressPolicy) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="welcome to nginx")

    assert failed(await run((await start_api(answer)).access, lenient)).name == "authentication"


async def test_the_verbs_of_the_main_types_are_told(start_api: Any, lenient: AddressPolicy) -> None:
    everything = await run((await start_api(healthy())).access, lenient)
    assert everything.verbs == {"*": ["get", "list", "watch", "create", "patch", "delete"]}
    some = await run((await start_api(limited("pods"))).access, lenient)
    assert some.verbs == {
        "pods": ["get", "list", "watch", "create", "patch", "delete"],
        "secrets": [],
        "nodes": [],
    }


def in_namespaces(rules: dict[str, list[dict[str, list[str]]]]) -> Any:
    """An API server whose user has these rules in these namespaces, and none across the cluster."""
    across = limited()

    async def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("selfsubjectrulesreviews"):
            return await across(request)
        namespace = (await request.json())["spec"]["namespace"]
        return web.json_response({"status": {"resourceRules": rules.get(namespace, []), "incomplete": False}})

    return answer


def rule(verbs: list[str], *resources: str, **more: list[str]) -> dict[str, list[str]]:
    return {"verbs": verbs, "apiGroups": [""], "resources": list(resources), **more}


async def test_credentials_for_some_namespaces_are_judged_there(
    start_api: Any, lenient: AddressPolicy
) -> None:
    read = ["get", "list", "watch"]
    rules = {
        "shop": [rule(["*"], "pods"), rule(read, "secrets")],
        "cart": [rule(read, "pods", "pods/log"), rule(read, "secrets", resourceNames=["one"])],
    }
    api = await start_api(in_namespaces(rules))
    async with KubeClient(api.access, lenient) as client:
        result = await client.test("prod", ["shop", "cart"])
        assert result.ok, result.steps
        assert result.verbs == {"pods": read, "secrets": []}
        assert result.skipped_types == ["nodes", "secrets"]
        assert result.steps[4].detail == "may list and watch 1 of 3 types in shop, cart"
        step = failed(await client.test("prod", ["elsewhere"]))
    assert step.name == "authorization"
    assert "rolebinding" in (step.remedy or "")


async def test_days_left_are_counted_for_certificates_and_tokens_apart(
    start_api: Any, authority: Any, lenient: AddressPolicy
) -> None:
    api = await start_api(healthy(), client_ca=authority.pem)
    issued = authority.issue("alice", days=(-1, 20))
    now = datetime.now(UTC)
    claims = base64.urlsafe_b64encode(json.dumps({"exp": now.timestamp() + 86400 * 2.5}).encode()).decode()
    access = ClusterAccess(
        server=api.server,
        ca_pem=authority.pem,
        client_cert_pem=issued.certificate,
        client_key_pem=issued.key,
        token=f"e30.{claims.rstrip('=')}.x",
    )
    result = await run(access, lenient)
    assert (result.certificate_days_left, result.token_days_left) == (19, 2)
    assert "the credentials expire at" in result.steps[3].detail
