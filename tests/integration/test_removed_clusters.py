"""What is open to a cluster ends with it: a removed cluster's terminals, commands and logs, on a real node."""

from __future__ import annotations

import asyncio

import pytest

from kubelore.lab.fixtures import LabNode

CLUSTER, NAMESPACE = "leaving", "leaving-tests"
COUNTING = "i=0; while true; do i=$((i+1)); echo line $i; sleep 1; done"


@pytest.mark.lab
@pytest.mark.node
async def test_commands_and_logs_of_a_removed_cluster_end_and_say_why(
    kubelore, lab_node: LabNode, command_line
) -> None:
    kubectl, cli = lab_node.plane.kubectl(), command_line(kubelore.url, kubelore.token)
    await kubectl("create", "namespace", NAMESPACE)
    await kubectl("-n", NAMESPACE, "run", "box", "--image=kubelore.local/busybox:1",
                  "--image-pull-policy=Never", "--", "sh", "-c", COUNTING)  # fmt: skip
    try:
        await kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/box", "--timeout=90s")
        await kubelore.onboard(CLUSTER, lab_node.plane.kubeconfig(), allow_duplicate=True)
        where = ("--cluster", CLUSTER, "-n", NAMESPACE)
        running = [
            await cli.start(
                "exec", "-i", "box", *where, "--", "sh", "-c", COUNTING, stdin=asyncio.subprocess.PIPE
            ),
            await cli.start("logs", "box", *where, "-f"),
        ]
        for one in running:
            assert one.stdout is not None
            async with asyncio.timeout(30):
                assert b"line" in await one.stdout.readline()
        await kubelore.remove(CLUSTER)
        for one in running:
            async with asyncio.timeout(15):
                _, err = await one.communicate()
            assert one.returncode != 0
            assert b"removed" in err or b"no cluster" in err, err
    finally:
        await kubelore.remove(CLUSTER)
        await kubectl("delete", "namespace", NAMESPACE, "--wait=false")
