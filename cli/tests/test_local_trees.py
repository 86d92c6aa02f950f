"""Trees of this machine, and archives that a container makes hostile on purpose."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from kubelore.cli.local_trees import Archiving, Unpacking
from kubelore.common.archives import Broken, Unsafe
from kubelore.common.errors import Conflict


def unpack(raw: bytes, into: Path) -> None:
    into.mkdir(exist_ok=True)
    with Unpacking(into) as unpacking:
        unpacking.feed(raw)
        unpacking.finish()


def hostile(*entries: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for info in entries:
            made.addfile(info, io.BytesIO(bytes(info.size)) if info.size else None)
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    for name in (b"a b", b"-dash", b"new\nline", b"quo\"te's", b"bad\xff", b"sub/" + b"n" * 200):
        (root / os.fsdecode(name)).write_bytes(name * 300)
    (root / "link").symlink_to("a b")
    (root / "sub" / "up").symlink_to("../a b")
    (root / "sub").chmod(0o751)
    (root / "-dash").chmod(0o640)
    return root


def snapshot(root: Path) -> dict[str, tuple[int, bytes | str]]:
    return {
        str(one.relative_to(root)): (
            one.lstat().st_mode,
            str(one.readlink()) if one.is_symlink() else one.read_bytes() if one.is_file() else b"",
        )
        for one in sorted(root.rglob("*"))
    }


def test_a_tree_comes_out_of_its_archive_as_it_was(tree: Path, tmp_path: Path) -> None:
    unpack(b"".join(Archiving(tree, owners=True).pieces()), tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(tree)


def test_what_a_tree_may_not_hold_is_left_out_and_named(tree: Path) -> None:
    (tree / "outside").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    archiving = Archiving(tree, owners=True)
    raw = b"".join(archiving.pieces())
    assert [one.rpartition("/")[2].split()[0] for one in archiving.left_out] == ["outside", "pipe"]
    assert b"outside" not in raw


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../out", size=1)],
        [entry("/out", size=1)],
        [entry("link", tarfile.SYMTYPE, ".."), entry("link/out", size=1)],
        [entry("link", tarfile.SYMTYPE, "/"), entry("x", size=1)],
        [entry("x", tarfile.LNKTYPE, "../secret")],
        [entry("pipe", tarfile.FIFOTYPE)],
        [entry("disk", tarfile.BLKTYPE)],
    ],
    ids=["up", "absolute", "behind a link", "link out", "hard link out", "pipe", "device"],
)
def test_a_hostile_archive_writes_nothing_outside(entries: list[tarfile.TarInfo], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("untouched")
    with pytest.raises(Unsafe):
        unpack(hostile(*entries), tmp_path / "into")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["into", "secret"]
    assert (tmp_path / "secret").read_text() == "untouched"


def test_a_link_that_was_here_before_is_not_followed(tmp_path: Path) -> None:
    outside, into = tmp_path / "outside", tmp_path / "into"
    outside.mkdir()
    into.mkdir()
    (into / "d").symlink_to(outside)
    with pytest.raises(Conflict):
        unpack(hostile(entry("d/x", size=1)), into)
    assert not list(outside.iterdir())


def test_a_file_replaces_a_link_and_is_not_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("untouched")
    into = tmp_path / "into"
    into.mkdir()
    (into / "x").symlink_to(tmp_path / "secret")
    unpack(hostile(entry("x", size=3)), into)
    assert (tmp_path / "secret").read_text() == "untouched"
    assert (into / "x").read_bytes() == bytes(3)


def test_bits_that_run_as_another_are_dropped(tmp_path: Path) -> None:
    info = entry("x", size=1)
    info.mode = 0o6755
    unpack(hostile(info), tmp_path / "into")
    assert (tmp_path / "into" / "x").stat().st_mode & 0o7777 == 0o755


def test_half_an_archive_is_an_error(tree: Path, tmp_path: Path) -> None:
    raw = b"".join(Archiving(tree, owners=True).pieces())
    with pytest.raises(Broken):
        unpack(raw[: len(raw) // 2], tmp_path / "into")
