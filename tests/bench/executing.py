"""One command in a container, to its end: what a client waits for, beside `kubectl exec`."""

from __future__ import annotations

import asyncio

from tests.bench.figures import Reach, Row, seconds
from tests.bench.http_client import Connection, measure
from tests.bench.kubectl import Fleet
from tests.bench.real_node import CLUSTER, RealNode, box, real_node
from tests.bench.watching import with_lab
from tests.bench.world import World, connect

SHARE = 0.5
"""Of the time of `kubectl exec` that it may take."""
_WORK = "one-shot exec of `true` in a container of a real node"
_REACH = Reach(f"{SHARE:g} of kubectl's p50", (SHARE,))
_KUBECTL_RUNS = 15


def execute(world: World) -> list[Row]:
    """The same container, one after the other, over one kept connection."""
    return with_lab(lambda: _on_the_node(world), _WORK, _REACH)


async def _on_the_node(world: World) -> list[Row]:
    async with real_node(world.folder / "executing", world.stack, [box("box")]) as node:
        return await asyncio.to_thread(_rows, world, node)


def _rows(world: World, node: RealNode) -> list[Row]:
    connection = connect(world.stack)
    try:
        mine = measure(lambda: _run(connection, node), world.size)
    finally:
        connection.close()
    rival = Fleet([node.kubeconfig], world.folder)
    command = ("exec", "-n", node.namespace, "box", "--", "true")
    runs = _KUBECTL_RUNS if world.size.targets else 3
    that = rival.one(node.kubeconfig, *command, runs=runs)
    met = _REACH.met_by(mine.p50 / that) if world.size.targets else None
    row = Row(_WORK, str(mine), _REACH.text, met)
    return [row.with_rival("`kubectl exec POD -- true`", seconds(that), that / mine.p50)]


def _run(connection: Connection, node: RealNode) -> None:
    path = f"/api/k8s/containers/{CLUSTER}:{node.namespace}:box:main/exec"
    status, said = connection.send("POST", path, {"command": ["true"]})
    assert status == 200, said
