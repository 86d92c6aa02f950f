"""Trees as what goes out: tar as it came but checked, the same gzipped, or zip. Pure: bytes in, bytes out."""

from __future__ import annotations

import stat
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import IO, Protocol

from kubelore.common.archives import END, Entry, Sort, TarWalk, TreeRules
from kubelore.common.errors import TooLarge

MAX_NAMED = 100
"""Of what was left out, so many are named."""
MAX_ZIPPED = 200_000
"""A zip ends with a directory of everything in it, which is held until then."""
_LEVEL = 6
_FIRST_ZIP_YEAR = 1980


class Writer(Protocol):
    """Makes an archive; `take` gives what is to be sent by now."""

    def entry(self, entry: Entry) -> None:
        """The next entry."""
        ...

    def content(self, piece: memoryview) -> None:
        """Some of the content of the last entry."""
        ...

    def finish(self) -> None:
        """No entry follows."""
        ...

    def take(self) -> bytes:
        """What is ready, once."""
        ...


class TarWriter:
    """Entries as they came."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._padding = b""

    def entry(self, entry: Entry) -> None:
        """The next entry."""
        self._out += self._padding
        self._out += entry.head
        self._padding = entry.padding

    def content(self, piece: memoryview) -> None:
        """Some of the content of the last entry."""
        self._out += piece

    def finish(self) -> None:
        """No entry follows."""
        self._out += self._padding + END

    def take(self) -> bytes:
        """What is ready, once."""
        taken, self._out = bytes(self._out), bytearray()
        return taken


class GzipWriter(TarWriter):
    """A tar, gzipped."""

    def __init__(self) -> None:
        super().__init__()
        self._gzip = zlib.compressobj(_LEVEL, wbits=31)
        self._rest = b""

    def finish(self) -> None:
        """No entry follows."""
        super().finish()
        self._rest = self._gzip.compress(super().take()) + self._gzip.flush()

    def take(self) -> bytes:
        """What is ready, once."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        return self._gzip.compress(super().take())


class _Sink:
    """What a zip is written into: it cannot be sought in, so that sizes follow the content."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        return None


class ZipWriter:
    """A zip. Links are kept as Info-ZIP does; a hard link cannot be, and is left out before."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED)  # type: ignore[arg-type]
        self._open: IO[bytes] | None = None
        self._entries = 0

    def entry(self, entry: Entry) -> None:
        """The next entry. Raises TooLarge."""
        self._close()
        self._entries += 1
        if self._entries > MAX_ZIPPED:
            raise TooLarge(f"more than {MAX_ZIPPED:,} entries for a zip", remedy="Take it as tar.")
        name = _text(entry.name.removeprefix("./")) or "./"
        made = zipfile.ZipInfo(name, _zip_time(float(entry.info.mtime)))
        made.create_system = 3
        made.compress_type = zipfile.ZIP_DEFLATED
        kind = {Sort.FOLDER: stat.S_IFDIR, Sort.LINK: stat.S_IFLNK}.get(entry.sort, stat.S_IFREG)
        made.external_attr = (kind | stat.S_IMODE(entry.info.mode)) << 16
        if entry.sort is Sort.FILE:
            self._open = self._zip.open(made, "w", force_zip64=entry.size > 2**31)
            return
        if entry.sort is Sort.FOLDER:
            made.filename = name.rstrip("/") + "/"
        self._zip.writestr(made, _text(entry.info.linkname) if entry.sort is Sort.LINK else "")

    def content(self, piece: memoryview) -> None:
        """Some of the content of the last entry."""
        if self._open is not None:
            self._open.write(piece)

    def finish(self) -> None:
        """No entry follows."""
        self._close()
        self._zip.close()

    def take(self) -> bytes:
        """What is ready, once."""
        taken, self._sink.data = bytes(self._sink.data), bytearray()
        return taken

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


WRITERS = {"tar": TarWriter, "tar.gz": GzipWriter, "zip": ZipWriter}


@dataclass
class Packing:
    """From the tar of a container to the archive that is wanted: what is unsafe is left out and named."""

    writer: Writer
    entries: int = 0
    left_out: list[str] = field(default_factory=list)
    left_out_count: int = 0
    _walk: TarWalk = field(default_factory=TarWalk)
    _rules: TreeRules = field(default_factory=TreeRules)
    _skipping: bool = False

    def feed(self, data: bytes) -> bytes:
        """What is to be sent by now. Raises Broken, Unsafe (a name that leads out of the tree) and TooLarge."""
        for found in self._walk.feed(data):
            if isinstance(found, Entry):
                self._skipping = not self._passes(found)
                if not self._skipping:
                    self.entries += 1
                    self.writer.entry(found)
            elif not self._skipping:
                self.writer.content(found)
        return self.writer.take()

    def finish(self) -> bytes:
        """The rest. Raises Broken when the archive is not whole."""
        self._walk.finish()
        self.writer.finish()
        return self.writer.take()

    def _passes(self, entry: Entry) -> bool:
        why = self._rules.objection(entry)
        if not why and entry.sort is Sort.HARD_LINK and isinstance(self.writer, ZipWriter):
            why = "is a hard link, which a zip has none of"
        if why:
            self.left_out_count += 1
            if len(self.left_out) < MAX_NAMED:
                self.left_out.append(f"{_text(entry.name)} {why}")
        return not why


def _text(name: str) -> str:
    """A name for where only UTF-8 may be: other bytes as backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    year, month, day, hour, minute, second = time.gmtime(max(seconds, 0))[:6]
    return (year, month, day, hour, minute, second) if year >= _FIRST_ZIP_YEAR else (1980, 1, 1, 0, 0, 0)
