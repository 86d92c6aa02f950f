"""Terminals: what a key takes until it is shown, and what 200 of them open at once cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from tests.bench.figures import Latency, Reach, Row, megabytes, seconds
from tests.bench.real_node import CLUSTER, RealNode, box, real_node
from tests.bench.stack import Stack
from tests.bench.watching import with_lab
from tests.bench.world import World

from kubelore.common.kube import AddressPolicy, KubeClient, read_kubeconfig
from kubelore.common.kube.exec import ExecStream

MORE_S = 0.005
"""A key may take so much longer than straight to the API server."""
AT_ONCE = 200
MOST_BYTES = 300e6
LATE_S = 0.050
PROTOCOL = "v5.channel.k8s.io"
_KEYS = 100
_RUNS = 5
_TOGETHER = 10
_ECHO = "a key until it is shown, in a terminal on a real node (p50)"
_MANY = f"a key in one of {AT_ONCE} terminals that are open at once (p50 / p99)"
_MEMORY = f"container-ops and gateway more with {AT_ONCE} terminals open"
_WITHIN_S = 20.0


def type_keys(world: World) -> list[Row]:
    """Keys one after the other in a `cat` at a terminal, whose kernel echoes them; both ways in turns."""
    return with_lab(lambda: _on_the_node(world), _ECHO, Reach(f"direct + {seconds(MORE_S)}", (MORE_S,)))


async def _on_the_node(world: World) -> list[Row]:
    pods = [box("box", "sleep", "9999")]
    async with real_node(world.folder / "terminals", world.stack, pods) as node:
        return [await _echo(world, node), *await _many(world, node)]


async def _echo(world: World, node: RealNode) -> Row:
    async with AsyncExitStack() as open_:
        direct = await open_.enter_async_context(_direct(node))
        mine = await open_.enter_async_context(_terminal(world.stack, node))
        keys, runs = (_KEYS, _RUNS) if world.size.targets else (10, 1)
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        for _ in range(runs):
            ours.append([await mine.key() for _ in range(keys)])
            theirs.append([await direct.key() for _ in range(keys)])
    us, them = Latency.of(ours), Latency.of(theirs)
    reach = Reach(f"direct + {seconds(MORE_S)}", (MORE_S,))
    met = reach.met_by(us.p50 - them.p50) if world.size.targets else None
    row = Row(_ECHO, str(us), reach.text, met)
    return row.with_rival("exec over a WebSocket to the API server", str(them), them.p50 / us.p50)


async def _many(world: World, node: RealNode) -> list[Row]:
    count = AT_ONCE if world.size.targets else 10
    before = _memory(world.stack)
    async with AsyncExitStack() as open_:
        terminals: list[_Terminal] = []
        for _ in range(0, count, _TOGETHER):
            opening = (open_.enter_async_context(_terminal(world.stack, node)) for _ in range(_TOGETHER))
            terminals += await asyncio.gather(*opening)
        took = [[await terminal.key() for terminal in terminals] for _ in range(3)]
        grown = _memory(world.stack) - before
    latency = Latency.of(took)
    late, most = Reach(f"p99 {seconds(LATE_S)}", (LATE_S,)), Reach(megabytes(MOST_BYTES), (MOST_BYTES,))
    met = (late.met_by(latency.p99), most.met_by(grown)) if world.size.targets else (None, None)
    return [
        Row(_MANY, str(latency), late.text, met[0]),
        Row(_MEMORY, megabytes(grown), most.text, met[1]),
    ]


def _memory(stack: Stack) -> int:
    used = stack.memory()
    return used["container-ops"] + used["gateway"]


class _Terminal:
    """Something that shows what is typed, key by key."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def key(self) -> float:
        """Seconds until a key is shown."""
        begun = time.perf_counter()
        await self._socket.send_bytes(b"\x00x")
        async with asyncio.timeout(_WITHIN_S):
            while (message := await self._socket.receive()).data[:1] != b"\x01":
                assert message.type is aiohttp.WSMsgType.BINARY, message
        return time.perf_counter() - begun


@asynccontextmanager
async def _terminal(stack: Stack, node: RealNode) -> AsyncIterator[_Terminal]:
    path = f"/api/k8s/containers/{CLUSTER}:{node.namespace}:box:main/exec/ws"
    query = {"command": "cat", "tty": "true", "stdin": "true"}
    headers = {"Authorization": f"Bearer {stack.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(stack.url + path, params=query, protocols=(PROTOCOL,)) as socket,
    ):
        yield _Terminal(socket)


class _Direct:
    """The same straight to the API server, by the client that Kubelore itself uses."""

    def __init__(self, stream: ExecStream) -> None:
        self._stream = stream
        self._shown = aiter(stream)

    async def key(self) -> float:
        """Seconds until a key is shown."""
        begun = time.perf_counter()
        await self._stream.send(b"x")
        async with asyncio.timeout(_WITHIN_S):
            await anext(self._shown)
        return time.perf_counter() - begun


@asynccontextmanager
async def _direct(node: RealNode) -> AsyncIterator[_Direct]:
    policy = AddressPolicy(allow_private=True)
    client = KubeClient(read_kubeconfig(node.kubeconfig.read_text(), None, policy), policy)
    try:
        async with await client.exec(node.namespace, "box", "main", ["cat"], stdin=True, tty=True) as stream:
            yield _Direct(stream)
    finally:
        await client.close()
