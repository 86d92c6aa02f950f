"""What a history looks like to git: authors, times, messages, paths, and an order that holds."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.cli import git_stream
from kubelore.cli.git_stream import Commit


def version(number: int, **said: Any) -> dict[str, Any]:
    return {
        "resource_id": "prod:configmaps:shop:web",
        "resource_type": "configmaps",
        "namespace": "shop",
        "name": "web",
        "branch": "main",
        "version": number,
        "happened": "updated",
        "created_at": f"2026-11-24T10:00:{number:02d}.000Z",
        "actor": {"kind": "user", "name": "ann@example.com", "operation": ""},
        "change_log": "",
        "commit_hash": f"{number:040d}",
        "operation_id": "",
        **said,
    }


def imported(folder: Path, *parts: bytes) -> None:
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run(
        ["git", "-C", str(folder), "fast-import", "--quiet", "--date-format=raw"],
        input=b"feature done\n" + b"".join(parts) + b"done\n",
        check=True,
    )


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_versions_become_commits_with_their_authors_and_times(tmp_path: Path) -> None:
    found = [
        git_stream.commit_of(version(2, change_log="say bye\nfor good"), 2),
        git_stream.commit_of(
            version(1, actor={"kind": "manager", "name": "kubectl-create", "operation": "Update"}), 1
        ),
        git_stream.commit_of(version(3, happened="deleted", actor={"kind": "unknown", "name": ""}), 0),
    ]
    imported(
        tmp_path,
        git_stream.blob(1, "text: hello\n"),
        git_stream.blob(2, "text: bye\n"),
        *git_stream.commits(found, onto=False),
    )
    told = git(tmp_path, "log", "--reverse", "--format=%an <%ae> %aI %s", git_stream.BRANCH).splitlines()
    assert told == [
        "kubectl-create <kubectl-create@manager.kubelore.invalid> 2026-11-24T10:00:01+00:00 updated configmaps/web in shop",
        "ann@example.com <ann@example.com> 2026-11-24T10:00:02+00:00 updated configmaps/web in shop",
        "unknown <unknown@kubelore.invalid> 2026-11-24T10:00:03+00:00 deleted configmaps/web in shop",
    ]
    assert git(tmp_path, "show", f"{git_stream.BRANCH}~1:shop/configmaps/web.yaml") == "text: bye\n"
    body = git(tmp_path, "log", "-1", "--format=%B", f"{git_stream.BRANCH}~1")
    assert "say bye\nfor good\n" in body
    assert "Kubelore-Version: prod:configmaps:shop:web main 2" in body
    assert git(tmp_path, "ls-tree", "-r", "--name-only", git_stream.BRANCH) == ""


@pytest.mark.parametrize(
    ("id_", "path"),
    [
        ("prod:configmaps:shop:web", "shop/configmaps/web.yaml"),
        ("prod:nodes::n1", "_cluster/nodes/n1.yaml"),
        (
            "prod:clusterroles.rbac.authorization.k8s.io::system:node",
            "_cluster/clusterroles.rbac.authorization.k8s.io/system%3Anode.yaml",
        ),
        ("prod:configmaps:shop:../../etc", "shop/configmaps/..%2F..%2Fetc.yaml"),
    ],
)
def test_a_file_lies_where_its_name_says_and_nowhere_else(id_: str, path: str) -> None:
    assert git_stream.path_of(id_) == path


def test_the_longest_names_get_files_of_their_own() -> None:
    paths = [git_stream.path_of(f"prod:configmaps:shop:{'a' * 252}{last}") for last in "bc"]
    assert len(set(paths)) == 2
    assert max(len(path.rpartition("/")[2]) for path in paths) <= 255


texts = st.text(max_size=30)


@given(texts, texts, st.sampled_from(["user", "manager"]))
def test_no_name_and_no_word_of_anybody_breaks_the_stream(name: str, words: str, kind: str) -> None:
    author = git_stream.author_of({"kind": kind, "name": name})
    assert author.isprintable()
    assert (author.count("<"), author.count(">"), author[-1]) == (1, 1, ">")
    commit = git_stream.commit_of(
        version(1, change_log=words.encode("utf-8", "replace").decode(), actor={"kind": kind, "name": name}),
        1,
    )
    (stream,) = git_stream.commits([commit], onto=False)
    head, _, rest = stream.partition(b"\ndata ")
    size, _, body = rest.partition(b"\n")
    assert body[int(size) :] == b"\nM 100644 :1 shop/configmaps/web.yaml\n\n"
    assert head.count(b"\n") == 2


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(1, 9)), unique=True, max_size=12)
)
def test_commits_stand_in_the_order_of_time_and_of_versions(found: list[tuple[int, str, int]]) -> None:
    made = [
        Commit(at=at, id=id_, version=number, mark=1, author="a <a@b>", message="m")
        for at, id_, number in found
    ]
    assert [one.order for one in sorted(made, key=lambda one: one.order)] == sorted(found)
