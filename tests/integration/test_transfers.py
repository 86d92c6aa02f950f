"""Files and trees into and out of containers of a real node; kubectl and the kernel are the oracle."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from kubelore.lab.fixtures import LabNode
from kubelore.lab.images import BUSYBOX, DISTROLESS, GNU, NOTAR
from kubelore.lab.kubectl import Kubectl
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

NAMESPACE = "cp-transfers"
CLUSTER = "copied"
IMAGES = {"busybox": BUSYBOX, "gnu": GNU, "notar": NOTAR, "bare": DISTROLESS}
WITH_TAR = ("busybox", "gnu")
WITH_SHELL = (*WITH_TAR, "notar")


class Box:
    """A pod with a container of each sort of image."""

    def __init__(self, kubelore: Any, kubectl: Kubectl) -> None:
        self.kubelore = kubelore
        self.kubectl = kubectl

    def url(self, container: str, what: str) -> str:
        return f"/api/k8s/containers/{CLUSTER}:{NAMESPACE}:box:{container}/files/{what}"

    async def run(self, container: str, *command: str) -> str:
        return await self.kubectl("-n", NAMESPACE, "exec", "box", "-c", container, "--", *command)

    async def upload(self, container: str, path: str, content: Any, **query: Any) -> httpx.Response:
        url = self.url(container, "upload")
        return await self.kubelore.http.post(url, params={"path": path, **query}, content=content)

    async def download(self, container: str, path: str, headers: Any = None, **query: Any) -> httpx.Response:
        url = self.url(container, "download")
        return await self.kubelore.http.get(url, params={"path": path, **query}, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def box(kubelore, lab_node: LabNode) -> AsyncIterator[Box]:
    kubectl = lab_node.plane.kubectl()
    containers = [
        {"name": name, "image": image, "imagePullPolicy": "Never"} for name, image in IMAGES.items()
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "box", "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": containers},
    }
    await kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=120)
    await kubectl("create", "namespace", NAMESPACE)
    try:
        await wait_for(lambda: _has_account(kubectl), "the namespace's service account", 30)
        await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
        await kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
        await kubelore.onboard(CLUSTER, lab_node.plane.kubeconfig(), allow_duplicate=True)
        yield Box(kubelore, kubectl)
    finally:
        await kubelore.remove(CLUSTER)
        await kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")


async def _has_account(kubectl: Kubectl) -> bool:
    return (await kubectl.run("-n", NAMESPACE, "get", "serviceaccount", "default")).code == 0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tarred(*entries: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for info in entries:
            made.addfile(info, io.BytesIO(b"x" * info.size) if info.size else None)
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize("container", WITH_SHELL)
@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
async def test_a_file_goes_in_and_comes_out_as_it_was(box: Box, container: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    put = await box.upload(container, f"/tmp/file-{size}", data, mode="0640", uid=7, gid=8)
    assert put.status_code == 201, put.text
    assert put.json()["sha256"] == digest(data)
    assert put.json()["checked"]
    assert (await box.run(container, "stat", "-c", "%a %u:%g", f"/tmp/file-{size}")) == "640 7:8\n"
    got = await box.download(container, f"/tmp/file-{size}")
    assert got.content == data
    assert got.headers["kubelore-file-mode"] == "0640"


async def test_kubectl_reads_what_was_uploaded(box: Box, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(5_000_000)
    assert (await box.upload("busybox", "/tmp/for-kubectl", data)).status_code == 201
    await box.kubectl("-n", NAMESPACE, "cp", "-c", "busybox", "box:/tmp/for-kubectl", str(tmp_path / "got"))
    assert digest((tmp_path / "got").read_bytes()) == digest(data)


@pytest.mark.parametrize(
    "name", ["a b", "-dash", "quo'te\"s", "new\nline", "$(touch x)", "ünï", ";id", "%41"]
)
async def test_awkward_names_are_names(box: Box, name: str) -> None:
    put = await box.upload("busybox", "/tmp", b"awkward", name=name)
    assert put.status_code == 201, put.text
    assert put.json()["path"] == f"/tmp/{name}"
    assert (await box.download("busybox", f"/tmp/{name}")).content == b"awkward"


async def test_the_file_of_a_form_is_taken(box: Box) -> None:
    files = {"file": ("formed.bin", b"from a form" * 100_000)}
    put = await box.kubelore.http.post(box.url("gnu", "upload"), params={"path": "/tmp"}, files=files)
    assert put.status_code == 201, put.text
    assert put.json()["path"] == "/tmp/formed.bin"
    assert (await box.download("gnu", "/tmp/formed.bin")).content == files["file"][1]


async def test_a_form_without_a_file_is_refused(box: Box) -> None:
    files = {"other": ("x", b"x")}
    put = await box.kubelore.http.post(box.url("gnu", "upload"), params={"path": "/tmp"}, files=files)
    assert put.status_code == 400
    assert "file" in put.json()["detail"]


async def test_a_file_that_is_replaced_keeps_mode_and_owner(box: Box) -> None:
    await box.run("busybox", "sh", "-c", "echo old > /tmp/kept; chown 5:6 /tmp/kept; chmod 4711 /tmp/kept")
    assert (await box.upload("busybox", "/tmp/kept", b"new")).status_code == 201
    assert await box.run("busybox", "stat", "-c", "%a %u:%g", "/tmp/kept") == "4711 5:6\n"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("0-0", 0, 1), ("100-", 100, None), ("70000-140000", 70000, 140001), ("-5", -5, None)],
)
@pytest.mark.parametrize("container", WITH_TAR)
async def test_ranges_of_a_file(box: Box, container: str, asked: str, start: int, end: int | None) -> None:
    data = random.Random(9).randbytes(200_000)
    assert (await box.upload(container, "/tmp/ranged", data)).status_code == 201
    got = await box.download(container, "/tmp/ranged", {"Range": f"bytes={asked}"})
    assert got.status_code == 206, got.text
    assert got.content == data[start:end]


async def test_a_range_beyond_the_end_is_416(box: Box) -> None:
    assert (await box.upload("busybox", "/tmp/short", b"abc")).status_code == 201
    got = await box.download("busybox", "/tmp/short", {"Range": "bytes=3-"})
    assert got.status_code == 416
    assert got.headers["content-range"] == "bytes */3"


async def test_a_range_of_another_file_by_now_is_all_of_it(box: Box) -> None:
    assert (await box.upload("busybox", "/tmp/changing", b"old")).status_code == 201
    tag = (await box.download("busybox", "/tmp/changing")).headers["etag"]
    assert (await box.upload("busybox", "/tmp/changing", b"newer")).status_code == 201
    got = await box.download("busybox", "/tmp/changing", {"Range": "bytes=1-", "If-Range": tag})
    assert (got.status_code, got.content) == (200, b"newer")


async def test_an_upload_is_taken_up_where_it_broke_off(box: Box) -> None:
    data = random.Random(11).randbytes(2_000_000)
    query = {"upload": "broken-off", "sha256": digest(data)}
    whole = await box.upload("busybox", "/tmp/resumed", data[:1_000_000], **query)
    assert whole.status_code == 500, "half of it is not what was announced"
    await box.run("busybox", "sh", "-c", "head -c 600000 /dev/zero > /tmp/.kubelore-broken-off")
    state = await box.kubelore.http.get(
        box.url("busybox", "upload"), params={"path": "/tmp/resumed", "upload": "broken-off"}
    )
    assert state.json() == {"offset": 600_000}
    other = await box.upload("busybox", "/tmp/resumed", data[5:], offset=5, **query)
    assert (other.status_code, other.json()["code"]) == (409, "OtherOffset")
    wrong = await box.upload("busybox", "/tmp/resumed", data[600_000:], offset=600_000, **query)
    assert wrong.json()["code"] == "ContentAltered"
    assert "resumed" not in (await box.run("busybox", "ls", "/tmp")).split()


async def test_whom_a_policy_denies_uploads_is_not_told_how_far_one_came(box: Box) -> None:
    policies = "/api/k8s/containers/exec/policies"
    rule = {"effect": "deny", "clusters": ["*"], "namespaces": ["*"], "subjects": ["*"]}
    made = await box.kubelore.http.post(
        policies, json={"name": "sealed", **rule, "commands": ["files:upload*"]}
    )
    assert made.status_code == 201, made.text
    try:
        answer = await box.kubelore.http.get(
            box.url("busybox", "upload"), params={"path": "/tmp", "upload": "one"}
        )
    finally:
        assert (await box.kubelore.http.delete(f"{policies}/sealed")).is_success
    assert (answer.status_code, answer.json()["code"]) == (403, "ExecDenied")


async def test_what_is_not_what_was_announced_gets_no_name(box: Box) -> None:
    await box.run("busybox", "mkdir", "-p", "/tmp/quiet")
    put = await box.upload("busybox", "/tmp/quiet/announced", b"abc", sha256=digest(b"abd"))
    assert put.json()["reason"] == "IntegrityError"
    assert await box.run("busybox", "ls", "-A", "/tmp/quiet") == ""


async def test_an_upload_whose_sender_goes_gets_no_name(box: Box) -> None:
    await box.run("busybox", "mkdir", "-p", "/tmp/left")

    async def half() -> AsyncIterator[bytes]:
        yield b"x" * 300_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await box.upload("busybox", "/tmp/left/file", half())

    async def gone() -> bool:
        return await box.run("busybox", "ls", "-A", "/tmp/left") == ""

    await wait_for(gone, "what was left to be removed", 20)


@pytest.mark.parametrize("container", WITH_TAR)
async def test_a_tree_goes_in_and_comes_out_by_the_command_line(
    box: Box, command_line, tmp_path: Path, container: str
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    for name in (b"a b", b"-dash", b"new\nline", b"quo\"te's", b"bad\xff", b"sub/" + b"n" * 200):
        (tree / os.fsdecode(name)).write_bytes(name * 3000)
    (tree / "link").symlink_to("a b")
    (tree / "sub").chmod(0o751)
    run = command_line(box.kubelore.url, box.kubelore.token)
    place = f"{CLUSTER}:{NAMESPACE}:box:{container}:/tmp"
    done = await run("cp", str(tree), place)
    assert done.code == 0, done.err
    back = await run("cp", f"{place}/tree", str(tmp_path / "back"))
    assert back.code == 0, back.err
    assert _snapshot(tmp_path / "back") == _snapshot(tree)
    again = await run("cp", str(tree), place)
    assert again.code == 0, again.err


def _snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(one.relative_to(root)): (one.lstat().st_mode, one.read_bytes() if one.is_file() else b"")
        for one in root.rglob("*")
    }


async def test_a_file_by_the_command_line_goes_on_where_it_broke_off(
    box: Box, command_line, tmp_path: Path
) -> None:
    data = random.Random(12).randbytes(1_500_000)
    (tmp_path / "file").write_bytes(data)
    run = command_line(box.kubelore.url, box.kubelore.token)
    place = f"{CLUSTER}:{NAMESPACE}:box:busybox:/tmp"
    assert (await run("cp", "--resume", str(tmp_path / "file"), place)).code == 0
    tag = (await box.download("busybox", "/tmp/file")).headers["etag"].strip('"')
    (tmp_path / f".again.kubelore-{tag}").write_bytes(data[:400_000])
    done = await run("cp", "--resume", f"{place}/file", str(tmp_path / "again"))
    assert done.code == 0, done.err
    assert (tmp_path / "again").read_bytes() == data
    (tmp_path / f".other.kubelore-{tag}").write_bytes(b"x" * 400_000)
    wrong = await run("cp", "--resume", f"{place}/file", str(tmp_path / "other"))
    assert wrong.code == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../out", size=1)],
        [entry("/tmp/out", size=1)],
        [entry("link", tarfile.SYMTYPE, "/tmp"), entry("link/out", size=1)],
        [entry("link", tarfile.SYMTYPE, "."), entry("link/out", size=1)],
        [entry("x", tarfile.LNKTYPE, "/etc/passwd")],
        [entry("pipe", tarfile.FIFOTYPE)],
        [entry("disk", tarfile.CHRTYPE)],
    ],
    ids=["up", "absolute", "link out", "behind a link", "hard link", "pipe", "device"],
)
async def test_a_hostile_archive_leaves_nothing(box: Box, entries: list[tarfile.TarInfo]) -> None:
    put = await box.upload("busybox", "/tmp/hostile", tarred(*entries), format="tar")
    assert (put.status_code, put.json()["code"]) == (422, "UnsafeEntry")
    assert "hostile" not in await box.run("busybox", "ls", "-a", "/tmp")


async def test_half_an_archive_leaves_nothing(box: Box) -> None:
    raw = tarred(entry("a", size=5000), entry("b", size=5000))[:7000]
    put = await box.upload("gnu", "/tmp/half", raw, format="tar")
    assert put.json()["code"] == "BrokenArchive"
    assert "half" not in await box.run("gnu", "ls", "-a", "/tmp")


@pytest.mark.parametrize(("format", "opened"), [("tar", "r:"), ("tar.gz", "r:gz")])
async def test_a_tree_as_an_archive_leaves_out_what_leads_out_of_it(
    box: Box, format: str, opened: Any
) -> None:
    script = "mkdir -p /tmp/odd/d; cd /tmp/odd; echo 1 > d/f; ln -sf /etc/passwd out; ln -sf d/f in; mkfifo p; true"
    await box.run("busybox", "sh", "-c", script)
    got = await box.download("busybox", "/tmp/odd", format=format)
    with tarfile.open(fileobj=io.BytesIO(got.content), mode=opened) as archive:
        assert sorted(name.removeprefix("./") for name in archive.getnames()) == [".", "d", "d/f", "in"]


async def test_a_container_whose_tar_is_hostile_breaks_the_download(box: Box) -> None:
    """The tar of the container answers what it likes; what leads out of the tree is passed on to nobody."""
    raw = tarred(entry("fine", size=1), entry("../../out", size=1))
    assert (await box.upload("gnu", "/tmp/evil.tar", raw)).status_code == 201
    script = """mkdir -p /tmp/t; t=$(command -v tar); mv $t $t.real
        printf '#!/bin/sh\\ncat /tmp/evil.tar\\n' > $t; chmod 755 $t"""
    await box.run("gnu", "sh", "-c", script)
    try:
        with pytest.raises(httpx.RemoteProtocolError):
            await box.download("gnu", "/tmp/t", format="tar")
    finally:
        await box.run("gnu", "sh", "-c", "t=$(command -v tar); mv $t.real $t")


async def test_an_image_without_tar_says_so_and_offers_help(box: Box) -> None:
    await box.run("notar", "mkdir", "-p", "/tmp/t")
    got = await box.download("notar", "/tmp/t")
    assert got.status_code in (501, 502), got.text


async def test_an_image_without_a_shell_is_copied_to_when_a_debug_container_is_asked_for(box: Box) -> None:
    assert (await box.download("bare", "/idle")).status_code == 501
    got = await box.download("bare", "/idle", debug=True)
    assert got.status_code == 200, got.text
    assert got.content[:4] == b"\x7fELF"
    put = await box.upload("bare", "/tmp/put", b"into nothing", debug=True)
    assert put.status_code == 201, put.text
    assert (await box.download("bare", "/tmp/put", debug=True)).content == b"into nothing"


@pytest.mark.parametrize(
    ("path", "status"), [("/nope", 404), ("/dev/null", 422), ("relative", 400), ("/proc/self/status", 502)]
)
async def test_what_cannot_be_downloaded_says_why(box: Box, path: str, status: int) -> None:
    got = await box.download("busybox", path)
    assert got.status_code == status, got.text


@pytest.mark.parametrize(("path", "status"), [("/nope/x", 404), ("/tmp", 422), ("/proc/x", 403)])
async def test_what_cannot_be_uploaded_says_why(box: Box, path: str, status: int) -> None:
    put = await box.upload("busybox", path, b"x")
    assert put.status_code == status, put.text


async def test_a_full_disk_is_told_and_leaves_nothing(box: Box) -> None:
    put = await box.upload("busybox", "/dev/shm/big", bytes(80 * 1024 * 1024))
    assert put.status_code == 502, put.text
    assert await box.run("busybox", "ls", "-A", "/dev/shm") == ""


async def test_whoever_may_only_read_copies_nothing(box: Box) -> None:
    async with box.kubelore.somebody("no-exec", role="admin") as reader:
        query = {"path": "/etc/passwd"}
        got = await reader.http.get(box.url("busybox", "download"), params=query)
        assert got.status_code == 403
        put = await reader.http.post(box.url("busybox", "upload"), params={"path": "/tmp/no"}, content=b"x")
        assert put.status_code == 403


async def test_copies_are_on_record(box: Box) -> None:
    assert (await box.upload("busybox", "/tmp/recorded", b"abc")).status_code == 201
    query = {"cluster": CLUSTER, "type": "file", "limit": 1}
    page = await box.kubelore.http.get("/api/k8s/containers/operations", params=query)
    one = page.json()["items"][0]
    assert one["command"] == ["files:upload", "/tmp/recorded"]
    assert (one["status"], one["result"]["sha256"]) == ("completed", digest(b"abc"))


async def test_a_reader_that_stops_holds_nobody_up(box: Box) -> None:
    await box.run("busybox", "sh", "-c", "head -c 60000000 /dev/zero > /tmp/large")
    url = box.url("busybox", "download")
    async with box.kubelore.http.stream("GET", url, params={"path": "/tmp/large"}) as slow:
        await anext(slow.aiter_raw(1000))
        async with asyncio.timeout(20):
            assert (await box.download("busybox", "/etc/passwd")).status_code == 200
