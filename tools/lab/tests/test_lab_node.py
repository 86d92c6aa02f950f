"""A node is a real one: pods run on it, and nothing of it stays on the machine."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kubelore.lab import machine
from kubelore.lab.errors import LabError
from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX, DISTROLESS
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

_BOX = f"""
apiVersion: v1
kind: Pod
metadata: {{name: box}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: {BUSYBOX}
    command: [sh, -c, "echo hello from the pod; exec sleep 3600"]
  - name: bare
    image: {DISTROLESS}
"""


@pytest.fixture(scope="module")
async def box(lab_node: LabNode) -> str:
    """The name of a running pod with a container with a shell and one without."""
    kubectl = lab_node.plane.kubectl()
    await kubectl("apply", "-f", "-", stdin=_BOX)
    await kubectl("wait", "--for=condition=Ready", "pod/box", "--timeout=60s", seconds=70)
    return "box"


async def test_logs_of_a_container_are_readable(lab_node: LabNode, box: str) -> None:
    kubectl = lab_node.plane.kubectl()

    assert await kubectl("logs", box, "-c", "shell") == "hello from the pod\n"
    assert await kubectl("logs", box, "-c", "bare") == "idle: waiting\n"


async def test_exec_runs_in_the_container_with_its_input(lab_node: LabNode, box: str) -> None:
    kubectl = lab_node.plane.kubectl()

    answer = await kubectl("exec", "-i", box, "-c", "shell", "--", "sha256sum", stdin="kubelore")

    assert answer.split()[0] == hashlib.sha256(b"kubelore").hexdigest()


async def test_exec_of_a_shell_fails_where_the_image_has_none(lab_node: LabNode, box: str) -> None:
    answer = await lab_node.plane.kubectl().run("exec", box, "-c", "bare", "--", "sh", "-c", "true")

    assert answer.code != 0
    assert "not found" in answer.stderr


async def test_files_can_be_copied_into_a_pod_and_out(lab_node: LabNode, box: str, tmp_path: Path) -> None:
    kubectl, sent, received = lab_node.plane.kubectl(), tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(range(256)) * 4096)

    await kubectl("cp", str(sent), f"{box}:/data/file", "-c", "shell")
    await kubectl("cp", f"{box}:/data/file", str(received), "-c", "shell")

    assert received.read_bytes() == sent.read_bytes()


async def test_top_tells_usage_of_node_and_pod(lab_node: LabNode, box: str) -> None:
    kubectl = lab_node.plane.kubectl()
    await lab_node.node.wait_for_metrics()

    async def pod_figures() -> bool:
        return box in (await kubectl.run("top", "pod", "--no-headers")).stdout

    await wait_for(pod_figures, "the pod's usage", 60, 1)
    assert "Mi" in await kubectl("top", "node", lab_node.node.name)


async def test_a_pod_survives_a_killed_kubelet(lab_node: LabNode, box: str) -> None:
    kubectl, started = (
        lab_node.plane.kubectl(),
        "jsonpath={.status.containerStatuses[*].state.running.startedAt}",
    )
    before = await kubectl("get", "pod", box, "-o", started)

    await lab_node.node.kill("kubelet")
    with pytest.raises(LabError):
        await kubectl("exec", box, "-c", "shell", "--", "true")
    await lab_node.node.restart("kubelet")

    async def exec_works() -> bool:
        return (await kubectl.run("exec", box, "-c", "shell", "--", "true")).code == 0

    await wait_for(exec_works, "exec through the restarted kubelet", 30, 0.5)
    assert await kubectl("get", "pod", box, "-o", started) == before


_OWNER = """
import asyncio, sys
from pathlib import Path
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.node import Node

async def main():
    async with ControlPlane(Path(sys.argv[1])) as plane, Node(plane):
        kubectl = plane.kubectl()
        await kubectl("run", "orphan", "--image=kubelore.local/busybox:1", "--restart=Never")
        await kubectl("wait", "--for=condition=Ready", "pod/orphan", "--timeout=60s", seconds=70)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_is_left_after_stop_and_leftovers_of_a_killed_run_are_swept(
    lab_node: LabNode, tmp_path: Path
) -> None:
    await lab_node.node.stop()
    try:
        assert machine.leftovers() == []
        await _run_a_node_and_kill_its_owner(tmp_path)

        assert any(line.startswith("process") for line in machine.leftovers())
    finally:
        await lab_node.node.start()
    assert await lab_node.plane.kubectl()("get", "nodes", "-o", "name") == "node/lab-node\n"
    assert not _processes_in_pod("orphan")


async def _run_a_node_and_kill_its_owner(folder: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, str(folder / "plane"), stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(120):
        assert await owner.stdout.readline() == b"ready\n"
    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()


def _processes_in_pod(pod: str) -> list[str]:
    """Processes that still run in a container of a pod of that name, which is its host name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOSTNAME={pod}\0".encode() in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found
