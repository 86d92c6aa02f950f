"""Files in containers: one contract for kubesim's sandbox, GNU, busybox, an image without tar and one without a shell."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.files import MAX_CONTENT, ChangeFile, FileInfo
from kubelore.common.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    TooLarge,
    Unsupported,
)
from kubelore.common.kube import AddressPolicy, KubeClient, decode_meta, read_kubeconfig
from kubelore.common.kube.resource_type import NAMESPACES, PODS
from kubelore.common.reach import Reached
from kubelore.container_ops.debugging import debug_container
from kubelore.container_ops.file_changes import change_file, check_change
from kubelore.container_ops.file_content import read_content, write_content
from kubelore.container_ops.file_listing import list_files, stat_file
from kubelore.container_ops.file_paths import path_bytes, path_text
from kubelore.container_ops.toolbox import Toolbox, Toolboxes
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX, DISTROLESS, GNU, NOTAR
from kubelore.lab.waiting import wait_for

POLICY = AddressPolicy(allow_private=True)
NAMESPACE = "files-contract"
IMAGES = {"gnu": GNU, "busybox": BUSYBOX, "notar": NOTAR, "bare": DISTROLESS, "nobody": GNU}

AWKWARD = [
    b"a b",
    b"new\nline",
    b"-rf",
    b"it's",
    b'q"q',
    b"$HOME; id `id`",
    b"*",
    b"a -> b",
    "\u202eö".encode(),
]
FOREIGN = [b"bad\xff", b"\xfe \\n\\0101"]


@dataclass
class Container:
    """A container whose files are worked on, and a directory of the test's own in it."""

    reached: Reached
    box: Toolbox
    home: bytes
    awkward: list[bytes]

    async def change(self, action: Any, path: bytes, **more: Any) -> FileInfo:
        wanted = ChangeFile(container="", path=path_text(path), action=action, **more)
        check_change(wanted)
        return await change_file(self.reached, self.box, wanted)

    async def list(
        self, path: bytes, after: bytes = b"", limit: int = 500
    ) -> tuple[list[FileInfo], bytes, int]:
        page = await list_files(self.reached, self.box, path, after, limit)
        items, following = page.finished()
        return items, following, page.total

    async def write(self, path: bytes, content: bytes, expected: str = "", mode: str = "0640") -> FileInfo:
        id_ = uuid.uuid4().hex
        written, sha256 = await write_content(
            self.reached, self.box, path, content, expected=expected, mode=mode, operation_id=id_
        )
        assert sha256 == hashlib.sha256(content).hexdigest()
        return written

    async def read(self, path: bytes) -> bytes:
        _, content, sha256 = await read_content(self.reached, self.box, path)
        assert sha256 == hashlib.sha256(content).hexdigest()
        return content

    async def run(self, *words: bytes | str) -> bytes:
        ran = await self.box.run(self.reached, words)
        assert ran.code == 0, ran
        return ran.out


