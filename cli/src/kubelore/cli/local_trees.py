"""Trees on this machine: made into an archive, and made from one. What leads out of the tree is never followed."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from kubelore.common.archives import END, Entry, Sort, TarWalk, TreeRules, head_of, stays_within
from kubelore.common.errors import Conflict, Unavailable

PIECE = 256 * 1024
MAX_NAMED = 100
_ROOT = os.O_RDONLY | os.O_DIRECTORY
_FOLDER = _ROOT | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Archiving:
    """The archive of a tree, piece by piece; `left_out` names what is in none."""

    def __init__(self, root: Path, *, owners: bool) -> None:
        self._root = root
        self._owners = owners
        self.left_out: list[str] = []
        self.entries = 0

    def pieces(self) -> Iterator[bytes]:
        """Its bytes. Raises Unavailable for a file that changes its size while it is read."""
        out = bytearray()
        for parts, place, found in self._walk((), str(self._root)):
            info = self._info(parts, place, found)
            if info is None:
                continue
            self.entries += 1
            out += head_of(info)
            if info.type == tarfile.REGTYPE:
                for piece in _content(place, info.size):
                    out += piece
                    if len(out) >= PIECE:
                        yield bytes(out)
                        out.clear()
                out += bytes(-info.size % 512)
        yield bytes(out + END)

    def _walk(
        self, parts: tuple[str, ...], place: str
    ) -> Iterator[tuple[tuple[str, ...], str, os.stat_result]]:
        yield parts, place, Path(place).stat(follow_symlinks=not parts)
        with os.scandir(place) as found:
            entries = sorted(found, key=lambda one: one.name)
        for one in entries:
            below = (*parts, one.name)
            if one.is_dir(follow_symlinks=False):
                yield from self._walk(below, one.path)
            else:
                yield below, one.path, one.stat(follow_symlinks=False)

    def _info(self, parts: tuple[str, ...], place: str, found: os.stat_result) -> tarfile.TarInfo | None:
        info = tarfile.TarInfo("/".join((".", *parts)))
        info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
        if self._owners:
            info.uid, info.gid = found.st_uid, found.st_gid
        if stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISREG(found.st_mode):
            info.size = found.st_size
        elif stat.S_ISLNK(found.st_mode) and stays_within(parts, target := str(Path(place).readlink())):
            info.type, info.linkname = tarfile.SYMTYPE, target
        else:
            links = stat.S_ISLNK(found.st_mode)
            why = "is a link that leads out of the tree" if links else "is no file, directory or link"
            self.left_out.append(f"{place} {why}")
            return None
        return info


def _content(place: str, size: int) -> Iterator[bytes]:
    left = size
    with Path(place).open("rb") as file:
        while left:
            piece = file.read(min(PIECE, left))
            if not piece:
                raise Unavailable(f"{place} became shorter while it was read", remedy="Copy it again.")
            left -= len(piece)
            yield piece


class Unpacking:
    """Makes a tree from an archive, below a directory that is there. Use as a context manager.

    Every directory on the way is opened by its own, and no link is followed;
    what stands where a file or link belongs is replaced, and never written to.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _ROOT)
        self._walk = TarWalk()
        self._rules = TreeRules()
        self._open: tuple[tuple[str, ...], int] = ((), self._root)
        self._file: BinaryIO | None = None
        self._entry: Entry | None = None
        self._modes: list[tuple[tuple[str, ...], int]] = []
        self.entries = 0

    def __enter__(self) -> Unpacking:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._leave()
        os.close(self._root)

    def feed(self, data: bytes | memoryview) -> None:
        """Some more of the archive. Raises Unsafe, Broken, Conflict."""
        for found in self._walk.feed(data):
            if isinstance(found, Entry):
                self._end_file()
                self._make(found)
            elif self._file is not None:
                self._file.write(found)

    def finish(self) -> None:
        """The archive has ended. Raises Broken when it is not whole."""
        self._end_file()
        self._walk.finish()
        for parts, mode in reversed(self._modes):
            os.fchmod(self._folder(parts), mode)

    def _make(self, entry: Entry) -> None:
        parts = self._rules.check(entry)
        self.entries += 1
        self._entry = entry
        mode = entry.info.mode & 0o777
        if entry.sort is Sort.FOLDER:
            self._modes.append((parts, mode))
            self._folder(parts)
            return
        folder, name = self._folder(parts[:-1]), parts[-1]
        with suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=folder)
            except (IsADirectoryError, PermissionError) as error:
                raise Conflict(f"{'/'.join(parts)} is a directory here and none in the container") from error
        if entry.sort is Sort.LINK:
            os.symlink(entry.info.linkname, name, dir_fd=folder)
        elif entry.sort is Sort.HARD_LINK:
            self._hard_link(entry, folder, name)
        else:
            self._file = os.fdopen(os.open(name, _NEW, mode, dir_fd=folder), "wb", buffering=0)
            os.fchmod(self._file.fileno(), mode)

    def _hard_link(self, entry: Entry, folder: int, name: str) -> None:
        steps = tuple(step for step in entry.info.linkname.split("/") if step not in ("", "."))
        here = os.dup(folder)
        try:
            there = self._folder(steps[:-1])
            os.link(steps[-1], name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(here)

    def _end_file(self) -> None:
        if self._file is not None and self._entry is not None:
            os.utime(self._file.fileno(), (self._entry.info.mtime, self._entry.info.mtime))
            self._file.close()
        self._file = None

    def _folder(self, parts: tuple[str, ...]) -> int:
        """A directory below the root, made when it is not there; no part of the way may be a link."""
        if self._open[0] == parts:
            return self._open[1]
        self._leave()
        here = os.dup(self._root)
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=here)
            try:
                below = os.open(part, _FOLDER, dir_fd=here)
            except OSError as error:
                os.close(here)
                raise Conflict(f"{'/'.join(parts)} is no directory here") from error
            os.close(here)
            here = below
        self._open = (parts, here)
        return here

    def _leave(self) -> None:
        if self._open[1] != self._root:
            os.close(self._open[1])
        self._open = ((), self._root)
