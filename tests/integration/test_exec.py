"""Commands in containers of a real node, with kubectl's own results as the oracle."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX, DISTROLESS
from kubelore.lab.kubectl import kubectl_program
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

NAMESPACE = "exec-commands"
CLUSTER = "exec-node"
CONTAINERS = "/api/k8s/containers"


@dataclass
class Said:
    """How a command ended, and what it wrote."""

    code: int | None
    out: bytes
    err: bytes


@dataclass
class Box:
    """A pod with a shell (`box`) and one without (`bare`), reached by Kubelore and by kubectl."""

    kubelore: Any
    kubeconfig: str

    def path(self, pod: str = "box", container: str = "main") -> str:
        return f"{CONTAINERS}/{CLUSTER}:{NAMESPACE}:{pod}:{container}"

    async def post(self, command: list[str], *, pod: str = "box", **more: Any) -> httpx.Response:
        body = {"command": command, **more}
        return await self.kubelore.http.post(f"{self.path(pod)}/exec", json=body, timeout=120)

    async def run(self, command: list[str], **more: Any) -> Said:
        answer = await self.post(command, **more)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        out, err = told["stdout"], told["stderr"]
        if told["encoding"] == "base64":
            return Said(told["exit_code"], base64.b64decode(out), base64.b64decode(err))
        return Said(told["exit_code"], out.encode(), err.encode())

    async def kubectl(self, *arguments: str, stdin: bytes | None = None) -> Said:
        process = await asyncio.create_subprocess_exec(
            kubectl_program(),
            *("--kubeconfig", self.kubeconfig, "-n", NAMESPACE),
            *arguments,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            out, err = await process.communicate(stdin)
        return Said(process.returncode, out, err)

    async def processes(self) -> str:
        return (await self.run(["ps", "-o", "args"])).out.decode()


def pod(name: str, image: str) -> dict[str, Any]:
    container = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    labels = {"app": name}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def box(kubelore, lab_node: LabNode, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Box]:
    file = tmp_path_factory.mktemp("exec") / "kubeconfig"
    file.write_text(lab_node.plane.kubeconfig())
    made = Box(kubelore, str(file))
    await made.kubectl("create", "namespace", NAMESPACE)

    async def created() -> bool:
        pods = {"apiVersion": "v1", "kind": "List", "items": [pod("box", BUSYBOX), pod("bare", DISTROLESS)]}
        return (await made.kubectl("apply", "-f", "-", stdin=json.dumps(pods).encode())).code == 0

    await wait_for(created, "the pods can be created", 30)
    ready = await made.kubectl("wait", "--for=condition=Ready", "pod/box", "pod/bare", "--timeout=60s")
    assert ready.code == 0, ready.err
    await kubelore.onboard(CLUSTER, lab_node.plane.kubeconfig())
    yield made
    await kubelore.remove(CLUSTER)
    await made.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize("code", [0, 1, 2, 7, 42, 125, 126, 127, 128, 200, 254, 255])
async def test_every_exit_code_is_that_of_kubectl(box: Box, code: int) -> None:
    command = ["sh", "-c", f"exit {code}"]
    assert (await box.run(command)).code == (await box.kubectl("exec", "box", "--", *command)).code == code


@pytest.mark.parametrize("signal", ["HUP", "INT", "KILL", "SEGV", "TERM"])
async def test_a_command_that_a_signal_ends_exits_as_by_kubectl(box: Box, signal: str) -> None:
    command = ["sh", "-c", f"kill -{signal} $$"]
    ours, theirs = await box.run(command), await box.kubectl("exec", "box", "--", *command)
    assert ours.code == theirs.code
    assert ours.code != 0


async def test_words_and_bytes_arrive_as_they_are(box: Box) -> None:
    odd = "a  'b' \"c\" $HOME `id` * \\ \n ünï"
    assert (await box.run(["printf", "%s", odd])).out == odd.encode()
    every = bytes(range(256)) * 50
    said = await box.run(["cat"], stdin=base64.b64encode(every).decode(), stdin_encoding="base64")
    assert said.out == every


async def test_out_and_err_are_told_apart(box: Box) -> None:
    said = await box.run(["sh", "-c", "echo out; echo err >&2"])
    assert (said.out, said.err) == (b"out\n", b"err\n")


async def test_megabytes_of_input_arrive_whole_and_end(box: Box) -> None:
    data = random.Random(7).randbytes(5_000_011)
    said = await box.run(["sha256sum"], stdin=base64.b64encode(data).decode(), stdin_encoding="base64")
    assert said.out.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_output_over_the_limit_is_cut_and_said_to_be(box: Box) -> None:
    answer = (await box.post(["head", "-c", "100000", "/dev/zero"], output_bytes=1000)).json()
    assert answer["truncated"]
    assert len(answer["stdout"]) == 1000
    assert answer["exit_code"] == 0


async def test_a_command_over_its_time_is_stopped_with_all_that_it_started(box: Box) -> None:
    command = ["sh", "-c", "sleep 98761 & sleep 98762 & wait"]
    answer = (await box.post(command, timeout_s=1)).json()
    assert (answer["exit_code"], answer["timed_out"], answer["stopped"]) == (None, True, True)
    assert "sleep 9876" not in await box.processes()


async def test_only_the_one_of_two_equal_commands_is_stopped_whose_time_is_over(box: Box) -> None:
    longer = asyncio.create_task(box.post(["sleep", "4"], timeout_s=30))

    async def runs() -> bool:
        return "sleep 4" in await box.processes()

    await wait_for(runs, "the first to run", 10)
    shorter = (await box.post(["sleep", "4"], timeout_s=1)).json()
    assert shorter["timed_out"]
    assert (await longer).json()["exit_code"] == 0


async def test_a_command_ends_when_its_client_goes(box: Box) -> None:
    with pytest.raises(httpx.TimeoutException):
        await box.kubelore.http.post(f"{box.path()}/exec", json={"command": ["sleep", "54321"]}, timeout=2)

    async def stopped() -> bool:
        return "sleep 54321" not in await box.processes()

    async def told() -> bool:
        found = (await box.kubelore.http.get(f"{CONTAINERS}/operations", params={"text": "54321"})).json()
        ran = [one["status"] for one in found["items"] if one["command"] == ["sleep", "54321"]]
        return ran == ["cancelled"]

    await wait_for(stopped, "the command to be stopped", 15)
    await wait_for(told, "the history to say that it was cancelled", 5)


async def test_what_cannot_be_stopped_is_said_not_to_be(box: Box) -> None:
    answer = (await box.post(["/idle"], pod="bare", timeout_s=1)).json()
    assert (answer["timed_out"], answer["stopped"]) == (True, False)


async def test_a_program_that_is_not_there_is_named_with_a_way_out(box: Box) -> None:
    answer = await box.post(["ls"], pod="bare")
    assert (answer.status_code, answer.json()["code"]) == (422, "NoSuchProgram")
    assert "debug" in answer.json()["remedy"]


async def test_containers_and_pods_that_are_not_there_are_not_found(box: Box) -> None:
    missing = await box.kubelore.http.post(f"{box.path('nobody')}/exec", json={"command": ["true"]})
    assert missing.status_code == 404
    wrong = await box.kubelore.http.post(f"{box.path(container='other')}/exec", json={"command": ["true"]})
    assert wrong.status_code in (400, 404)


async def test_many_containers_each_have_their_own_result(box: Box) -> None:
    body = {"command": ["hostname"], "selection": {"clusters": [CLUSTER], "namespaces": [NAMESPACE]}}
    answer = await box.kubelore.http.post(f"{CONTAINERS}/exec", json=body, timeout=60)
    found = {one["container"].split(":")[2]: one for one in answer.json()["results"]}
    assert found["box"]["report"]["stdout"] == "box\n"
    assert found["bare"]["error"]["status"] == 422
    assert (answer.json()["succeeded"], answer.json()["failed"]) == (1, 1)


async def test_containers_named_twice_run_once(box: Box) -> None:
    id_ = f"{CLUSTER}:{NAMESPACE}:box:main"
    body = {"command": ["true"], "containers": [id_, id_]}
    answer = await box.kubelore.http.post(f"{CONTAINERS}/exec", json=body, timeout=60)
    assert len(answer.json()["results"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"command": ["true"]},
        {"command": ["true"], "containers": ["no id"]},
        {"command": [], "containers": ["a:b:c:d"]},
        {"command": ["a\u0000b"], "containers": ["a:b:c:d"]},
        {"command": ["true"], "selection": {"labels": "((("}},
    ],
    ids=["nowhere", "no-id", "no-command", "nul", "no-selector"],
)
async def test_what_cannot_be_meant_is_refused(box: Box, body: dict[str, Any]) -> None:
    assert (await box.kubelore.http.post(f"{CONTAINERS}/exec", json=body)).status_code == 400


async def test_a_revoked_token_ends_the_command_that_it_began(box: Box) -> None:
    grant = {"role": "operator", "rights": ["exec"], "clusters": [CLUSTER], "namespaces": [NAMESPACE]}
    async with box.kubelore.somebody("runner", **grant) as runner:
        running = asyncio.create_task(
            runner.http.post(f"{box.path()}/exec", json={"command": ["sleep", "33331"], "timeout_s": 50})
        )

        async def runs() -> bool:
            return "sleep 33331" in await box.processes()

        await wait_for(runs, "the command to run", 15)
        await box.kubelore.http.delete(f"/api/tokens/{runner.id}")
        async with asyncio.timeout(25):
            answer = await running
    assert answer.status_code in (401, 503), answer.text
    assert "sleep 33331" not in await box.processes()


async def test_a_policy_refuses_and_asks_for_reasons(box: Box) -> None:
    rule = {"clusters": [CLUSTER], "namespaces": [NAMESPACE], "commands": ["date"], "effect": "reason"}
    path = f"{CONTAINERS}/exec/policies"
    assert (await box.kubelore.http.post(path, json={"name": "dates", **rule})).status_code == 201
    try:
        refused = await box.post(["date"])
        assert (refused.status_code, refused.json()["code"]) == (422, "ReasonRequired")
        assert (await box.run(["date"], reason="what time is it")).code == 0
        assert (await box.kubelore.http.put(f"{path}/dates", json={**rule, "effect": "deny"})).is_success
        denied = await box.post(["date"], reason="what time is it")
        assert (denied.status_code, denied.json()["code"]) == (403, "ExecDenied")
    finally:
        assert (await box.kubelore.http.delete(f"{path}/dates")).is_success


async def test_a_debug_container_is_made_when_asked_for_and_used_again(box: Box) -> None:
    made = await box.kubelore.http.post(f"{box.path('bare')}/debug", json={}, timeout=90)
    assert made.status_code == 200, made.text
    again = await box.kubelore.http.post(f"{box.path('bare')}/debug", json={}, timeout=90)
    assert made.json() == again.json()
    listed = await box.post(["ls", made.json()["root"]], pod="bare", debug=True)
    assert "idle" in listed.json()["stdout"].split()


async def test_the_command_line_exits_and_speaks_as_kubectl_does(box: Box, command_line) -> None:
    cli = command_line(box.kubelore.url, box.kubelore.token)
    command = ["sh", "-c", "echo out; echo err >&2; exit 9"]
    ours = await cli("exec", "--cluster", CLUSTER, "-n", NAMESPACE, "box", "--", *command)
    theirs = await box.kubectl("exec", "box", "--", *command)
    assert (ours.code, ours.out) == (theirs.code, theirs.out.decode())
    assert ours.err == "err\n"
    listed = await cli("operations", "--cluster", CLUSTER, "--pod", "box", "--grep", "exit 9")
    assert "completed (9)" in listed.out