class FilesContract:
    """Inherited by each kind of container, which brings the fixture `container`."""

    async def test_a_written_file_is_read_back_whole(self, container: Container) -> None:
        content = bytes(range(256)) * 40 + b"\r\n//\n"
        info = await container.write(container.home + b"/file", content)
        assert (info.type, info.size, info.mode) == ("file", len(content), "0640")
        assert await container.read(container.home + b"/file") == content

    async def test_an_empty_file_is_written_and_read(self, container: Container) -> None:
        await container.write(container.home + b"/empty", b"")
        assert await container.read(container.home + b"/empty") == b""

    async def test_the_largest_file_is_edited_and_a_larger_one_is_not(self, container: Container) -> None:
        path = container.home + b"/large"
        content = bytes(range(256)) * (MAX_CONTENT // 256)
        await container.write(path, content)
        assert await container.read(path) == content
        await container.run("sh", "-c", 'echo more >> "$1"', "sh", path)
        with pytest.raises(TooLarge, match=str(MAX_CONTENT + 5)):
            await container.read(path)

    async def test_replacing_keeps_mode_and_owner(self, container: Container) -> None:
        path = container.home + b"/kept"
        await container.write(path, b"one")
        await container.change("chmod", path, mode="4751")
        with suppress(Forbidden):
            await container.change("chown", path, owner="1234:4321")
        before = await stat_file(container.reached, container.box, path)
        await container.change("chmod", path, mode="4751")
        after = await container.write(path, b"two", hashlib.sha256(b"one").hexdigest())
        assert (after.mode, after.uid, after.gid) == ("4751", before.uid, before.gid)
        assert await container.read(path) == b"two"

    async def test_a_file_that_changed_meanwhile_is_left_alone(self, container: Container) -> None:
        path = container.home + b"/raced"
        await container.write(path, b"theirs")
        with pytest.raises(Conflict, match="changed meanwhile"):
            await container.write(path, b"mine", hashlib.sha256(b"ours").hexdigest())
        with pytest.raises(AlreadyExists):
            await container.write(path, b"mine")
        assert await container.read(path) == b"theirs"
        await container.write(path, b"mine", "*")
        assert await container.read(path) == b"mine"
        names = [item.name for item in (await container.list(container.home))[0]]
        assert not [name for name in names if name.startswith(".kubelore")]

    async def test_a_file_that_is_gone_is_not_made_again(self, container: Container) -> None:
        with pytest.raises(Conflict, match="not there any more"):
            await container.write(container.home + b"/gone", b"x", hashlib.sha256(b"").hexdigest())

    async def test_awkward_names_survive_everything(self, container: Container) -> None:
        place = container.home + b"/awkward"
        await container.change("mkdir", place, mode="0755")
        for name in container.awkward:
            await container.write(place + b"/" + name, name)
        items, _, total = await container.list(place)
        assert total == len(container.awkward)
        assert [path_bytes(item.path) for item in items] == sorted(
            place + b"/" + n for n in container.awkward
        )
        for name in container.awkward:
            assert await container.read(place + b"/" + name) == name
            assert (await container.change("chmod", place + b"/" + name, mode="0600")).mode == "0600"
            moved = await container.change("rename", place + b"/" + name, to=path_text(place + b"/2" + name))
            assert path_bytes(moved.path) == place + b"/2" + name
            await container.change("delete", place + b"/2" + name)
        assert (await container.list(place))[2] == 0

    async def test_a_large_directory_comes_in_pages_without_loss_or_repetition(
        self, container: Container
    ) -> None:
        place = container.home + b"/many"
        await container.change("mkdir", place, mode="0755")
        names = [b"f%04d" % number for number in range(700)]
        for start in range(0, len(names), 100):
            await container.run("touch", *(place + b"/" + name for name in names[start : start + 100]))
        found: list[str] = []
        after = b""
        while True:
            items, after, total = await container.list(place, after, 300)
            assert total == len(names)
            found += [item.name for item in items]
            if not after:
                break
        assert found == [name.decode() for name in names]

    async def test_modes_are_set_and_shown(self, container: Container) -> None:
        path = container.home + b"/modes"
        await container.write(path, b"")
        assert (await container.change("chmod", path, mode="0604")).mode == "0604"
        assert (await container.change("chmod", path, mode="u+x,o-r")).mode == "0700"
        assert (await container.change("chmod", path, mode="-x")).mode == "0600"

    async def test_a_whole_tree_is_made_changed_and_deleted(self, container: Container) -> None:
        top = container.home + b"/tree"
        await container.change("mkdir", top + b"/a/b", mode="0755", recursive=True)
        await container.write(top + b"/a/b/file", b"x")
        await container.change("chmod", top, mode="0700", recursive=True)
        assert (await stat_file(container.reached, container.box, top + b"/a/b/file")).mode == "0700"
        with pytest.raises(Conflict, match="not empty"):
            await container.change("delete", top)
        was = await container.change("delete", top, recursive=True)
        assert was.type == "directory"
        with pytest.raises(NotFound):
            await stat_file(container.reached, container.box, top)

    async def test_rename_takes_no_name_that_is_there(self, container: Container) -> None:
        one, two, place = (container.home + name for name in (b"/one", b"/two", b"/place"))
        await container.write(one, b"1")
        await container.write(two, b"2")
        await container.change("mkdir", place, mode="0755")
        for to in (two, place):
            with pytest.raises(AlreadyExists):
                await container.change("rename", one, to=path_text(to))
        with pytest.raises(AlreadyExists):
            await container.change("rename", one, to=path_text(place), overwrite=True)
        await container.change("rename", one, to=path_text(two), overwrite=True)
        assert await container.read(two) == b"1"

    async def test_what_is_not_there_is_not_found(self, container: Container) -> None:
        path = container.home + b"/nothing"
        for work in (
            container.list(path),
            container.read(path),
            container.change("chmod", path, mode="0600"),
            container.change("chown", path, owner="0"),
            container.change("rename", path, to=path_text(path + b"2")),
            container.change("delete", path),
            container.change("mkdir", path + b"/below", mode="0755"),
            container.write(path + b"/below", b""),
        ):
            with pytest.raises(NotFound):
                await work

    async def test_what_is_no_regular_file_has_no_content(self, container: Container) -> None:
        with pytest.raises(Invalid, match="no regular file"):
            await container.read(container.home)
        with pytest.raises(Invalid, match="no regular file"):
            await container.write(container.home, b"", "*")

    async def test_a_file_is_listed_as_itself(self, container: Container) -> None:
        path = container.home + b"/alone"
        await container.write(path, b"x")
        items, _, total = await container.list(path)
        assert ([path_bytes(item.path) for item in items], total) == ([path], 1)
        with pytest.raises(AlreadyExists):
            await container.change("mkdir", path, mode="0755")

    async def test_the_root_directory_is_listed_and_kept(self, container: Container) -> None:
        items, _, _ = await container.list(b"/")
        assert "/tmp" in [item.path for item in items]
        with pytest.raises(Invalid, match="root directory"):
            await container.change("delete", b"/tmp/..", recursive=True)

    async def test_a_user_that_is_not_there_is_named(self, container: Container) -> None:
        path = container.home + b"/owned"
        await container.write(path, b"")
        with pytest.raises((Invalid, Forbidden)):
            await container.change("chown", path, owner="nosuchuser")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def simulated() -> AsyncIterator[tuple[Reached, ContainerId]]:
    async with (
        SimulatedFleet(clusters=1, pods=3) as fleet,
        KubeClient(read_kubeconfig(fleet[0].kubeconfig, None, POLICY), POLICY) as client,
    ):
        pod = next(iter((await client.list(PODS)).items))
        meta = decode_meta(pod)
        name = json.loads(pod)["spec"]["containers"][0]["name"]
        yield Reached(client, 1), ContainerId("sim", meta.namespace, meta.name, name)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def real(lab_node: LabNode) -> AsyncIterator[Reached]:
    async with KubeClient(read_kubeconfig(lab_node.plane.kubeconfig(), None, POLICY), POLICY) as client:
        with suppress(AlreadyExists):
            await client.create(NAMESPACES, None, json.dumps({"metadata": {"name": NAMESPACE}}).encode())
        await _start(client, "box", IMAGES, {})
        yield Reached(client, 1)
        await client.delete(NAMESPACES, None, NAMESPACE)


async def _start(client: KubeClient, name: str, images: dict[str, str], more: dict[str, Any]) -> None:
    """A pod with a container of each image."""
    containers: list[dict[str, Any]] = [
        {"name": one, "image": image, "imagePullPolicy": "Never"} for one, image in images.items()
    ]
    for one in containers:
        if one["name"] == "nobody":
            one["securityContext"] = {"runAsUser": 65534}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1, **more},
    }

    async def created() -> bool:
        """The namespace's default service account comes a moment after the namespace."""
        try:
            await client.create(PODS, NAMESPACE, json.dumps(pod).encode())
        except KubeloreError as error:
            return isinstance(error, AlreadyExists)
        return True

    async def running() -> bool:
        statuses = json.loads(await client.get(PODS, NAMESPACE, name))["status"].get("containerStatuses", [])
        return len(statuses) == len(images) and all(one["ready"] for one in statuses)

    await wait_for(created, "the pod can be created", 20)
    await wait_for(running, "the pod runs", 60)


