"""What uploads and writes leave behind, removed by whatever shell a container has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kubelore.container_ops.transfer_scripts import DROP

LEFT = ".kubelore-ours"


@pytest.fixture(params=["bash", "dash", "busybox sh"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = request.param.split()
    program = shutil.which(words[0])
    if program is None:
        pytest.skip(f"no {words[0]} here")
    return [program, *words[1:]]


def dropped(shell: list[str], path: Path, **environment: str) -> int:
    done = subprocess.run([*shell, "-c", DROP, "sh", path, "ours"], timeout=10, env=environment or None)
    return done.returncode


@pytest.mark.parametrize("asked", ["file", "link", "new"])
def test_what_lies_beside_a_file_goes_and_nothing_else(shell: list[str], tmp_path: Path, asked: str) -> None:
    for name in ("file", LEFT, ".kubelore-anothers"):
        (tmp_path / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(tmp_path / "file")
    path = tmp_path / "elsewhere" / "link" if asked == "link" else tmp_path / asked
    assert dropped(shell, path) == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == [".kubelore-anothers", "elsewhere", "file"]


def test_a_link_in_its_place_goes_and_what_it_leads_to_stays(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / LEFT).symlink_to(tmp_path / "kept")
    assert dropped(shell, tmp_path / "file") == 0
    assert [one.name for one in tmp_path.rglob("*")] == ["kept", "file"]


@pytest.mark.parametrize("inside", [".", "tree", ".hidden"])
def test_what_lies_in_a_directory_goes(shell: list[str], tmp_path: Path, inside: str) -> None:
    (tmp_path / inside / LEFT).mkdir(parents=True)
    assert dropped(shell, tmp_path) == 0
    assert not (tmp_path / inside / LEFT).exists()


def test_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / LEFT).touch()
    shell = shutil.which("dash") or shutil.which("bash")
    assert shell is not None
    assert dropped([shell], tmp_path / "file", PATH="/nowhere") == 1
