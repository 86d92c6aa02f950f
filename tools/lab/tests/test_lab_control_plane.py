"""A control plane is a real one, and can be hurt like one."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kubelore.lab.cluster import ControlPlane
from kubelore.lab.fixtures import LabPair
from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab


async def test_kubectl_creates_and_lists_in_one_cluster_and_not_in_the_other(lab_pair: LabPair) -> None:
    first, second = lab_pair.first.kubectl(), lab_pair.second.kubectl()

    await first("create", "namespace", "only-in-the-first")

    assert "only-in-the-first" in await first("get", "namespaces", "-o", "name")
    assert "only-in-the-first" not in await second("get", "namespaces", "-o", "name")


async def test_a_killed_api_server_keeps_its_objects(lab_pair: LabPair) -> None:
    plane, kubectl = lab_pair.first, lab_pair.first.kubectl()
    await kubectl("create", "configmap", "survivor", "--from-literal=a=1")
    before = plane.pid("apiserver")

    await plane.kill("apiserver")
    refused = await kubectl.run("get", "configmap", "survivor")
    await plane.restart("apiserver")

    assert refused.code != 0
    assert plane.pid("apiserver") not in (before, None)
    assert "survivor" in await kubectl("get", "configmaps", "-o", "name")


async def test_a_killed_etcd_comes_back_with_its_objects(lab_pair: LabPair) -> None:
    plane, kubectl = lab_pair.second, lab_pair.second.kubectl()
    await kubectl("create", "configmap", "kept-by-etcd", "--from-literal=a=1")

    await plane.kill("etcd")
    refused = await kubectl.run("create", "configmap", "lost", "--from-literal=a=1", "--request-timeout=2s")
    await plane.restart("etcd")

    assert refused.code != 0
    assert "kept-by-etcd" in await kubectl("get", "configmaps", "-o", "name")


async def test_a_watch_may_begin_with_the_list(lab_pair: LabPair) -> None:
    path = (
        "/api/v1/namespaces?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        "&allowWatchBookmarks=true&timeoutSeconds=2"
    )

    events = [
        json.loads(line) for line in (await lab_pair.second.kubectl()("get", "--raw", path)).splitlines()
    ]

    end = next(event["object"] for event in events if event["type"] == "BOOKMARK")
    assert end["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert "default" in [event["object"]["metadata"].get("name") for event in events]


async def test_expired_history_answers_gone_to_a_watch_from_before(lab_pair: LabPair) -> None:
    plane, kubectl = lab_pair.first, lab_pair.first.kubectl()
    listed = json.loads(await kubectl("get", "configmaps", "-A", "-o", "json"))
    await kubectl("create", "configmap", "later", "--from-literal=a=1")
    old = listed["metadata"].get("resourceVersion") or "1"

    await plane.expire_history()

    path = f"/api/v1/configmaps?watch=1&timeoutSeconds=5&resourceVersion={old}"
    event = json.loads((await kubectl("get", "--raw", path)).splitlines()[0])
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_a_paused_api_server_keeps_its_callers_waiting_until_it_resumes(lab_pair: LabPair) -> None:
    plane, kubectl = lab_pair.second, lab_pair.second.kubectl()
    plane.pause("apiserver")
    try:
        paused = await kubectl.run("get", "namespaces", "--request-timeout=1s")
    finally:
        plane.resume("apiserver")

    assert paused.code != 0
    assert "default" in await kubectl("get", "namespaces")


async def test_a_certificate_user_may_do_only_what_a_binding_says(lab_pair: LabPair, tmp_path: Path) -> None:
    plane, kubectl = lab_pair.first, lab_pair.first.kubectl()
    kubeconfig = tmp_path / "alice"
    kubeconfig.write_text(plane.kubeconfig("alice"))
    as_alice = ["--kubeconfig", str(kubeconfig), "get"]

    before = await kubectl.run(*as_alice, "configmaps")
    await kubectl("create", "rolebinding", "alice", "--clusterrole=view", "--user=alice")

    assert "forbidden" in before.stderr

    async def allowed() -> bool:
        return (await kubectl.run(*as_alice, "configmaps")).code == 0

    await wait_for(allowed, "alice to be allowed to read config maps", 10)
    assert "forbidden" in (await kubectl.run(*as_alice, "secrets")).stderr


async def test_a_service_account_is_known_by_its_token(lab_pair: LabPair, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "robot"
    kubeconfig.write_text(await lab_pair.first.service_account_kubeconfig("robot"))
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]

    answer = await lab_pair.first.kubectl()("--kubeconfig", str(kubeconfig), "auth", "whoami")

    assert list(user) == ["token"]
    assert "system:serviceaccount:default:robot" in answer


async def test_stop_leaves_no_process_and_start_finds_the_data_again(
    lab_or_skip: object, tmp_path: Path
) -> None:
    plane = ControlPlane(tmp_path / "plane")
    async with plane:
        pids = [plane.pid(c) for c in ("etcd", "apiserver", "controller-manager", "scheduler")]
        await plane.kubectl()("create", "namespace", "kept")

    assert None not in pids
    assert not any(_alive(pid) for pid in pids if pid)
    async with plane:
        assert "kept" in await plane.kubectl()("get", "namespaces", "-o", "name")


_OWNER = """
import asyncio, sys
from pathlib import Path
from kubelore.lab.cluster import ControlPlane, START_ORDER

async def main():
    plane = ControlPlane(Path(sys.argv[1]))
    await plane.start()
    print(*[plane.pid(component) for component in START_ORDER], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_programs_die_with_a_killed_owner(lab_or_skip: object, tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, str(tmp_path / "plane"), stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(90):
        pids = [int(pid) for pid in (await owner.stdout.readline()).split()]

    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()

    async def gone() -> bool:
        return not any(_alive(pid) for pid in pids)

    assert len(pids) == 4
    assert await wait_for(gone, "the programs of the killed owner to end", 10)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False