def _no_debugging(*_: Any) -> Any:
    raise AssertionError("a debug container was made, and nobody asked for one")


async def _open(
    reached: Reached, target: ContainerId, home: bytes, awkward: Sequence[bytes], *, debug: bool = False
) -> Container:
    async def debugging(reached: Reached, target: ContainerId) -> ContainerId:
        return await debug_container(reached, target, BUSYBOX)

    boxes = Toolboxes(debugging if debug else _no_debugging)
    box = await boxes.of(reached, target, debug=debug)
    container = Container(reached, box, home, list(awkward))
    with suppress(NotFound):
        await container.change("delete", home, recursive=True)
    await container.change("mkdir", home, mode="0755")
    return container


class TestKubesim(FilesContract):
    @pytest.fixture
    async def container(self, simulated: tuple[Reached, ContainerId]) -> Container:
        return await _open(*simulated, b"/tmp/test", AWKWARD)


@pytest.mark.lab
@pytest.mark.node
class TestRealContainers(FilesContract):
    @pytest.fixture(params=[*IMAGES])
    async def container(self, real: Reached, request: pytest.FixtureRequest) -> Container:
        target = ContainerId("lab", NAMESPACE, "box", request.param)
        home = b"/tmp/test it's"
        return await _open(real, target, home, [*AWKWARD, *FOREIGN], debug=request.param == "bare")


