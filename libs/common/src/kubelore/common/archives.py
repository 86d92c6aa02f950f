"""Tar streams, taken apart as they come, and what of them may be unpacked.

Nobody who sends an archive is trusted: not the tar of a container, not who
uploads. The walk is over the bytes as they arrive, in bounded memory, and ends
with an error unless the archive was whole. Headers are read and written by
`tarfile`; which entries are safe is decided here and not by its filters, of
which the ones in older Pythons can be walked around (CVE-2025-4517).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kubelore.common.errors import Invalid, TooLarge

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_NAME_BYTES = 64 * 1024
"""Of a name that comes in an entry of its own, and of the extended header that may hold one."""
MAX_ENTRIES = 1_000_000
MAX_LINKED = 200_000
"""Files that a later entry may be a hard link to."""

_ENCODING, _ERRORS = "utf-8", "surrogateescape"
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_NUMBERS = {"size": int, "uid": int, "gid": int, "mtime": float}
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


class Broken(Invalid):
    """The archive is no whole tar stream (code `BrokenArchive`)."""

    def __init__(self, detail: str, *, remedy: str | None = None, **extra: Any) -> None:
        super().__init__(detail, remedy=remedy, code="BrokenArchive", **extra)


class Sort(StrEnum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "directory"
    LINK = "link"
    HARD_LINK = "hard link"
    OTHER = "device, pipe or the like"


_SORTS = {
    tarfile.REGTYPE: Sort.FILE,
    tarfile.AREGTYPE: Sort.FILE,
    tarfile.CONTTYPE: Sort.FILE,
    tarfile.DIRTYPE: Sort.FOLDER,
    tarfile.SYMTYPE: Sort.LINK,
    tarfile.LNKTYPE: Sort.HARD_LINK,
}


@dataclass(slots=True)
class Entry:
    """One entry. Names that are no UTF-8 hold their bytes as surrogates, as everywhere in Python.

    `head` is what introduces it in a stream, `size` what follows.
    """

    name: str
    sort: Sort
    size: int
    head: bytes
    info: tarfile.TarInfo

    @property
    def padding(self) -> bytes:
        """What fills its last block up."""
        return bytes(-self.size % BLOCK)


class TarWalk:
    """Give it the bytes of an archive; it gives the entries, and after each the pieces of its content."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._content = 0
        self._padding = 0
        self._special: tarfile.TarInfo | None = None
        self._words: dict[str, str] = {}
        self._entries = 0
        self._zeros = 0

    @property
    def whole(self) -> bool:
        """Whether the two blocks of zeros were seen that end an archive."""
        return self._zeros >= 2

    def feed(self, data: bytes | memoryview) -> Iterator[Entry | memoryview]:
        """What is whole by now. Raises Broken, and TooLarge for more than 1,000,000 entries."""
        view = memoryview(data)
        while view and not self.whole:
            if self._content:
                piece, view = view[: self._content], view[self._content :]
                self._content -= len(piece)
                yield piece
            elif self._padding:
                skipped = min(self._padding, len(view))
                self._padding -= skipped
                view = view[skipped:]
            else:
                wanted = self._wanted() - len(self._held)
                self._held += view[:wanted]
                view = view[wanted:]
                if len(self._held) == self._wanted() and (entry := self._taken()):
                    yield entry

    def finish(self) -> None:
        """Raise Broken unless the archive has come to its end."""
        if not self.whole:
            raise Broken("the archive ends before its end", remedy="Begin again: what came is not all of it.")

    def _wanted(self) -> int:
        return BLOCK if self._special is None else -(-self._special.size // BLOCK) * BLOCK

    def _taken(self) -> Entry | None:
        block = bytes(self._held)
        self._held.clear()
        if self._special is not None:
            special, self._special = self._special, None
            self._words |= _words(special, block[: special.size])
            return None
        if not block.strip(b"\0"):
            self._zeros += 1
            return None
        self._zeros = 0
        return self._entry(_header(block), block)

    def _entry(self, info: tarfile.TarInfo, block: bytes) -> Entry | None:
        if info.type in _LONG or info.type in _EXTENDED:
            if not 0 < info.size <= MAX_NAME_BYTES:
                raise Broken(f"a name of {info.size} bytes in the archive")
            self._special = info
            return None
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise TooLarge(f"more than {MAX_ENTRIES:,} entries in one archive", remedy="Take smaller trees.")
        plain = not self._words
        _apply(info, self._words)
        self._words = {}
        if info.type in _WITHOUT_CONTENT:
            plain = plain and not info.size
            info.size = 0
        if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
            raise Broken(f"the archive has an entry that is not understood: {info.name[:200]!r}")
        self._content, self._padding = info.size, -info.size % BLOCK
        sort = _SORTS.get(info.type, Sort.OTHER)
        head = block if plain else head_of(info)
        return Entry(info.name, sort, info.size, head, info)


def head_of(info: tarfile.TarInfo) -> bytes:
    """What introduces an entry, as GNU tar and busybox both read it."""
    return info.tobuf(tarfile.GNU_FORMAT, _ENCODING, _ERRORS)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, _ENCODING, _ERRORS)
    except (tarfile.HeaderError, ValueError) as error:
        raise Broken("the archive has a header that is none") from error


