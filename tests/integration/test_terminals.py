"""Terminals on a real node, through the door: any client of v5.channel.k8s.io, and what Kubelore adds to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kubelore.lab.fixtures import LabNode
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CLUSTER = "terminals"
NAMESPACE = "term-tests"
LARGE = 20 * 1024 * 1024


@dataclass
class Seen:
    """What came over a socket until it ended."""

    out: bytes = b""
    err: bytes = b""
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> int:
        if self.status["status"] == "Success":
            return 0
        return int(self.status["details"]["causes"][0]["message"])


@dataclass
class Door:
    """The API, and a pod with a shell and one without."""

    kubelore: Any
    http: aiohttp.ClientSession

    def path(self, pod: str = "box") -> str:
        return f"/api/k8s/containers/{CLUSTER}:{NAMESPACE}:{pod}:"

    async def open(self, pod: str = "box", **body: Any) -> dict[str, Any]:
        async with self.http.post(f"{self.path(pod)}/exec/terminal", json=body) as answer:
            assert answer.status == 201, await answer.text()
            return await answer.json()

    async def socket(self, *query: tuple[str, str], token: str = "", pod: str = "box") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.ws_connect(
            f"{self.path(pod)}/exec/ws", params=list(query), protocols=(PROTOCOL,), headers=headers
        )

    async def attach(self, terminal: dict[str, Any], **query: str) -> Any:
        return await self.socket(("session", terminal["session_id"]), *query.items())

    async def refused(self, *query: tuple[str, str], pod: str = "box") -> tuple[int, dict[str, Any]]:
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
            "Sec-WebSocket-Protocol": PROTOCOL,
        }
        url = f"{self.path(pod)}/exec/ws"
        async with self.http.get(url, params=list(query), headers=headers) as answer:
            return answer.status, await answer.json()

    async def operation(self, id_: str) -> dict[str, Any]:
        async with self.http.get(f"/api/k8s/containers/operations/{id_}") as answer:
            return await answer.json()


def command(*words: str, **options: str) -> list[tuple[str, str]]:
    return [*(("command", word) for word in words), *options.items()]


async def until(socket: Any, text: bytes) -> bytes:
    """What is shown, up to a text."""
    shown = b""
    async with asyncio.timeout(20):
        while text not in shown:
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, (message, shown)
            if message.data[0] in (STDOUT, STDERR):
                shown += message.data[1:]
    return shown


async def to_end(socket: Any) -> Seen:
    seen = Seen()
    out: list[bytes] = []
    async with asyncio.timeout(60):
        async for message in socket:
            channel, payload = message.data[0], message.data[1:]
            if channel == STDOUT:
                out.append(payload)
            elif channel == STDERR:
                seen.err += payload
            elif channel == STATUS:
                seen.status = json.loads(payload)
    seen.out = b"".join(out)
    return seen


async def types(socket: Any, text: str) -> None:
    await socket.send_bytes(bytes([STDIN]) + text.encode())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(kubelore, lab_node: LabNode) -> AsyncIterator[Door]:
    kubectl = lab_node.plane.kubectl()
    await kubectl("create", "namespace", NAMESPACE)
    for pod, image, words in (("box", "busybox", ["--", "sleep", "9999"]), ("bare", "distroless", [])):
        image = f"kubelore.local/{image}:1"
        await kubectl("-n", NAMESPACE, "run", pod, f"--image={image}", "--image-pull-policy=Never", *words)
    await kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
    await kubelore.onboard(CLUSTER, lab_node.plane.kubeconfig())
    headers = {"Authorization": f"Bearer {kubelore.token}"}
    async with aiohttp.ClientSession(kubelore.url, headers=headers) as http:
        yield Door(kubelore, http)
    await kubelore.remove(CLUSTER)
    await kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize("code", [0, 1, 77, 137, 255])
async def test_a_command_ends_with_its_own_exit_code_and_both_its_streams(door: Door, code: int) -> None:
    words = ("sh", "-c", f"echo out; echo err >&2; exit {code}")
    seen = await to_end(await door.socket(*command(*words)))
    assert (seen.out, seen.err, seen.code) == (b"out\n", b"err\n", code)


async def test_megabytes_of_any_bytes_come_back_as_they_were_sent(door: Door) -> None:
    data = random.Random(5).randbytes(LARGE)
    socket = await door.socket(*command("cat", stdin="true"))

    async def feed() -> None:
        for start in range(0, len(data), 500_000):
            await socket.send_bytes(bytes([STDIN]) + data[start : start + 500_000])
        await socket.send_bytes(bytes([CLOSE, STDIN]))

    feeding = asyncio.create_task(feed())
    seen = await to_end(socket)
    await feeding
    assert seen.code == 0
    assert hashlib.sha256(seen.out).digest() == hashlib.sha256(data).digest()


async def test_a_terminal_has_a_shell_and_the_size_it_is_given(door: Door) -> None:
    terminal = await door.open(columns=91, rows=17)
    socket = await door.attach(terminal)
    await types(socket, "stty size\n")
    await until(socket, b"17 91")
    await socket.send_bytes(bytes([RESIZE]) + b'{"Width": 120, "Height": 40}')
    await types(socket, "stty size; exit 9\n")
    assert b"40 120" in (seen := await to_end(socket)).out
    assert seen.code == 9


async def test_ctrl_c_reaches_what_runs(door: Door) -> None:
    socket = await door.attach(await door.open())
    await types(socket, "sh -c 'echo sta''rt; exec sleep 1000'\n")
    await until(socket, b"start")
    await types(socket, "\x03")
    await until(socket, b"^C")
    await types(socket, "echo al''ive; exit\n")
    assert b"alive" in (await to_end(socket)).out


async def test_a_lost_connection_is_attached_to_again_with_what_was_shown(door: Door) -> None:
    terminal = await door.open()
    socket = await door.attach(terminal)
    await types(socket, "echo be''fore\n")
    await until(socket, b"before")
    await socket.close(code=4000)
    again = await door.attach(terminal)
    assert b"before" in await until(again, b"before")
    await types(again, "echo af''ter; exit 4\n")
    seen = await to_end(again)
    assert b"after" in seen.out
    assert seen.code == 4


@pytest.mark.parametrize("commands", [[], ["bash"]], ids=["everything", "one of the shells"])
async def test_what_a_policy_denies_meanwhile_is_not_attached_to_again(
    door: Door, commands: list[str]
) -> None:
    terminal = await door.open()
    socket = await door.attach(terminal)
    await socket.close(code=4000)
    policies = "/api/k8s/containers/exec/policies"
    rule = {"effect": "deny", "clusters": [CLUSTER], "namespaces": [NAMESPACE], "subjects": ["*"]}
    async with door.http.post(policies, json={"name": "no-more", **rule, "commands": commands}) as answer:
        assert answer.status == 201, await answer.text()
    try:
        status, problem = await door.refused(("session", terminal["session_id"]))
    finally:
        async with door.http.delete(f"{policies}/no-more") as answer:
            assert answer.ok, await answer.text()
    assert (status, problem["code"]) == (403, "ExecDenied")


async def test_who_closes_normally_hangs_up(door: Door) -> None:
    terminal = await door.open()
    socket = await door.attach(terminal)
    await until(socket, b"# ")
    await socket.close()

    async def ended() -> bool:
        return (await door.operation(terminal["operation_id"]))["status"] == "cancelled"

    await wait_for(ended, "the operation to be over", 10)
    status, problem = await door.refused(("session", terminal["session_id"]))
    assert (status, problem["reason"]) == (404, "NotFound")


async def test_whoever_watches_sees_the_same_and_types_nothing(door: Door) -> None:
    terminal = await door.open()
    typing, watching = await door.attach(terminal), await door.attach(terminal, watch="true")
    await types(watching, "echo ma''licious\n")
    await types(typing, "echo sha''red; exit\n")
    shown = [(await to_end(one)).out for one in (typing, watching)]
    assert all(b"shared" in one and b"malicious" not in one for one in shown)


async def test_a_second_connection_takes_the_terminal_over_and_the_first_is_told(door: Door) -> None:
    terminal = await door.open()
    first = await door.attach(terminal)
    second = await door.attach(terminal)
    seen = await to_end(first)
    assert "attached to from elsewhere" in seen.status["message"]
    await types(second, "exit\n")
    assert (await to_end(second)).code == 0


async def test_a_paste_of_megabytes_arrives_whole(door: Door) -> None:
    socket = await door.attach(
        await door.open(command=["sh", "-c", "stty raw -echo; echo ready; head -c 3000000 | sha256sum"])
    )
    # Before, the terminal takes lines, and of one this long only the beginning.
    await until(socket, b"ready")
    text = b"0123456789abcdef" * 187_500
    for start in range(0, len(text), 1_000_000):
        await socket.send_bytes(bytes([STDIN]) + text[start : start + 1_000_000])
    seen = await to_end(socket)
    assert hashlib.sha256(text).hexdigest().encode() in seen.out


async def test_an_image_without_a_shell_is_told_with_the_offer_of_a_debug_container(door: Door) -> None:
    async with door.http.post(f"{door.path('bare')}/exec/terminal", json={}) as answer:
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (422, "NoShell")
    assert "debug" in problem["remedy"]


async def test_a_token_that_is_revoked_ends_its_terminal_within_ten_seconds(door: Door) -> None:
    grant = {"role": "operator", "rights": ["exec"], "clusters": [CLUSTER], "namespaces": [NAMESPACE]}
    async with door.kubelore.somebody("short-lived", **grant) as somebody:
        socket = await door.socket(*command("sh", tty="true", stdin="true"), token=somebody.token)
        await until(socket, b"# ")
    async with asyncio.timeout(11):
        await to_end(socket)
    assert socket.close_code == 1008


async def test_the_right_to_read_is_no_right_to_exec(door: Door) -> None:
    async with door.kubelore.somebody("reader", role="admin") as reader:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await door.socket(*command("id"), token=reader.token)
    assert refusal.value.status == 403


async def test_what_runs_is_ended_with_its_terminal(door: Door) -> None:
    terminal = await door.open(command=["sh", "-c", "echo re''ady; exec sleep 98765"])
    socket = await door.attach(terminal)
    await until(socket, b"ready")
    await socket.close(code=1000)

    async def gone() -> bool:
        query = command("sh", "-c", "ps | grep -c '[s]leep 98765'; true")
        return (await to_end(await door.socket(*query))).out.strip() == b"0"

    await wait_for(gone, "the command to be ended", 30)


async def test_a_recording_plays_what_was_shown_and_not_what_was_typed_unseen(door: Door) -> None:
    terminal = await door.open()
    socket = await door.attach(terminal)
    await types(socket, "stty -echo; echo re''ady\n")
    await until(socket, b"ready")
    await types(socket, "read secret\n")
    await types(socket, "open sesame\n")
    await types(socket, "echo 'schön'; exit 3\n")
    await to_end(socket)
    path = f"/api/k8s/containers/operations/{terminal['operation_id']}/recording"

    async def ended() -> bool:
        return (await door.operation(terminal["operation_id"]))["status"] == "completed"

    await wait_for(ended, "the operation to be over", 10)
    async with door.http.get(path) as answer:
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert answer.headers["Recording-Whole"] == "true"
    assert (lines[0]["version"], lines[0]["width"], lines[0]["height"]) == (2, 80, 24)
    shown = "".join(text for _, code, text in lines[1:] if code == "o")
    assert "schön" in shown
    assert "sesame" not in shown
    operation = await door.operation(terminal["operation_id"])
    assert operation["result"]["exit_code"] == 3
    assert operation["session_id"] == terminal["session_id"]


async def test_a_session_of_another_pod_opens_nothing_under_this_ones_name(door: Door) -> None:
    terminal = await door.open()
    status, _ = await door.refused(("session", terminal["session_id"]), pod="bare")
    assert status == 404


async def test_what_is_no_session_is_said_to_be_none(door: Door) -> None:
    for session, status in (("x", 400), ("container-ops-0." + "0" * 32, 404), ("*." + "0" * 32, 400)):
        assert (await door.refused(("session", session)))[0] == status
