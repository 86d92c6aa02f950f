"""Files of containers through the door: listed, edited, changed, many at once, on record, and refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet

CLUSTER = "files-of-one"
HOME = "/tmp/work"


class Files:
    """The files of two containers, as the API shows them."""

    def __init__(self, kubelore: Any, pods: list[str]) -> None:
        self.kubelore = kubelore
        self.http: httpx.AsyncClient = kubelore.http
        self.pods = pods
        self.path = f"/api/k8s/containers/{pods[0]}/files"

    async def list(self, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.http.get(self.path, params={"path": path, **query})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def change(self, action: str, **body: Any) -> httpx.Response:
        return await self.http.post(f"{self.path}/{action}", json=body)

    async def write(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.put(f"{self.path}/content", params={"path": path}, json=body, headers=named)

    async def read(self, path: str, **query: Any) -> httpx.Response:
        return await self.http.get(f"{self.path}/content", params={"path": path, **query})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(kubelore: Any) -> AsyncIterator[Files]:
    async with SimulatedFleet(clusters=1, pods=30) as simulated:
        await kubelore.onboard(CLUSTER, simulated[0].kubeconfig)
        page = await kubelore.list(clusters=CLUSTER, type="pods", limit=100)
        running = [one["id"] for one in page["items"] if one["object"]["status"]["phase"] == "Running"]
        yield Files(kubelore, [one.replace(":pods:", ":", 1) for one in running[:2]])
        await kubelore.remove(CLUSTER)


@pytest_asyncio.fixture(loop_scope="session")
async def files(fleet: Files) -> Files:
    """With an empty directory of the test's own."""
    await fleet.change("delete", path=HOME, recursive=True)
    answer = await fleet.change("mkdir", path=HOME)
    assert answer.status_code == 200, answer.text
    return fleet


async def test_a_file_is_written_read_and_replaced_if_it_is_still_the_same(files: Files) -> None:
    path = f"{HOME}/settings.ini"
    made = await files.write(path, {"content": "a=1\r\nb=ö\r\n"}, If_None_Match="*")
    assert made.status_code == 200, made.text
    read = (await files.read(path)).json()
    assert (read["content"], read["encoding"], read["line_ends"]) == ("a=1\r\nb=ö\r\n", "utf-8", "crlf")
    assert read["etag"] == made.headers["etag"]
    replaced = await files.write(path, {"content": "a=2\n", "line_ends": "crlf"}, If_Match=read["etag"])
    assert replaced.status_code == 200, replaced.text
    late = await files.write(path, {"content": "a=3\n"}, If_Match=read["etag"])
    assert (late.status_code, late.json()["reason"]) == (409, "Conflict")
    assert (await files.read(path)).json()["content"] == "a=2\r\n"


async def test_a_file_that_is_there_is_not_overwritten_by_chance(files: Files) -> None:
    path = f"{HOME}/there"
    assert (await files.write(path, {"content": "1"})).status_code == 200
    refused = await files.write(path, {"content": "2"})
    assert (refused.status_code, refused.json()["reason"]) == (409, "AlreadyExists")
    assert "If-Match" in refused.json()["remedy"]
    strange = await files.write(path, {"content": "2"}, If_Match="*", If_None_Match="*")
    assert strange.status_code == 400


async def test_bytes_that_are_no_text_are_base64_both_ways(files: Files) -> None:
    path = f"{HOME}/binary"
    await files.write(path, {"content": "AAH/", "encoding": "base64"})
    read = (await files.read(path)).json()
    assert (read["content"], read["encoding"], read["line_ends"]) == ("AAH/", "base64", "none")
    assert (await files.read(path, encoding="utf-8")).status_code == 422


async def test_a_directory_comes_in_pages(files: Files) -> None:
    names = [f"file {number}" for number in range(5)]
    for name in names:
        await files.write(f"{HOME}/{name}", {"content": name})
    found, position = [], None
    while True:
        page = await files.list(HOME, limit=2, **({"continue": position} if position else {}))
        assert page["total"] == 5
        found += [one["name"] for one in page["items"]]
        if not (position := page["continue"]):
            break
    assert found == names