def _words(special: tarfile.TarInfo, content: bytes) -> dict[str, str]:
    if special.type in _LONG:
        return {_LONG[special.type]: content.partition(b"\0")[0].decode(_ENCODING, _ERRORS)}
    if special.type == tarfile.XGLTYPE:
        return {}
    found: dict[str, str] = {}
    rest = content
    while rest:
        length, space, _ = rest.partition(b" ")
        if not (
            space and length.isdigit() and len(length) < 8 and len(length) + 3 < int(length) <= len(rest)
        ):
            raise Broken("the archive has an extended header that is none")
        key, _, value = rest[len(length) + 1 : int(length) - 1].partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise Broken("the archive has a sparse file", remedy="Make it without --sparse.")
        found[key.decode(_ENCODING, _ERRORS)] = value.decode(_ENCODING, _ERRORS)
        rest = rest[int(length) :]
    return found


def _apply(info: tarfile.TarInfo, words: dict[str, str]) -> None:
    info.name = words.get("path", info.name)
    info.linkname = words.get("linkpath", info.linkname)
    for key, number in _NUMBERS.items():
        if key in words:
            try:
                setattr(info, key, number(words[key]))
            except (ValueError, OverflowError) as error:
                raise Broken(f"the archive says {key}={words[key][:40]!r}") from error
    info.pax_headers = {}


class Unsafe(Invalid):
    """An entry that leads out of the tree, or is of a sort that no tree may hold (code `UnsafeEntry`)."""

    def __init__(self, detail: str, *, remedy: str | None = None, **extra: Any) -> None:
        super().__init__(detail, remedy=remedy, code="UnsafeEntry", **extra)


class TreeRules:
    """Which entries of one archive may be unpacked.

    A name lies within the tree, and none of the directories that it names is a
    link of this archive. A link leads to something within the tree, by `..` only
    at its beginning, so that no other link on the way can bend it. A hard link
    leads to a file that came before it.
    """

    def __init__(self) -> None:
        self._links: set[str] = set()
        self._files: set[int] = set()

    def check(self, entry: Entry) -> tuple[str, ...]:
        """The parts of the name of an entry, none for the tree itself. Raises Unsafe."""
        if why := self.objection(entry):
            raise Unsafe(f"{entry.name[:200]!r} in the archive {why}", remedy="Leave it out of the archive.")
        return _parts(entry.name, "is named")

    def objection(self, entry: Entry) -> str:
        """Why an entry may not be unpacked; empty when it may. Raises Unsafe for a name that leads out of the tree."""
        parts = _parts(entry.name, "is named")
        if self._behind_link(parts):
            return "lies behind a link of the same archive"
        if entry.sort is Sort.OTHER:
            return "is no file, directory or link"
        if not parts and entry.sort is not Sort.FOLDER:
            return "takes the place of the tree itself"
        name = "/".join(parts)
        if entry.sort is Sort.LINK:
            if not stays_within(parts, entry.info.linkname):
                return "is a link that leads out of the tree"
            self._add_link(name)
            return ""
        self._links.discard(name)
        if entry.sort is Sort.HARD_LINK:
            target = _parts(entry.info.linkname, "is a hard link to")
            known = hash("/".join(target)) in self._files
            return (
                ""
                if known and not self._behind_link((*target, ""))
                else "is a hard link to no file before it"
            )
        if entry.sort is Sort.FILE and len(self._files) < MAX_LINKED:
            self._files.add(hash(name))
        return ""

    def _behind_link(self, parts: tuple[str, ...]) -> bool:
        return any("/".join(parts[:depth]) in self._links for depth in range(1, len(parts)))

    def _add_link(self, name: str) -> None:
        if len(self._links) >= MAX_LINKED:
            raise TooLarge(f"more than {MAX_LINKED:,} links in one archive", remedy="Take smaller trees.")
        self._links.add(name)


def stays_within(parts: tuple[str, ...], target: str) -> bool:
    """Whether a link at a place within a tree leads to a place within it, whatever other links are there."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    steps = [step for step in target.split("/") if step not in ("", ".")]
    up = 0
    while up < len(steps) and steps[up] == "..":
        up += 1
    return ".." not in steps[up:] and up < len(parts)


def _parts(name: str, how: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise Unsafe(
            f"an entry of the archive {how} {name[:200]!r}, which leads out of the tree",
            remedy="Make the archive of what lies below one directory.",
        )
    return parts
