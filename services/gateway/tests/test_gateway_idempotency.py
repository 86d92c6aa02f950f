"""A request that is sent again with its key is answered as the first one was, and not done again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.common.authz import Caller
from kubelore.common.crypto import Keyring
from kubelore.common.operations import operating
from kubelore.common.store import open_database
from kubelore.gateway.idempotency import MAX_KEPT_BYTES, Idempotency
from kubelore.gateway.repository import AttemptRepository
from kubelore.lab.waiting import wait_for
from kubelore.stack.ports import free_port

TOKEN = "a-token-for-tests-only"
BODY = {"name": "ci", "grants": [{"role": "viewer"}]}


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


async def documents(world, name: str) -> list[dict[str, Any]]:
    async with await open_database(world.settings) as database:
        return await database.collection(name).find()


async def test_a_retry_gets_the_answer_of_the_first_and_is_not_done_again(world) -> None:
    first = await world.http.post("/api/tokens", json=BODY, headers=key("k1"))
    again = await world.http.post("/api/tokens", json=BODY, headers=key("k1"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["operation-id"] == first.headers["operation-id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(await documents(world, "tokens")) == 1
    (kept,) = await documents(world, "attempts")
    secret = first.json()["token"]
    assert secret.encode() not in bytes(kept["sealed"])
    assert "k1" not in str(kept)
    assert len((await world.http.get("/api/tokens", headers=key("k1"))).json()["items"]) == 1


async def test_a_refusal_is_kept_too_and_so_is_an_answer_without_a_body(world) -> None:
    await world.registry.put("one")
    for _ in range(2):
        assert (await world.http.delete("/api/k8s/clusters/one", headers=key("gone"))).status_code == 204
        answer = await world.http.post("/api/tokens", json={"name": "x"}, headers=key("bad"))
        assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert (await world.http.delete("/api/k8s/clusters/one", headers=key("other"))).status_code == 404


async def test_a_key_is_good_for_one_request_only(world) -> None:
    assert (await world.http.post("/api/tokens", json=BODY, headers=key("k"))).status_code == 201
    others = [
        await world.http.post("/api/tokens", json={**BODY, "name": "cd"}, headers=key("k")),
        await world.http.post("/api/session", headers=key("k")),
        await world.http.delete("/api/tokens/0123456789abcdef", headers=key("k")),
        await world.http.post("/api/tokens?x=1", json=BODY, headers=key("k")),
    ]
    for answer in others:
        assert (answer.status_code, answer.json()["code"]) == (409, "IdempotencyKeyReused")
    assert len(await documents(world, "tokens")) == 1
    assert (await world.http.put("/api/tokens", headers=key("k"))).status_code == 405
    assert (await world.http.post("/api/nothing", headers=key("k"))).status_code == 404


async def test_a_key_belongs_to_its_caller(world) -> None:
    made = await world.token("deputy", role="admin")
    deputy = {"Authorization": f"Bearer {made['token']}"}
    mine = await world.http.post("/api/tokens", json=BODY, headers=key("k"))
    theirs = await world.stranger.post("/api/tokens", json=BODY, headers={**deputy, **key("k")})
    assert theirs.status_code == 201
    assert theirs.json()["id"] != mine.json()["id"]
    assert "idempotency-replayed" not in theirs.headers


async def test_of_many_at_once_one_is_done(world) -> None:
    answers = await asyncio.gather(
        *(world.http.post("/api/tokens", json=BODY, headers=key("race")) for _ in range(10))
    )
    assert len(await documents(world, "tokens")) == 1
    for answer in answers:
        assert answer.status_code == 201 or answer.json()["code"] == "OperationUnderWay"


async def test_a_retry_while_the_first_is_under_way_is_told_so(world) -> None:
    await world.registry.put("slow")
    world.registry.may_test.clear()
    first = asyncio.create_task(world.http.post("/api/k8s/clusters/slow/test", headers=key("k")))
    await wait_for(lambda: _true(world.registry.tested), "the test to begin")
    retry = await world.http.post("/api/k8s/clusters/slow/test", headers=key("k"))
    assert (retry.status_code, retry.json()["code"]) == (409, "OperationUnderWay")
    assert retry.headers["retry-after"]
    world.registry.may_test.set()
    answer = await first
    again = await world.http.post("/api/k8s/clusters/slow/test", headers=key("k"))
    assert again.content == answer.content
    assert world.registry.tested == [answer.headers["operation-id"]] == [retry.json()["operation_id"]]


async def _true(value: Any) -> bool:
    return bool(value)


async def test_what_became_of_a_first_request_that_died_is_not_known_and_it_is_not_done_again(world) -> None:
    await world.registry.put("slow")
    world.registry.may_test.clear()
    port = free_port()
    gateway = await _process(world, port)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=world.http.headers, timeout=30
        ) as doomed:
            await wait_for(lambda: _ready(doomed), "the other gateway", 30, ignoring=(httpx.TransportError,))
            first = asyncio.create_task(doomed.post("/api/k8s/clusters/slow/test", headers=key("k")))
            await wait_for(lambda: _true(world.registry.tested), "the test to begin", 20)
            gateway.send_signal(signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                await first
    finally:
        if gateway.returncode is None:
            gateway.kill()
        await gateway.wait()
        world.registry.may_test.set()

    async def unknown() -> Any:
        answer = await world.http.post("/api/k8s/clusters/slow/test", headers=key("k"))
        assert answer.status_code == 409
        return answer.json() if answer.json()["code"] == "OutcomeUnknown" else None

    problem = await wait_for(unknown, "the first request to be taken for dead", 40, every=0.5)
    assert problem["outcome"] == "unknown"
    assert world.registry.tested == [problem["operation_id"]]


async def _ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def _process(world, port: int) -> asyncio.subprocess.Process:
    settings = world.settings
    told = {
        "NATS_URL": settings.nats_url,
        "NATS_USER": settings.nats_user,
        "NATS_PASSWORD": settings.nats_password.get_secret_value(),
        "MONGO_URL": settings.mongo_url.get_secret_value(),
        "MONGO_DATABASE": settings.mongo_database,
        "BLOB_URL": settings.blob_url,
        "KEYRING_DIR": str(settings.keyring_dir),
        "GATEWAY_PORT": str(port),
        "ADMIN_TOKEN": TOKEN,
    }
    env = {**os.environ, **{f"KUBELORE_{name}": value for name, value in told.items()}}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "kubelore.gateway", env=env)


async def test_a_key_that_is_none_is_refused(world) -> None:
    for text in ("", "a b", "x" * 256, "ü".encode()):
        answer = await world.http.post("/api/tokens", json=BODY, headers={"Idempotency-Key": text})
        assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest"), text
    assert await documents(world, "tokens") == []


@pytest_asyncio.fixture(loop_scope="session")
async def attempts(settings):
    async with await open_database(settings) as database:
        repository = AttemptRepository(database)
        await repository.prepare()
        yield repository


async def ask(settings, attempts: AttemptRepository, app: Any) -> tuple[int, dict[str, str], bytes]:
    """One request with a key to an application behind the middleware."""
    sealer = Keyring.load(settings.keyring_dir / "gateway.json").sealer("answers")
    wrapped = Idempotency(app, attempts, sealer)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/x",
        "query_string": b"",
        "headers": [(b"idempotency-key", b"k")],
        "state": {"caller": Caller(subject="somebody", credential="token:1")},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with operating("0"):
        await wrapped(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def answering(status: int, *chunks: bytes, headers: dict[str, str] | None = None) -> Any:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    app.seen = seen  # type: ignore[attr-defined]
    return app


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (408, {}), (503, {"Retry-After": "1"})])
async def test_an_answer_that_says_come_again_leaves_the_key_free(
    settings, attempts, status, headers
) -> None:
    refusing = answering(status, b"later", headers=headers)
    for _ in range(2):
        assert (await ask(settings, attempts, refusing))[0] == status
    assert len(refusing.seen) == 2
    assert (await ask(settings, attempts, answering(200, b"done")))[2] == b"done"
    assert (await ask(settings, attempts, refusing))[2] == b"done"


async def test_a_long_answer_is_passed_on_and_a_retry_is_told_only_that_it_was_done(
    settings, attempts
) -> None:
    chunk = bytes(MAX_KEPT_BYTES // 3)
    app = answering(200, *[chunk] * 5)
    assert (await ask(settings, attempts, app))[2] == chunk * 5
    status, _, body = await ask(settings, attempts, app)
    assert (status, len(app.seen)) == (409, 1)
    assert b'"outcome":"done"' in body


async def test_a_request_that_fails_unexpectedly_is_not_done_again(settings, attempts) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("unexpected")

    with pytest.raises(RuntimeError):
        await ask(settings, attempts, failing)
    again = answering(200)
    status, _, body = await ask(settings, attempts, again)
    assert (status, again.seen) == (409, [])
    assert b'"outcome":"unknown"' in body
