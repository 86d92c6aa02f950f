"""The history of a real cluster as a git repository: read by git itself, continued on the next run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

SPACE = "exported"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gamma(kubelore, lab_pair):
    """A real cluster that is onboarded, with a namespace of these tests' own."""
    plane = lab_pair.first
    kubectl = plane.kubectl()
    await kubelore.onboard("gamma", plane.kubeconfig())
    await kubectl("create", "namespace", SPACE)
    yield kubectl
    await kubectl("delete", "namespace", SPACE, "--wait=false")
    await kubelore.remove("gamma")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout


async def test_git_reads_who_changed_what_and_goes_on_where_it_was(
    kubelore, gamma, command_line, tmp_path: Path
) -> None:
    terminal, folder = command_line(kubelore.url, kubelore.token), tmp_path / "history"
    export = ("export", "--git", str(folder), "-c", "gamma", "-n", SPACE)
    id_ = f"gamma:configmaps:{SPACE}:motd"
    await gamma("create", "configmap", "motd", "-n", SPACE, "--from-literal=text=hello", "--from-literal=x=1")
    await gamma("create", "secret", "generic", "login", "-n", SPACE, "--from-literal=password=c4nary")
    await wait_for(lambda: _counts(kubelore, id_, 1), "the first version", 15)
    await wait_for(lambda: _counts(kubelore, f"gamma:secrets:{SPACE}:login", 1), "the secret", 15)
    first = await terminal(*export)
    assert first.code == 0, first.err
    assert "text: hello" in (folder / SPACE / "configmaps" / "motd.yaml").read_text()
    assert "c4nary" not in git(folder, "log", "-p", "--all")

    again = await terminal(*export)
    assert (again.code, again.err.strip()) == (0, "Nothing was recorded since the last export.")

    await gamma("patch", "configmap", "motd", "-n", SPACE, "-p", '{"data":{"text":"bye"}}')
    await gamma("delete", "secret", "login", "-n", SPACE)
    await wait_for(lambda: _counts(kubelore, id_, 2), "the second version", 15)
    await wait_for(lambda: _counts(kubelore, f"gamma:secrets:{SPACE}:login", 2), "the tombstone", 15)
    second = await terminal(*export)
    assert second.code == 0, second.err
    assert "2 versions of 2 objects" in second.err
    blamed = git(folder, "blame", "--line-porcelain", f"{SPACE}/configmaps/motd.yaml")
    authors = dict(_authors(blamed))
    assert authors["text: bye"] == "kubectl-patch"
    assert authors['x: "1"'] == "kubectl-create"
    assert not (folder / SPACE / "secrets").exists()
    assert git(folder, "status", "--porcelain") == ""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(folder), str(clone))
    assert git(clone, "log", "--format=%an", "-1", "--", f"{SPACE}/configmaps") == "kubectl-patch\n"


async def test_a_folder_with_something_else_in_it_is_left_alone(
    kubelore, gamma, command_line, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused = await command_line(kubelore.url, kubelore.token)(
        "export", "--git", str(tmp_path), "-c", "gamma"
    )
    assert refused.code == 1
    assert "holds other things" in refused.err
    assert _names(tmp_path) == ["mine.txt"]


def _names(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


def _authors(porcelain: str):
    author = ""
    for line in porcelain.splitlines():
        if line.startswith("author "):
            author = line.removeprefix("author ")
        elif line.startswith("\t"):
            yield line.strip(), author


async def _counts(kubelore, id_: str, number: int) -> bool:
    answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}")
    return answer.status_code == 200 and len(answer.json()["items"]) >= number
