"""What is kept of logs, as it goes into the store of segments and as its index says. Pure.

A batch is what one owner (whoever collects, by a lease) has read since its last
batch: it becomes one segment, a sealed blob of lines with one document that
says what is in it and how far the owner has come.
"""

from __future__ import annotations

import os
from itertools import accumulate

import msgspec

from kubelore.container_ops.lines import Cursor, LogLine


class StreamKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of one container: `uid` is its pod's, `restart` its restart count.

    `workload` is written as a target is (`deployments.apps/web`); `labels` are
    the pod's, sorted. They are how logs are found when the pod is gone.
    """

    cluster: str
    namespace: str
    pod: str
    uid: str
    container: str
    restart: int = 0
    node: str = ""
    workload: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class StreamGap(msgspec.Struct, frozen=True, array_like=True):
    """Lines between two times (ns since 1970) that nobody could read, and why."""

    since: int
    until: int
    reason: str


class StreamLines(msgspec.Struct):
    """Lines of one stream in their order, and what is missing among them."""

    stream: StreamKey
    lines: list[LogLine]
    gaps: list[StreamGap] = []


class SegmentBatch(msgspec.Struct, kw_only=True):
    """What becomes one segment. `streams` are of one cluster and one policy.

    `sequence` is one more than the owner's last (`SegmentStore.resume` tells it).
    `cursors` are all of the owner's, whether they moved or not, by a key of the
    owner's own: they replace those of the batch before. The same batch may be
    appended again when it is not known whether it was.
    """

    owner: str
    sequence: int
    policy: str
    cluster: str
    streams: list[StreamLines]
    cursors: dict[str, Cursor] = {}
    id: str = msgspec.field(default_factory=lambda: os.urandom(12).hex())


class Resume(msgspec.Struct):
    """How far an owner has come: the sequence of its last batch (0: none) and its cursors."""

    sequence: int = 0
    cursors: dict[str, Cursor] = {}


class Held(msgspec.Struct):
    """What is held of a policy; times in ns since 1970, 0 where nothing is."""

    segments: int = 0
    lines: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    oldest: int = 0
    newest: int = 0


class Expired(msgspec.Struct):
    """What a round of expiry took away."""

    segments: int = 0
    lines: int = 0
    stored_bytes: int = 0


class StoredStream(msgspec.Struct, array_like=True):
    """A stream as a segment has it; `first` and `last` are times of lines (ns)."""

    key: StreamKey
    lines: int
    first: int
    last: int
    gaps: list[StreamGap]


class Block(msgspec.Struct, array_like=True, frozen=True):
    """Lines that are sealed together; `first_stream` to `last_stream` are places in the segment's list."""

    size: int
    raw: int
    lines: int
    first: int
    last: int
    first_stream: int
    last_stream: int


class FilterTable(msgspec.Struct, array_like=True, frozen=True):
    """Where the filter of tokens lies behind the blocks: sizes of its sealed chunks, and of the vocabulary."""

    rows: int
    rows_per_chunk: int
    chunks: list[int]
    vocabulary: int


class SegmentIndex(msgspec.Struct):
    """What is in a segment's blob, in its order."""

    streams: list[StoredStream]
    blocks: list[Block]
    filter: FilterTable | None = None

    def pieces(self) -> list[tuple[int, int]]:
        """Where each piece lies, as (offset, size): the blocks, the chunks of the filter, the vocabulary."""
        sizes = [block.size for block in self.blocks]
        if self.filter is not None:
            sizes += [*self.filter.chunks, self.filter.vocabulary]
        return list(zip(accumulate(sizes, initial=0), sizes, strict=False))


class Segment(msgspec.Struct, kw_only=True):
    """A segment's document. `key` is its sealed data key; `blob` is empty when no line is in it any more."""

    id: str
    owner: str
    sequence: int
    batch: str
    policy: str
    cluster: str
    first: int
    last: int
    lines: int
    raw: int
    size: int
    level: int
    blob: str
    key: bytes
    written: int
    merges: list[str] = []
    index: SegmentIndex
