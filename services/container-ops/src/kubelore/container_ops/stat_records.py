"""What `stat -c FORMAT` says of files, GNU's and busybox's alike, as it comes. Pure.

A name has no slash in it and a path that we gave no two in a row, so that `//`
ends what the names' own characters could not: newlines, quotes and all. Where a
link leads may hold anything; its length is what stat says is its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from kubelore.common.contracts.files import FileInfo, FileType
from kubelore.common.errors import UpstreamError
from kubelore.container_ops.file_paths import path_text, shown

FORMAT = "//%f/%s/%u/%g/%U/%G/%Y/%n//%N//"

_FIELDS = re.compile(rb"//([0-9a-f]{1,8})/(\d{1,20})/(\d{1,10})/(\d{1,10})/([^/\n]*)/([^/\n]*)/(-?\d{1,20})/")
_MAX_FIELDS = 600
_MAX_RECORD = 64 * 1024
_END = b"//\n"
Found: TypeAlias = tuple[bytes, FileInfo]
_TYPES: dict[int, FileType] = {
    0o100000: "file",
    0o040000: "directory",
    0o120000: "link",
    0o010000: "fifo",
    0o140000: "socket",
    0o060000: "block-device",
    0o020000: "char-device",
}


@dataclass(frozen=True, slots=True)
class _Place:
    directory: bytes
    prefix: bytes


class Records:
    """Reads the files of one directory from pieces of output; `prefix` is what each name was given with."""

    def __init__(self, directory: bytes, prefix: bytes) -> None:
        self._place = _Place(directory.rstrip(b"/"), prefix)
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Found]:
        """The names and files that are whole by now. Raises UpstreamError for what stat does not say."""
        return self._read(piece, ended=False)

    def end(self) -> Iterator[Found]:
        """What is left. Raises UpstreamError when that is no whole record."""
        yield from self._read(b"", ended=True)
        if self._rest:
            raise _strange(self._rest)

    def _read(self, piece: bytes, *, ended: bool) -> Iterator[Found]:
        self._rest += piece
        start = 0
        while (found := _record(self._rest, start, self._place, ended=ended)) is not None:
            name, info, start = found
            yield name, info
        self._rest = self._rest[start:]
        if len(self._rest) > _MAX_RECORD:
            raise _strange(self._rest)


def single(path: bytes, said: bytes) -> tuple[FileInfo, bytes]:
    """The one file that stat was asked for by its path, and the output behind it. Raises UpstreamError."""
    directory, _, name = path.rpartition(b"/")
    found = _record(said, 0, _Place(directory, directory + b"/"), ended=True)
    if found is None or found[0] != name:
        raise _strange(said)
    return found[1], said[found[2] :]


def _record(said: bytes, start: int, place: _Place, *, ended: bool) -> tuple[bytes, FileInfo, int] | None:
    """The record that begins at `start`, and where it ends; None when it is not all here."""
    fields = _FIELDS.match(said, start)
    if fields is None:
        if len(said) - start > _MAX_FIELDS:
            raise _strange(said[start:])
        return None
    named = fields.end() + len(place.prefix)
    name_end = said.find(b"//", named)
    if name_end < 0:
        return None
    name = said[named:name_end]
    if said[fields.end() : named] != place.prefix or b"/" in name:
        raise _strange(said[start:])
    mode, size = int(fields[1], 16), int(fields[2])
    ending = _ending(said, name_end + 2, place.prefix + name, size if _is_link(mode) else None, ended=ended)
    if ending is None:
        return None
    target, end = ending
    return name, _info(place.directory + b"/" + name, name, mode, fields, target), end


def _ending(
    said: bytes, at: int, named: bytes, target_size: int | None, *, ended: bool
) -> tuple[bytes, int] | None:
    """Where a link leads, and where the record ends; None when that is not all here.

    busybox puts name and target in quotes. What cannot be read of a link is
    left out by both. Links in /proc have another size than their targets: those
    end at the next end of a record.
    """
    quote = b"'" if said[at : at + 1] == b"'" else b""
    arrow = at + len(named) + 2 * len(quote)
    for end in (at, arrow):
        if said[end : end + len(_END)] == _END:
            return b"", end + len(_END)
    begin = arrow + len(b" -> ") + len(quote)
    closing = quote + _END
    if target_size is None:
        if len(said) >= arrow + len(_END) or ended:
            raise _strange(said[at:])
        return None
    end = begin + target_size
    if said[end : end + len(closing)] != closing:
        if len(said) < end + len(closing) and not ended:
            return None
        end = said.find(closing, begin)
    return (said[begin:end], end + len(closing)) if end >= 0 else None


def _info(whole: bytes, name: bytes, mode: int, fields: re.Match[bytes], target: bytes) -> FileInfo:
    return FileInfo(
        name=shown(name or b"/"),
        path=path_text(whole),
        type=_TYPES.get(mode & 0o170000, "other"),
        size=int(fields[2]),
        mode=f"{mode & 0o7777:04o}",
        owner=shown(fields[5]),
        group=shown(fields[6]),
        uid=int(fields[3]),
        gid=int(fields[4]),
        modified=_moment(int(fields[7])),
        target=shown(target),
    )


def _is_link(mode: int) -> bool:
    return mode & 0o170000 == 0o120000


def _moment(seconds: int) -> str:
    """RFC 3339; what no calendar holds becomes the year 1970."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00Z"


def _strange(said: bytes) -> UpstreamError:
    return UpstreamError(
        f"`stat` in the container said something unknown: {shown(said[:80])!r}",
        remedy="Its image may replace `stat` by another program.",
    )
