"""A segment's blob from its lines: blocks that hold few streams, and a filter over them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.segment_blocks import BLOCK_BYTES, PieceSealer, Runs, pack_block
from kubelore.container_ops.segments import (
    Block,
    FilterTable,
    SegmentIndex,
    StoredStream,
    StreamGap,
    StreamKey,
    StreamLines,
)
from kubelore.container_ops.token_filter import FilterBuilder


class WrittenSegment(msgspec.Struct):
    """The pieces of a blob and what is in them."""

    pieces: list[bytes]
    index: SegmentIndex
    raw: int

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return sum(map(len, self.pieces))

    @property
    def lines(self) -> int:
        """Lines in the blob."""
        return sum(stream.lines for stream in self.index.streams)

    def span(self) -> tuple[int, int]:
        """The times of the first and the last line or gap (ns); zeros where there is nothing."""
        streams = [one for one in self.index.streams if one.lines]
        gaps = [gap for one in self.index.streams for gap in one.gaps]
        first = [one.first for one in streams] + [gap.since for gap in gaps]
        last = [one.last for one in streams] + [gap.until for gap in gaps]
        return min(first, default=0), max(last, default=0)


def place_of(key: StreamKey) -> tuple[str, ...]:
    """The order of streams in a segment: what is alike lies together, and compresses well."""
    return (key.namespace, key.workload, key.pod, key.uid, key.container, f"{key.restart:08d}")


class SegmentWriter:
    """Takes the streams in the order of `place_of`; the lines of one may come in several parts."""

    def __init__(self, sealer: PieceSealer, *, filtered: bool) -> None:
        self._sealer = sealer
        self._filter = FilterBuilder() if filtered else None
        self._pieces: list[bytes] = []
        self._streams: list[StoredStream] = []
        self._blocks: list[Block] = []
        self._lines: list[LogLine] = []
        self._runs: Runs = []
        self._raw = self._all_raw = 0

    def add(self, key: StreamKey, lines: Sequence[LogLine], gaps: Iterable[StreamGap] = ()) -> None:
        """More lines of a stream, and gaps in it."""
        if not self._streams or self._streams[-1].key != key:
            self._streams.append(StoredStream(key, 0, 0, 0, []))
        stream = self._streams[-1]
        stream.gaps.extend(gaps)
        if lines:
            times = [line.at for line in lines]
            stream.first = min(times) if not stream.lines else min(stream.first, *times)
            stream.last = max(stream.last, *times)
            stream.lines += len(lines)
        start = 0
        for place, line in enumerate(lines):
            self._raw += len(line.text) + 1
            if self._raw >= BLOCK_BYTES:
                self._take(lines[start : place + 1])
                self._flush()
                start = place + 1
        self._take(lines[start:])

    def finish(self) -> WrittenSegment:
        """The segment; nothing can be added behind it."""
        if self._lines:
            self._flush()
        table = self._finish_filter() if self._filter is not None and self._blocks else None
        return WrittenSegment(self._pieces, SegmentIndex(self._streams, self._blocks, table), self._all_raw)

    def _take(self, lines: Sequence[LogLine]) -> None:
        if lines:
            self._lines.extend(lines)
            self._runs.append((len(self._streams) - 1, len(lines)))

    def _flush(self) -> None:
        plain = pack_block(self._lines, self._runs)
        times = [line.at for line in self._lines]
        sealed = self._sealer.seal(plain, len(self._pieces))
        if self._filter is not None:
            self._filter.add(b"\n".join([line.text for line in self._lines]))
        self._pieces.append(sealed)
        self._blocks.append(
            Block(
                len(sealed),
                self._raw,
                len(times),
                min(times),
                max(times),
                self._runs[0][0],
                self._runs[-1][0],
            )
        )
        self._all_raw += self._raw
        self._raw, self._lines, self._runs = 0, [], []

    def _finish_filter(self) -> FilterTable:
        assert self._filter is not None
        built = self._filter.finish()
        sizes: list[int] = []
        for plain in [*built.chunks, built.vocabulary]:
            self._pieces.append(self._sealer.seal(plain, len(self._pieces)))
            sizes.append(len(self._pieces[-1]))
        vocabulary = sizes.pop()
        return FilterTable(built.rows, built.rows_per_chunk, sizes, vocabulary if built.vocabulary else 0)


def write_streams(streams: Sequence[StreamLines], sealer: PieceSealer, *, filtered: bool) -> WrittenSegment:
    """A segment of some streams."""
    writer = SegmentWriter(sealer, filtered=filtered)
    for one in sorted(streams, key=lambda one: place_of(one.stream)):
        writer.add(one.stream, one.lines, one.gaps)
    return writer.finish()