@pytest.mark.lab
@pytest.mark.node
class TestImages:
    """What is told of images, and what only a real one shows."""

    async def test_what_a_container_has_is_found(self, real: Reached) -> None:
        found = {
            name: await Toolboxes(_no_debugging).of(real, ContainerId("lab", NAMESPACE, "box", name))
            for name in ("gnu", "busybox", "notar")
        }
        assert {name: box.flavour for name, box in found.items()} == {
            "gnu": "gnu",
            "busybox": "busybox",
            "notar": "gnu",
        }
        assert [name for name, box in found.items() if "tar" not in box.tools] == ["notar"]

    async def test_a_container_without_a_shell_is_told_and_no_debug_container_made(
        self, real: Reached
    ) -> None:
        with pytest.raises(Unsupported, match="no shell") as refused:
            await Toolboxes(_no_debugging).of(real, ContainerId("lab", NAMESPACE, "box", "bare"))
        assert "debug" in (refused.value.remedy or "")

    @pytest.mark.parametrize("shared", [{"shareProcessNamespace": True}, {"hostPID": True}], ids=str)
    async def test_a_container_that_shares_its_processes_is_not_looked_into_by_number(
        self, real: Reached, shared: dict[str, bool]
    ) -> None:
        """With the node's processes number 1 would be the node's, and its root directory the node's."""
        name = f"shared-{len(next(iter(shared)))}"
        await _start(real.client, name, {"bare": DISTROLESS}, shared)
        with pytest.raises(Unsupported, match="shares its processes"):
            await Toolboxes(_no_debugging).of(real, ContainerId("lab", NAMESPACE, name, "bare"), debug=True)

    @pytest.mark.parametrize("name", ["gnu", "bare"])
    async def test_links_lead_where_they_lead_for_the_container(self, real: Reached, name: str) -> None:
        target = ContainerId("lab", NAMESPACE, "box", name)
        container = await _open(real, target, b"/tmp/links", [], debug=True)
        await container.write(b"/tmp/links/real", name.encode())
        await container.run("ln", "-s", "/tmp/links/real", "/tmp/links/link")
        (link, _), _, _ = await container.list(b"/tmp/links")
        assert (link.type, link.target) == ("link", "/tmp/links/real")
        expected = hashlib.sha256(name.encode()).hexdigest()
        replaced = await container.write(b"/tmp/links/link", b"new", expected)
        assert replaced.path == "/tmp/links/real"
        assert (await stat_file(real, container.box, b"/tmp/links/link")).type == "link"

    async def test_what_the_containers_user_may_not_do_is_forbidden(self, real: Reached) -> None:
        container = await _open(real, ContainerId("lab", NAMESPACE, "box", "nobody"), b"/tmp/mine", [])
        with pytest.raises(Forbidden):
            await container.write(b"/etc/new", b"")
        with pytest.raises(Forbidden):
            await container.change("chown", b"/tmp/mine", owner="root")

    async def test_a_file_mounted_by_itself_is_not_replaced(self, real: Reached) -> None:
        container = await _open(real, ContainerId("lab", NAMESPACE, "box", "busybox"), b"/tmp/mounts", [])
        with pytest.raises(Conflict, match="busy"):
            await container.write(b"/etc/hosts", b"127.0.0.1 localhost\n", "*")
        assert b"localhost" in await container.read(b"/etc/hosts")

    async def test_a_fifo_is_not_waited_for(self, real: Reached) -> None:
        container = await _open(real, ContainerId("lab", NAMESPACE, "box", "busybox"), b"/tmp/fifos", [])
        await container.run("mkfifo", "/tmp/fifos/one")
        async with asyncio.timeout(10):
            with pytest.raises(Invalid, match="no regular file"):
                await container.read(b"/tmp/fifos/one")

    async def test_a_recursive_chown_does_not_follow_links_out_of_the_tree(self, real: Reached) -> None:
        for name in ("gnu", "busybox"):
            container = await _open(real, ContainerId("lab", NAMESPACE, "box", name), b"/tmp/out", [])
            await container.change("mkdir", b"/tmp/out/tree", mode="0755")
            await container.write(b"/tmp/out/victim", b"")
            await container.run("ln", "-s", "../victim", "/tmp/out/tree/link")
            await container.change("chown", b"/tmp/out/tree", owner="1234", recursive=True)
            assert (await stat_file(real, container.box, b"/tmp/out/victim")).uid == 0
            assert (await stat_file(real, container.box, b"/tmp/out/tree/link")).uid == 1234
