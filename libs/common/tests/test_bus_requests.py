"""Requests and replies: answers of any size, errors whole, deadlines and limits on both sides."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from pydantic import SecretStr

from kubelore.common.bus import Bus, Service, connect
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    KubeconfigRefused,
    KubeloreError,
    TooManyRequests,
    Unavailable,
)
from kubelore.common.operations import current_operation, new_operation_id, operating
from kubelore.common.settings import CommonSettings
from kubelore.lab.wires import Wire
from kubelore.stack.servers import NatsServer


class Ask(msgspec.Struct):
    size: int = 0


class Answer(msgspec.Struct):
    data: bytes = b""


ECHO = Endpoint("echo", "echo", Ask, Answer, deadline_s=5.0, on_behalf=False)
MINE = Endpoint("echo", "mine", Ask, Answer, scope="replica", deadline_s=5.0, on_behalf=False)


@pytest.fixture
async def serving(bus: Bus):
    """Serve ECHO with a handler; stopped at the end."""
    started: list[Service] = []

    async def serve(handler: Callable[[Ask], Awaitable[Answer]], **limits: int) -> Service:
        service = Service(bus, "echo", "1.0.0")
        service.serve(ECHO, handler, **limits)
        service.serve(MINE, handler)
        await service.start()
        started.append(service)
        return service

    yield serve
    for service in started:
        await service.stop()


async def test_the_operation_under_way_travels_with_a_request_and_ends_with_it(bus: Bus, serving) -> None:
    seen: list[str] = []

    async def note(_: Ask) -> Answer:
        seen.append(current_operation())
        return Answer()

    await serving(note)
    operation = new_operation_id()
    with operating(operation):
        await bus.request(ECHO, Ask())
    await bus.request(ECHO, Ask())
    with operating("forged *.>"):
        await bus.request(ECHO, Ask())
    assert seen == [operation, "", ""]


async def sized(ask: Ask) -> Answer:
    return Answer(bytes(ask.size))


@pytest.mark.parametrize("size", [0, 5_000, 512 * 1024, 600 * 1024, 20 * 1024 * 1024])
async def test_an_answer_of_any_size_arrives_whole(bus: Bus, serving, size: int) -> None:
    await serving(sized)
    answer = await bus.request(ECHO, Ask(size))
    assert len(answer.data) == size


async def test_a_replica_is_asked_by_its_id(bus: Bus, serving, joining) -> None:
    await serving(sized)
    other = await joining("other-1")
    assert (await other.request(MINE, Ask(3), target=bus.replica)).data == bytes(3)
    with pytest.raises(Unavailable):
        await other.request(MINE, Ask(3), target="nobody")


@pytest.mark.parametrize(
    "raised",
    [
        Forbidden("no\nsecond line, ünïcode", remedy="ask an admin"),
        Conflict("changed", revision=7, causes=[{"field": "a"}]),
        KubeconfigRefused("exec", code="exec", remedy="inline it"),
    ],
)
async def test_an_error_raised_on_purpose_reaches_the_caller_whole(
    bus: Bus, serving, raised: KubeloreError
) -> None:
    async def refuse(_: Ask) -> Answer:
        raise raised

    await serving(refuse)
    with pytest.raises(type(raised)) as caught:
        await bus.request(ECHO, Ask())
    assert (caught.value.detail, caught.value.remedy) == (raised.detail, raised.remedy)
    assert caught.value.extra == raised.extra


async def test_an_unexpected_error_shows_an_id_and_nothing_of_the_inside(bus: Bus, serving) -> None:
    async def fail(_: Ask) -> Answer:
        raise ValueError("password=hunter2")

    await serving(fail)
    reply = await bus.ask(ECHO.subject(), msgspec.msgpack.encode(Ask()), deadline_s=2)
    assert reply.headers is not None
    assert reply.headers["Nats-Service-Error-Code"] == "500"
    assert b"hunter2" not in reply.data
    assert "hunter2" not in str(reply.headers)
    with pytest.raises(KubeloreError) as caught:
        await bus.request(ECHO, Ask())
    assert caught.value.extra["error_id"] in caught.value.detail


async def test_a_malformed_request_is_a_bad_request(bus: Bus, serving) -> None:
    await serving(sized)
    reply = await bus.ask(ECHO.subject(), b"\xc1", deadline_s=2)
    assert reply.headers is not None
    assert reply.headers["Nats-Service-Error-Code"] == "400"


async def test_a_request_nobody_waits_for_is_stopped_at_the_server(bus: Bus, serving) -> None:
    stopped = asyncio.Event()

    async def hang(_: Ask) -> Answer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return Answer()

    await serving(hang)
    with pytest.raises(DeadlineExceeded):
        await bus.request(ECHO, Ask(), deadline_s=0.2)
    async with asyncio.timeout(10):
        await stopped.wait()


async def test_beyond_its_queue_an_endpoint_refuses_at_once(bus: Bus, serving) -> None:
    release = asyncio.Event()
    running = 0
    most = 0

    async def slow(_: Ask) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return Answer()

    await serving(slow, max_concurrent=2, max_waiting=3)
    asked = [asyncio.create_task(bus.request(ECHO, Ask())) for _ in range(8)]
    done, _ = await asyncio.wait(asked, timeout=2, return_when=asyncio.ALL_COMPLETED)
    assert len(done) == 3
    assert all(isinstance(task.exception(), TooManyRequests) for task in done)
    release.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, Answer) for answer in answers) == 5
    assert most == 2


async def test_stopping_lets_running_requests_end(bus: Bus, serving) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Ask) -> Answer:
        started.set()
        await release.wait()
        return Answer(b"done")

    service = await serving(slow)
    asked = asyncio.create_task(bus.request(ECHO, Ask()))
    await started.wait()
    stopping = asyncio.create_task(service.stop())
    await asyncio.sleep(0)
    release.set()
    assert (await asked).data == b"done"
    await stopping
    with pytest.raises(Unavailable):
        await bus.request(ECHO, Ask())


async def test_a_service_is_found_by_adr_32(bus: Bus, serving) -> None:
    await serving(sized)
    await bus.request(ECHO, Ask())
    ping = json.loads((await bus.ask("$SRV.PING.echo", b"", deadline_s=2)).data)
    info = json.loads((await bus.ask("$SRV.INFO.echo", b"", deadline_s=2)).data)
    stats = json.loads((await bus.ask("$SRV.STATS.echo", b"", deadline_s=2)).data)
    assert (ping["name"], ping["version"]) == ("echo", "1.0.0")
    assert {endpoint["subject"] for endpoint in info["endpoints"]} == {
        "kubelore.v1.echo.echo",
        f"kubelore.v1.echo.{bus.replica}.mine",
    }
    assert stats["endpoints"][0]["data"]["served"] == 1


async def test_without_a_server_a_request_fails_at_once_and_works_again_after_it_is_back(
    bus: Bus, serving, bus_server, eventually
) -> None:
    await serving(sized)
    await bus_server.kill()
    with pytest.raises(Unavailable):
        await bus.request(ECHO, Ask(), deadline_s=2)
    await bus_server.start()
    await eventually(lambda: bus.connected)
    assert (await bus.request(ECHO, Ask(9))).data == bytes(9)


async def test_a_frozen_server_costs_each_caller_its_deadline_and_no_memory(
    bus: Bus, serving, bus_server, eventually
) -> None:
    await serving(sized)
    os.kill(bus_server.pid, signal.SIGSTOP)
    try:
        # Each fills the queue to the server a little more, until the next ones are refused.
        asked = [
            asyncio.create_task(bus.ask("kubelore.v1.nobody", bytes(2**20), deadline_s=1)) for _ in range(60)
        ]
        done, late = await asyncio.wait(asked, timeout=5)
        assert not late
        assert all(isinstance(task.exception(), Unavailable | DeadlineExceeded) for task in done)
        assert bus.client.pending_data_size < 25 * 2**20
        hanging = asyncio.create_task(bus.send("kubelore.v1.nobody", b"x"))
        await asyncio.sleep(0)
        hanging.cancel()
        done, _ = await asyncio.wait({hanging}, timeout=1)
        assert done
    finally:
        os.kill(bus_server.pid, signal.SIGCONT)

    async def answers() -> bool:
        try:
            return len((await bus.request(ECHO, Ask(9))).data) == 9
        except Unavailable:
            return False

    await eventually(answers, 30)


class SlowAfterPing(Wire):
    """A way to NATS on which a PING is answered well before what was said after it gets through."""

    async def asks(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry what the client says, line by line."""
        while line := await source.readline():
            target.write(line)
            if line == b"PING\r\n":
                await asyncio.sleep(0.1)


async def test_a_service_that_has_started_is_heard_by_whoever_asks_at_once(
    joining, bus_server: NatsServer
) -> None:
    asking = await joining()
    async with SlowAfterPing(bus_server.port) as wire:
        settings = CommonSettings(
            nats_url=f"nats://127.0.0.1:{wire.port}",
            nats_user=bus_server.user,
            nats_password=SecretStr(bus_server.password),
        )
        slow = await connect(settings, name="echo")
        service = Service(slow, "echo", "1.0.0")
        service.serve(ECHO, sized)
        await service.start()
        assert (await asking.request(ECHO, Ask(3))).data == bytes(3)
        await service.stop()
        await slow.close()
