"""A block of lines as bytes: text first, so that it is searched as it lies, then columns of times and runs.

    zstd( text | tail | length of the tail (4) )      tail = msgpack [runs, cuts, first time, planes]

Lines are joined by line feeds, which no line holds. Times are differences as
8-byte numbers, turned into planes (all lowest bytes, then the next), of which
zstd leaves little. Each piece of a segment (a block, or a chunk of its filter)
is sealed by AES-256-GCM under the segment's own key, with its number as nonce,
bound to the blob and its place.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import sub

import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kubelore.common.crypto.context import bound
from kubelore.common.errors import IntegrityError
from kubelore.container_ops.lines import LogLine

BLOCK_BYTES = 512 * 1024
"""A block ends behind the line that goes over it."""
MAX_PLAIN_BYTES = 64 * 1024 * 1024
LEVEL = 6
_TAIL = struct.Struct(">I")

Runs = list[tuple[int, int]]
"""Which stream the lines are of, one after the other: (place of the stream, number of lines)."""


class Columns(msgspec.Struct, array_like=True):
    """All of a block but its text."""

    runs: Runs
    cuts: list[int]
    first: int
    planes: bytes

    @property
    def lines(self) -> int:
        """How many lines the block has."""
        return sum(count for _, count in self.runs)

    def times(self) -> list[int]:
        """The time of each line (ns since 1970)."""
        count = len(self.planes) // 8
        mixed = bytearray(len(self.planes))
        for place in range(8):
            mixed[place::8] = self.planes[place * count : (place + 1) * count]
        differences = array("q")
        differences.frombytes(bytes(mixed))
        return list(accumulate(differences, initial=self.first))

    def streams(self) -> Iterator[int]:
        """The stream of each line."""
        for stream, count in self.runs:
            for _ in range(count):
                yield stream


class PlainBlock(msgspec.Struct):
    """A block that was opened."""

    text: bytes
    columns: Columns

    def lines(self) -> list[LogLine]:
        """All lines in their order."""
        cuts = set(self.columns.cuts)
        return [
            LogLine(at, text, place not in cuts)
            for place, (at, text) in enumerate(zip(self.columns.times(), self.text.split(b"\n"), strict=True))
        ]


def pack_block(lines: Sequence[LogLine], runs: Runs) -> bytes:
    """Lines as the plain bytes of a block; there is at least one."""
    times = [line.at for line in lines]
    differences = array("q", map(sub, times[1:], times)).tobytes()
    planes = b"".join(differences[place::8] for place in range(8))
    cuts = [place for place, line in enumerate(lines) if not line.whole]
    tail = msgspec.msgpack.encode(Columns(runs, cuts, times[0], planes))
    return b"\n".join([line.text for line in lines]) + tail + _TAIL.pack(len(tail))


def unpack_block(plain: bytes) -> PlainBlock:
    """What `pack_block` packed. Raises IntegrityError."""
    try:
        (size,) = _TAIL.unpack_from(plain, len(plain) - _TAIL.size)
        text_end = len(plain) - _TAIL.size - size
        columns = msgspec.msgpack.decode(memoryview(plain)[text_end : -_TAIL.size], type=Columns)
    except (struct.error, msgspec.MsgspecError) as error:
        raise IntegrityError("a block of a log segment is damaged") from error
    return PlainBlock(plain[:text_end], columns)


class PieceSealer:
    """Seals and opens the numbered pieces of one blob."""

    def __init__(self, key: bytes, blob: str) -> None:
        self._key = AESGCM(key)
        self._blob = blob

    def seal(self, plain: bytes, number: int, *, level: int = LEVEL) -> bytes:
        """Compressed and sealed; a number is sealed once."""
        frame = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(plain)
        return self._key.encrypt(_nonce(number), frame, self._place(number))

    def open(self, sealed: bytes | memoryview, number: int) -> bytes:
        """The plain bytes. Raises IntegrityError for what is altered, or of another place."""
        try:
            frame = self._key.decrypt(_nonce(number), sealed, self._place(number))
            return zstandard.ZstdDecompressor().decompress(frame, max_output_size=MAX_PLAIN_BYTES)
        except (InvalidTag, zstandard.ZstdError) as error:
            raise IntegrityError(f"piece {number} of the log segment {self._blob} does not verify") from error

    def _place(self, number: int) -> bytes:
        return bound(b"kubelore log segment v1", self._blob, number.to_bytes(4, "big"))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
