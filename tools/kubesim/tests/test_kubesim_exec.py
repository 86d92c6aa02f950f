"""exec over WebSocket: channels, both protocols, terminals, and a sandbox that is not the host."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from kubelore.kubesim.sandbox import FileTree, SandboxError

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"


@pytest.fixture
async def path(client: Any) -> str:
    _, pods = await client.get("/api/v1/namespaces/team-02/pods?limit=1")
    return f"/api/v1/namespaces/team-02/pods/{pods['items'][0]['metadata']['name']}/exec"


def query(*command: str, **options: bool) -> str:
    parts = [f"command={quote(word)}" for word in command]
    parts += [
        f"{name}=true" for name, wanted in {"stdout": True, "stderr": True, **options}.items() if wanted
    ]
    return "?" + "&".join(parts)


async def finish(socket: aiohttp.ClientWebSocketResponse) -> tuple[dict[int, bytes], Any]:
    """What came on each channel, and the status from the error channel."""
    channels: dict[int, bytes] = {}
    async for message in socket:
        channels[message.data[0]] = channels.get(message.data[0], b"") + message.data[1:]
    return channels, json.loads(channels.pop(3))


@pytest.mark.parametrize("protocol", [V4, V5])
async def test_output_errors_and_status_have_their_channels(client: Any, path: str, protocol: str) -> None:
    async with client.exec(path + query("sh", "-c", "echo out; echo err >&2; exit 7"), protocol) as socket:
        assert socket.protocol == protocol
        channels, status = await finish(socket)
    assert channels[1] == b"out\nerr\n" or channels == {1: b"out\n", 2: b"err\n"}
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_v5_closes_stdin(client: Any, path: str) -> None:
    async with client.exec(path + query("cat", stdin=True), V5) as socket:
        await socket.send_bytes(b"\x00some ")
        await socket.send_bytes(b"\x00bytes")
        await socket.send_bytes(b"\xff\x00")
        channels, status = await finish(socket)
    assert channels[1] == b"some bytes"
    assert status["status"] == "Success"


async def test_tar_knows_its_end_without_a_closed_stdin(client: Any, path: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("hello.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    async with client.exec(path + query("tar", "xf", "-", "-C", "/tmp", stdin=True), V4) as socket:
        await socket.send_bytes(b"\x00" + buffer.getvalue())
        _, status = await finish(socket)
    assert status["status"] == "Success"
    async with client.exec(path + query("cat", "/tmp/hello.txt"), V4) as socket:
        assert (await finish(socket))[0][1] == b"hello"


async def test_a_terminal_echoes_prompts_and_knows_its_size(client: Any, path: str) -> None:
    async with client.exec(path + query("sh", stdin=True, tty=True), V5) as socket:
        await socket.send_bytes(b'\x04{"Width":120,"Height":40}')
        await socket.send_bytes(b"\x00stty size\r")
        await socket.send_bytes(b"\x00exit\r")
        channels, status = await finish(socket)
    assert channels[1] == b"/ # stty size\r\n40 120\r\n/ # exit\r\n"
    assert status["status"] == "Success"


async def test_a_script_that_becomes_a_shell_is_a_terminal_with_prompts(client: Any, path: str) -> None:
    script = "command -v bash >/dev/null 2>&1 && exec bash; exec sh"
    async with client.exec(path + query("sh", "-c", script, stdin=True, tty=True), V5) as socket:
        await socket.send_bytes(b"\x00exit 5\r")
        channels, status = await finish(socket)
    assert channels[1].startswith(b"/ # exit 5\r\n")
    assert status["details"]["causes"][0]["message"] == "5"


async def test_exec_ends_the_script_with_the_program_it_becomes(client: Any, path: str) -> None:
    script = "command -v bash >/dev/null && exec echo over; echo never"
    async with client.exec(path + query("sh", "-c", script), V5) as socket:
        channels, _ = await finish(socket)
    assert channels[1] == b"over\n"


async def test_endless_output_waits_for_its_reader(client: Any, path: str) -> None:
    async with client.exec(path + query("yes"), V5) as socket:
        for _ in range(50):
            message = await socket.receive(timeout=5)
            assert message.data[:3] == b"\x01y\n"
        await asyncio.wait_for(socket.close(), 5)


async def test_a_program_that_is_not_there_is_an_error(client: Any, path: str) -> None:
    async with client.exec(path + query("vim"), V5) as socket:
        _, status = await finish(socket)
    assert status["status"] == "Failure"
    assert "vim" in status["message"]


async def test_a_container_that_is_not_there_is_refused(client: Any, path: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.exec(path + query("ls") + "&container=none", V5)
    assert refused.value.status == 400


async def test_exec_without_an_upgrade_is_not_implemented(client: Any, path: str) -> None:
    assert (await client.get(path + query("ls")))[0] == 501


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("echo 'a b' | wc -c", "4\n"),
        ("false || echo no && echo yes", "no\nyes\n"),
        ("cd /app; pwd; X=1; echo $X ${X}2 '$X'", "/app\n1 12 $X\n"),
        ("echo one > /tmp/f; echo two >> /tmp/f; tail -n 1 /tmp/f; cat < /tmp/f", "two\none\ntwo\n"),
        ("mkdir -p /tmp/a/b && touch '/tmp/a/b/with space' && ls /tmp/a/b", "with space\n"),
        ("test -d /app && [ -e /none ] || echo $?", "1\n"),
        ("cat /none 2>/dev/null; cat /none 2>&1 | wc -l", "1\n"),
        ("seq 3 | head -n 2", "1\n2\n"),
    ],
)
async def test_the_shell(client: Any, path: str, script: str, output: str) -> None:
    async with client.exec(path + query("sh", "-c", script), V5) as socket:
        channels, _ = await finish(socket)
    assert channels.get(1, b"").decode() == output


async def test_the_host_is_out_of_reach(client: Any, path: str) -> None:
    for file in ("/etc/shadow", "../../../../etc/shadow", "/proc/self/environ"):
        async with client.exec(path + query("cat", file), V5) as socket:
            channels, status = await finish(socket)
        assert b"No such file or directory" in channels[2]
        assert status["status"] == "Failure"


def archive_of(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def test_links_and_ways_out_are_not_unpacked() -> None:
    link, outside = tarfile.TarInfo("link"), tarfile.TarInfo("../outside")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tree = FileTree({})
    assert tree.unpack(archive_of(link, outside, tarfile.TarInfo("fine")), "/tmp") == ["link", "../outside"]
    assert tree.children("/tmp") == ["/tmp/fine"]


def test_a_sandbox_is_bounded() -> None:
    tree = FileTree({})
    tree.write("/tmp/big", bytes(60_000_000))
    with pytest.raises(SandboxError, match="No space left"):
        tree.write("/tmp/more", bytes(10_000_000))
    tree.write("/tmp/big", b"small")
    tree.write("/tmp/more", bytes(10_000_000))
