"""Commands and logs: what the client relies on, held against kubesim's sandbox and a real kubelet alike."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio

from kubelore.common.errors import AlreadyExists, BadRequest, KubeloreError, NotFound
from kubelore.common.kube import AddressPolicy, Channel, ExecStream, KubeClient, decode_meta, read_kubeconfig
from kubelore.common.kube.resource_type import NAMESPACES, PODS
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX
from kubelore.lab.waiting import wait_for

POLICY = AddressPolicy(allow_private=True)
NAMESPACE = "kube-containers-contract"


@dataclass
class Shell:
    """A running container with a shell, where `/tmp` may be written."""

    client: KubeClient
    namespace: str
    pod: str
    container: str

    async def start(self, *command: str, stdin: bool = False) -> ExecStream:
        return await self.client.exec(self.namespace, self.pod, self.container, list(command), stdin=stdin)

    async def run(self, *command: str) -> tuple[int | None, bytes, bytes]:
        async with asyncio.timeout(20), await self.start(*command) as stream:
            output = {Channel.STDOUT: b"", Channel.STDERR: b""}
            async for channel, data in stream:
                output[channel] += data
            return stream.exit_code, output[Channel.STDOUT], output[Channel.STDERR]


class ContainersContract:
    """Inherited by each kind of cluster, which brings the fixture `shell`."""

    async def test_output_and_exit_code(self, shell: Shell) -> None:
        assert await shell.run("echo", "a  b") == (0, b"a  b\n", b"")
        assert (await shell.run("sh", "-c", "exit 7"))[0] == 7

    async def test_errors_come_on_their_own_channel(self, shell: Shell) -> None:
        code, out, err = await shell.run("cat", "/nothing-here")
        assert code not in (0, None)
        assert out == b""
        assert b"nothing-here" in err

    async def test_words_are_not_read_by_a_shell(self, shell: Shell) -> None:
        assert await shell.run("echo", "$HOME; id `id` 'x") == (0, b"$HOME; id `id` 'x\n", b"")

    async def test_input_arrives_whole_and_ends(self, shell: Shell) -> None:
        data = random.Random(3).randbytes(1_000_003)
        async with asyncio.timeout(60), await shell.start("sha256sum", stdin=True) as stream:
            assert stream.protocol == "v5.channel.k8s.io"
            await stream.send(data)
            await stream.close_stdin()
            output = b"".join([part async for _, part in stream])
        assert output.split()[0].decode() == hashlib.sha256(data).hexdigest()
        assert stream.exit_code == 0

    async def test_output_arrives_whole(self, shell: Shell) -> None:
        data = random.Random(4).randbytes(700_001)
        async with asyncio.timeout(60), await shell.start("cat", stdin=True) as stream:
            sending = asyncio.create_task(stream.send(data))
            received = bytearray()
            async for _, part in stream:
                received += part
                if len(received) == len(data):
                    await sending
                    await stream.close_stdin()
        assert bytes(received) == data

    async def test_what_is_not_there_is_named(self, shell: Shell) -> None:
        with pytest.raises(NotFound):
            await shell.client.exec(shell.namespace, "no-such-pod", None, ["true"])
        with pytest.raises(BadRequest):
            await shell.client.exec(shell.namespace, shell.pod, "no-such-container", ["true"])
        with pytest.raises(NotFound):
            await anext(shell.client.logs(shell.namespace, "no-such-pod"))
        with pytest.raises(BadRequest):
            await anext(shell.client.logs(shell.namespace, shell.pod, "no-such-container"))

    async def test_a_command_that_does_not_exist_is_no_success(self, shell: Shell) -> None:
        try:
            code, _, _ = await shell.run("no-such-command")
        except KubeloreError as error:
            assert "no-such-command" in error.detail  # noqa: PT017 - an API server may do either
        else:
            assert code in (126, 127)

    async def test_logs_can_be_cut_to_their_end(self, shell: Shell) -> None:
        async def read(tail: int | None) -> list[bytes]:
            logs = shell.client.logs(shell.namespace, shell.pod, shell.container, tail=tail)
            return b"".join([chunk async for chunk in logs]).splitlines()

        whole = await read(None)
        assert whole
        assert (await read(1)) == (await read(None))[-1:]

    async def test_following_a_log_can_be_left(self, shell: Shell) -> None:
        logs = shell.client.logs(shell.namespace, shell.pod, shell.container, follow=True)
        async with asyncio.timeout(20), aclosing(logs) as chunks:
            assert await anext(chunks)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def simulated_shell() -> AsyncIterator[Shell]:
    async with (
        SimulatedFleet(clusters=1, pods=3) as fleet,
        KubeClient(read_kubeconfig(fleet[0].kubeconfig, None, POLICY), POLICY) as client,
    ):
        pod = next(iter((await client.list(PODS)).items))
        meta = decode_meta(pod)
        container = json.loads(pod)["spec"]["containers"][0]["name"]
        yield Shell(client, meta.namespace, meta.name, container)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def real_shell(lab_node: LabNode) -> AsyncIterator[Shell]:
    kubeconfig = lab_node.plane.kubeconfig()
    async with KubeClient(read_kubeconfig(kubeconfig, None, POLICY), POLICY) as client:
        with suppress(AlreadyExists):
            await client.create(NAMESPACES, None, json.dumps({"metadata": {"name": NAMESPACE}}).encode())
        container = {
            "name": "shell",
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo first; echo second; exec sleep 3600"],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "box"},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
        }

        async def running() -> bool:
            now = json.loads(await client.get(PODS, NAMESPACE, "box"))
            return all(each.get("ready") for each in now["status"].get("containerStatuses", [{}]))

        async def created() -> bool:
            """The namespace's default service account comes a moment after the namespace."""
            with suppress(KubeloreError):
                await client.create(PODS, NAMESPACE, json.dumps(pod).encode())
                return True
            return False

        await wait_for(created, "the pod can be created", 20)
        await wait_for(running, "the pod runs", 60)
        yield Shell(client, NAMESPACE, "box", "shell")
        await client.delete(NAMESPACES, None, NAMESPACE)


class TestKubesim(ContainersContract):
    @pytest.fixture
    def shell(self, simulated_shell: Shell) -> Shell:
        return simulated_shell


@pytest.mark.lab
@pytest.mark.node
class TestRealKubelet(ContainersContract):
    @pytest.fixture
    def shell(self, real_shell: Shell) -> Shell:
        return real_shell
