"""Reading what `stat` says, held against the machine's own programs on names of any bytes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common.contracts.files import FileInfo
from kubelore.common.errors import BadRequest, UpstreamError
from kubelore.container_ops.file_paths import is_root, path_bytes, path_text
from kubelore.container_ops.stat_records import FORMAT, Records, single

NAMES = [
    *(b"a b", b"new\nline", b"-rf", b"it's", b'q"q', b"bad\xff", b"a -> b", b"$HOME", b"*", b"\\033", b" "),
    *(b"\xe2\x80\xae", b"end\n", b"'quoted'"),
]
TARGETS = [b"/etc/passwd", b"x//\n//81a4/0/0/0/r/r/1/", b"no -> where", b"'", b"'//\n", b"\xff\n"]
STAT = ["env", "LC_ALL=C", "QUOTING_STYLE=literal"]


@pytest.fixture
def directory(tmp_path: Path) -> bytes:
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(b"x" * len(name))
    for number, target in enumerate(TARGETS):
        (tmp_path / f"link{number}").symlink_to(os.fsdecode(target))
    (tmp_path / "sub").mkdir(0o751)
    os.mkfifo(tmp_path / "fifo")
    return os.fsencode(tmp_path)


def listed(directory: bytes, piece: int, *words: str) -> dict[bytes, FileInfo]:
    find = [*words, "find", directory + b"/.", "-mindepth", "1", "-maxdepth", "1"]
    stat = ["-exec", *words, "stat", "-c", FORMAT, "{}", "+"]
    said = subprocess.run([*STAT, *find, *stat], capture_output=True, check=True).stdout
    records = Records(directory, directory + b"/./")
    pieces = (said[start : start + piece] for start in range(0, len(said), piece))
    found = [one for part in pieces for one in records.feed(part)]
    return dict([*found, *records.end()])


@pytest.mark.parametrize("words", [(), ("busybox",)], ids=["gnu", "busybox"])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_every_name_and_target_survives(directory: bytes, piece: int, words: tuple[str, ...]) -> None:
    found = listed(directory, piece, *words)
    assert found.keys() == {*NAMES, *(b"link%d" % n for n in range(len(TARGETS))), b"sub", b"fifo"}
    for name in NAMES:
        assert found[name].type == "file"
        assert found[name].size == len(name)
        assert path_bytes(found[name].path) == directory + b"/" + name
    for number, target in enumerate(TARGETS):
        link = found[b"link%d" % number]
        assert link.type == "link"
        assert link.target == target.decode(errors="backslashreplace")
    assert (found[b"sub"].type, found[b"sub"].mode) == ("directory", "0751")
    assert found[b"fifo"].type == "fifo"


def test_links_whose_size_is_not_their_targets_are_read() -> None:
    found = listed(b"/proc/self", 100)
    assert found[b"exe"].type == "link"
    assert found[b"exe"].target.startswith("/")


@pytest.mark.parametrize("path", [b"/", b"/etc", b"/etc/passwd", b"/proc/self/exe"])
@pytest.mark.parametrize("words", [(), ("busybox",)], ids=["gnu", "busybox"])
def test_one_file_is_told_apart_from_what_follows(path: bytes, words: tuple[str, ...]) -> None:
    said = subprocess.run([*STAT, *words, "stat", "-c", FORMAT, path], capture_output=True, check=True).stdout
    info, rest = single(path, said + b"//\ncontent")
    assert path_bytes(info.path) == path
    assert rest == b"//\ncontent"
    assert info.mode == f"{os.lstat(path).st_mode & 0o7777:04o}"


@pytest.mark.parametrize(
    "said",
    [b"", b"usage: stat", b"//81a4/0/0/0/r/r/1//x///x/", b"//81a4/0/0/0/r/r/1//a/b///a/b//\n", b"/" * 700],
)
def test_what_stat_would_not_say_is_refused(said: bytes) -> None:
    with pytest.raises(UpstreamError, match="something unknown"):
        single(b"/x", said)


@settings(max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
def test_a_path_as_text_names_the_same_bytes(parts: list[bytes]) -> None:
    names = [part.replace(b"/", b"_").replace(b"\0", b"_") for part in parts]
    raw = b"/" + b"/".join(name for name in names if name != b".")
    assert path_bytes(path_text(raw)) == raw


@pytest.mark.parametrize(
    "text", ["", "etc", "../x", "base64:!", "base64:eA==", "/a\0b", "/" + "x" * 256, "/" + "x/" * 3000]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        path_bytes(text)


@pytest.mark.parametrize("path", [b"/", b"/..", b"/a/..", b"/a/../../b/.."])
def test_the_root_is_known_by_any_of_its_names(path: bytes) -> None:
    assert is_root(path)
    assert not is_root(path + b"/etc")
