"""Tar streams in any pieces, and the archives that somebody makes on purpose."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.archives import Broken, Entry, TarWalk, TreeRules, Unsafe, stays_within

LONG = "d/" + "n" * 200
NAMES = st.lists(
    st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1, max_size=120),
    min_size=1,
    max_size=4,
)


def archive(*entries: tuple[str, bytes | str | None], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A file for bytes, a directory for None, a link for a text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as made:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            made.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def of(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024)


def special(kind: bytes, name: str = "x", target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def walked(raw: bytes, step: int = 4096) -> list[tuple[str, bytes]]:
    """The entries with their content; raises unless the archive is whole."""
    walk, found = TarWalk(), list[tuple[str, bytearray]]()
    for start in range(0, len(raw), step):
        for one in walk.feed(raw[start : start + step]):
            if isinstance(one, Entry):
                found.append((one.name, bytearray()))
            else:
                found[-1][1].extend(one)
    walk.finish()
    return [(name, bytes(content)) for name, content in found]


def checked(raw: bytes) -> list[tuple[str, ...]]:
    rules = TreeRules()
    return [rules.check(one) for one in TarWalk().feed(raw) if isinstance(one, Entry)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(parts=NAMES, content=st.binary(max_size=3000), step=st.integers(1, 2000))
def test_entries_come_out_as_tarfile_wrote_them_whatever_the_pieces(
    format: int, parts: list[str], content: bytes, step: int
) -> None:
    name = "/".join(part for part in parts if part not in (".", "..")) or "x"
    try:
        raw = archive((name, content), ("second", b"2"), format=format)
    except ValueError:
        return  # too long for ustar
    assert walked(raw, step) == [(name, content), ("second", b"2")]


def test_names_that_are_no_utf8_keep_their_bytes() -> None:
    name = b"bad\xff".decode(errors="surrogateescape")
    assert walked(archive((name, b"x"))) == [(name, b"x")]


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1024, 1535, 1536, 2047])
def test_an_archive_that_was_cut_is_an_error(cut: int) -> None:
    raw = archive(("a", b"x" * 600))[:cut]
    with pytest.raises(Broken):
        walked(raw)


def test_what_is_no_archive_is_an_error() -> None:
    with pytest.raises(Broken, match="header"):
        walked(b"\x7fELF" + bytes(2000))


def test_an_entry_of_a_negative_size_is_an_error() -> None:
    info = tarfile.TarInfo("x")
    info.size = -512
    with pytest.raises(Broken):
        walked(of(info))


def test_a_name_of_megabytes_is_an_error_before_it_is_held() -> None:
    info = special(tarfile.GNUTYPE_LONGNAME, "././@LongLink")
    info.size = 50_000_000
    with pytest.raises(Broken, match="name of 50000000 bytes"):
        list(TarWalk().feed(of(info)))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a/..", "..", "./../x"])
def test_a_name_that_leads_out_of_the_tree_is_refused(name: str) -> None:
    with pytest.raises(Unsafe):
        checked(archive((name, b"x")))


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", "", "../../.."])
def test_a_link_that_leads_out_of_the_tree_is_refused(target: str) -> None:
    with pytest.raises(Unsafe, match="link"):
        checked(archive(("x", target)))


def test_links_within_the_tree_are_kept() -> None:
    assert checked(archive(("d", None), ("d/x", "../y"), ("z", "d/x"))) == [("d",), ("d", "x"), ("z",)]


def test_a_file_behind_a_link_of_the_same_archive_is_refused() -> None:
    with pytest.raises(Unsafe, match="behind a link"):
        checked(archive(("d", "e"), ("d/x", b"x")))


def test_two_links_that_together_lead_out_are_refused() -> None:
    """CVE-2025-4517: each leads into the tree by its words, and by way of the first the second does not."""
    with pytest.raises(Unsafe, match="link"):
        checked(archive(("a", None), ("a/b", None), ("a/b/c", "../.."), ("d", "a/b/c/..")))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V", b"M"])
def test_devices_and_pipes_are_refused(kind: bytes) -> None:
    with pytest.raises(Unsafe, match="no file, directory or link"):
        checked(of(special(kind)))


def test_a_hard_link_to_what_did_not_come_before_is_refused() -> None:
    with pytest.raises(Unsafe, match="hard link"):
        checked(of(special(tarfile.LNKTYPE, target="etc/shadow")))
    with pytest.raises(Unsafe):
        checked(of(special(tarfile.LNKTYPE, target="/etc/shadow")))


def test_a_hard_link_to_a_link_is_refused() -> None:
    raw = archive(("a", b"x"), ("a", "b"))
    rules = TreeRules()
    for one in TarWalk().feed(raw):
        if isinstance(one, Entry):
            rules.check(one)
    linked = next(
        one for one in TarWalk().feed(of(special(tarfile.LNKTYPE, "c", "a"))) if isinstance(one, Entry)
    )
    with pytest.raises(Unsafe, match="hard link"):
        rules.check(linked)


def test_the_tree_itself_is_no_file() -> None:
    with pytest.raises(Unsafe, match="tree itself"):
        checked(archive((".", b"x")))


@given(st.lists(st.sampled_from(["..", ".", "a", "b"]), max_size=6), st.integers(1, 4))
def test_a_link_that_stays_within_leads_to_nothing_outside(steps: list[str], depth: int) -> None:
    place = depth - 1
    for step in steps if stays_within(("d",) * depth, "/".join(steps)) else []:
        place += {"..": -1, ".": 0}.get(step, 1)
        assert place >= 0
