"""Which blocks of a segment can hold a word: a filter of tokens, and the vocabulary of letters. Pure.

A token is a run of ASCII letters, digits and `_`, or of bytes above ASCII, in
lower case. Each block sets, for each of its tokens, the row of the token's
hash; rows are 64 times as many as the tokens of the fullest block, so that a
word that is nowhere is sought in vain in 1.6% of the blocks. The places that
are set are stored as differences, in chunks of which a question needs one.

A searched text may begin or end within a token. Runs of letters are few, so a
segment also lists them (its vocabulary): the text is sought there, and then the
rows of the runs that hold it. What begins or ends within digits has to be
sought in the blocks.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from itertools import accumulate
from operator import sub
from zlib import crc32

import msgspec
from pyroaring import BitMap

from kubelore.container_ops.line_content import without_ansi

ROWS_PER_TOKEN = 64
CHUNK_PLACES = 8192
MAX_VOCABULARY = 2 * 1024 * 1024
SHORTEST_RUN = 3

_TOKEN = re.compile(rb"[0-9a-z_]{2,}|[\x80-\xff]{2,}")
_RUN = re.compile(rb"[a-z_]{3,}|[\x80-\xff]{3,}")
_KELVIN, _LONG_S = "\N{KELVIN SIGN}".encode(), "\N{LATIN SMALL LETTER LONG S}".encode()


class Need(msgspec.Struct, frozen=True):
    """What a line must hold: a whole token or run (`exact`), or one that begins or ends so, or holds it."""

    text: bytes
    exact: bool = False
    begins: bool = False
    ends: bool = False


def fold(text: bytes) -> bytes:
    """A text as tokens are compared: without case, where the two letters that fold into ASCII are such."""
    folded = text.lower()
    if _KELVIN in folded or _LONG_S in folded:
        return folded.replace(_KELVIN, b"k").replace(_LONG_S, b"s")
    return folded


def bare_lines(text: bytes) -> bytes:
    """A text of many lines, each without its terminal sequences."""
    if b"\x1b" not in text:
        return text
    bare = without_ansi(text)
    if bare.count(b"\n") == text.count(b"\n"):
        return bare
    return b"\n".join([without_ansi(line) for line in text.split(b"\n")])


def needs_of(literal: bytes) -> list[Need]:
    """What the lines must hold that hold a text (folded; a line feed in it stands for any end of a token)."""
    needs = [
        Need(token[0], exact=True)
        for token in _TOKEN.finditer(literal)
        if token.start() > 0 and token.end() < len(literal)
    ]
    for run in _RUN.finditer(literal):
        begins, ends = run.start() > 0, run.end() < len(literal)
        needs.append(Need(run[0], exact=begins and ends, begins=begins, ends=ends))
    return needs


class BuiltFilter(msgspec.Struct):
    """A filter as it is stored: its chunks, and the vocabulary (empty where it would be too large)."""

    rows: int
    rows_per_chunk: int
    chunks: list[bytes]
    vocabulary: bytes


class FilterBuilder:
    """Takes the texts of a segment's blocks in their order."""

    def __init__(self) -> None:
        self._hashes: list[array[int]] = []
        self._runs: set[bytes] = set()
        self._room = MAX_VOCABULARY

    def add(self, text: bytes) -> None:
        """The text of the next block."""
        tokens = set(_TOKEN.findall(fold(bare_lines(text))))
        runs = set(_RUN.findall(b" ".join(tokens)))
        new = runs - self._runs if self._room > 0 else set[bytes]()
        self._room -= sum(map(len, new)) + len(new)
        self._runs |= new
        self._hashes.append(array("I", map(crc32, tokens | runs)))

    def finish(self) -> BuiltFilter:
        """The filter of all that was added."""
        columns = len(self._hashes)
        rows = ROWS_PER_TOKEN * max(1, *map(len, self._hashes))
        places = BitMap()
        for column, hashes in enumerate(self._hashes):
            places.update([value % rows * columns + column for value in hashes])
        per_chunk = max(1, rows * CHUNK_PLACES // max(CHUNK_PLACES, len(places)))
        ordered = places.to_array()
        width = per_chunk * columns
        chunks: list[bytes] = []
        start = 0
        for base in range(0, rows * columns, width):
            end = bisect_left(ordered, base + width, start)
            chunks.append(_packed(ordered[start:end], base))
            start = end
        vocabulary = b"\n%s\n" % b"\n".join(sorted(self._runs)) if self._room > 0 else b""
        return BuiltFilter(rows, per_chunk, chunks, vocabulary)


def row_of(token: bytes, rows: int) -> int:
    """The row that a token sets."""
    return crc32(token) % rows


def columns_in(chunk: bytes, row: int, columns: int) -> set[int]:
    """Which blocks set a row, counted from the chunk's first."""
    places = _unpacked(chunk)
    first = bisect_left(places, row * columns)
    last = bisect_left(places, (row + 1) * columns)
    return {place - row * columns for place in places[first:last]}


def runs_with(vocabulary: bytes, need: Need, *, most: int) -> list[bytes] | None:
    """The runs of a vocabulary that hold what is needed; None where they are more than `most`."""
    text = (b"\n" if need.begins else b"") + need.text + (b"\n" if need.ends else b"")
    found: list[bytes] = []
    at = vocabulary.find(text)
    while at >= 0:
        inner = at + (1 if need.begins else 0)
        start = vocabulary.rfind(b"\n", 0, inner) + 1
        end = vocabulary.index(b"\n", inner)
        if len(found) == most:
            return None
        found.append(vocabulary[start:end])
        at = vocabulary.find(text, end)
    return found


def _packed(places: array[int], base: int) -> bytes:
    differences = array("I", map(sub, places, [base, *places[:-1]])).tobytes()
    return b"".join(differences[plane::4] for plane in range(4))


def _unpacked(chunk: bytes) -> list[int]:
    count = len(chunk) // 4
    mixed = bytearray(len(chunk))
    for plane in range(4):
        mixed[plane::4] = chunk[plane * count : (plane + 1) * count]
    differences = array("I")
    differences.frombytes(bytes(mixed))
    return list(accumulate(differences))