async def test_a_page_of_another_directory_is_refused(files: Files) -> None:
    for name in ("a", "b"):
        await files.write(f"{HOME}/{name}", {"content": ""})
    token = (await files.list(HOME, limit=1))["continue"]
    answer = await files.http.get(files.path, params={"path": "/tmp", "continue": token})
    assert answer.status_code == 400


async def test_modes_owners_and_names_are_changed(files: Files) -> None:
    path = f"{HOME}/x"
    await files.write(path, {"content": ""})
    assert (await files.change("chmod", path=path, mode="0600")).json()["file"]["mode"] == "0600"
    owned = (await files.change("chown", path=path, owner="1000", group="1001")).json()["file"]
    assert (owned["uid"], owned["gid"]) == (1000, 1001)
    moved = (await files.change("rename", path=path, to=f"{HOME}/y z")).json()["file"]
    assert moved["path"] == f"{HOME}/y z"
    assert (await files.change("delete", path=f"{HOME}/y z")).status_code == 200
    assert (await files.list(HOME))["items"] == []


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("chmod", {"path": "/nothing", "mode": "0600"}, 404),
        ("chmod", {"path": "/tmp", "mode": "rwx"}, 422),
        ("chmod", {"path": "tmp", "mode": "0600"}, 400),
        ("chmod", {"path": "/tmp/\u0000", "mode": "0600"}, 400),
        ("chown", {"path": "/tmp", "owner": "-R"}, 422),
        ("chown", {"path": "/tmp", "owner": ""}, 422),
        ("delete", {"path": "/", "recursive": True}, 422),
        ("delete", {"path": "/tmp/..", "recursive": True}, 422),
        ("delete", {"path": "/app"}, 409),
        ("rename", {"path": "/app", "to": "/app"}, 422),
        ("mkdir", {"path": "/app"}, 409),
    ],
)
async def test_what_cannot_be_is_refused_in_words(
    files: Files, action: str, body: dict[str, Any], status: int
) -> None:
    answer = await files.change(action, **body)
    assert answer.status_code == status, answer.text
    assert answer.json()["remedy"]


async def test_a_batch_answers_for_each_of_many_containers(files: Files) -> None:
    body = {
        "containers": files.pods,
        "operations": [
            {"action": "mkdir", "path": "/tmp/batch"},
            {"action": "chmod", "path": "/tmp/nothing", "mode": "0600"},
            {"action": "delete", "path": "/tmp/batch"},
        ],
    }
    answer = await files.http.post("/api/k8s/containers/files/batch", json=body)
    told = answer.json()
    assert (told["succeeded"], told["failed"], told["skipped"]) == (4, 2, 0)
    assert [one["ok"] for one in told["results"]] == [True, False, True] * 2
    assert told["results"][1]["error"]["status"] == 404
    stopped = await files.http.post(f"{files.path}/batch", json={**_without(body), "stop_on_error": True})
    assert [one["skipped"] for one in stopped.json()["results"]] == [False, False, True]


def _without(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "containers"}


async def test_what_was_done_is_on_record(files: Files) -> None:
    await files.write(f"{HOME}/kept", {"content": "x", "reason": "because of a test"})
    page = await files.http.get("/api/k8s/containers/operations", params={"cluster": CLUSTER, "type": "file"})
    newest = page.json()["items"][0]
    assert newest["command"] == ["files:write", f"{HOME}/kept"]
    assert (newest["status"], newest["reason"], newest["result"]["size"]) == (
        "completed",
        "because of a test",
        1,
    )
    audit = (await files.http.get("/api/audit", params={"action": "files.write"})).json()["items"]
    assert audit[0]["cluster"] == CLUSTER


async def test_whoever_may_not_exec_touches_no_file(files: Files) -> None:
    async with files.kubelore.somebody("reader", role="admin") as reader:
        http = reader.http
        for answer in (
            await http.get(files.path, params={"path": "/"}),
            await http.get(f"{files.path}/content", params={"path": "/etc/hostname"}),
            await http.post(f"{files.path}/delete", json={"path": "/app", "recursive": True}),
            await http.put(f"{files.path}/content", params={"path": "/tmp/x"}, json={"content": ""}),
        ):
            assert answer.status_code == 403
