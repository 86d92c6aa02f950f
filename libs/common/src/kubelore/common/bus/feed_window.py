"""The window of the feed in memory, and the ids of its events. No input or output here."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import msgspec

from kubelore.common.contracts.changes import Record
from kubelore.common.errors import BadRequest

WINDOW_BYTES = 16 * 1024 * 1024
_EVENT_SUBJECT_PARTS = 6
"""kubelore.v1.events.resource.<cluster>.p<nn>; a fence has fewer, and only counts."""

_DECODER = msgspec.msgpack.Decoder(list[Record])


class FeedReset(msgspec.Struct, frozen=True):
    """Changes are missing from the feed here: list again. An empty cluster means any of them."""

    cluster: str = ""


class Passed(msgspec.Struct, frozen=True):
    """Nothing of the clusters asked for lies here: the event id alone moves on."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Behind which record a reader stands: `index` records of message `sequence` have been read."""

    epoch: int
    sequence: int
    index: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}.{self.sequence}.{self.index}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read an event id; raises BadRequest when it is not one."""
        parts = text.split(".")
        if len(parts) != 3 or len(text) > 64 or not all(part.isascii() and part.isdigit() for part in parts):
            raise BadRequest(
                f"{text[:80]!r} is no event id", remedy="Use an id that this API gave, unchanged."
            )
        return cls(*(int(part) for part in parts))


@dataclass(frozen=True)
class Batch:
    """One message of the feed, or (with `missing`) the place of messages that are not there."""

    sequence: int
    following: int
    """The sequence of the message after it."""
    cluster: str = ""
    data: bytes = b""
    missing: bool = False

    @classmethod
    def of(cls, subject: str, sequence: int, data: bytes) -> Batch:
        """A message of CHANGES, by the subject and the sequence that it has there."""
        parts = subject.split(".")
        if len(parts) != _EVENT_SUBJECT_PARTS:
            return cls(sequence, sequence + 1)
        return cls(sequence, sequence + 1, cluster=parts[4], data=data)

    @cached_property
    def records(self) -> list[Record]:
        """Decoded once for all readers; none of them may change a record."""
        return _DECODER.decode(self.data) if self.data else []

    def events(
        self, epoch: int, skip: int, clusters: frozenset[str] | None
    ) -> list[tuple[str, Record | FeedReset | Passed]]:
        """Ids and records behind the first `skip`, of the clusters asked for."""
        behind = str(Position(epoch, self.following))
        if self.missing:
            return [(behind, FeedReset())]
        if clusters is not None and self.cluster not in clusters:
            return [(behind, Passed())]
        last = len(self.records)
        return [
            (behind if index == last else str(Position(epoch, self.sequence, index)), record)
            for index, record in enumerate(self.records, start=1)
            if index > skip
        ]


def in_order(expected: int, batch: Batch) -> list[Batch]:
    """What to take in when `batch` arrives and `expected` was due: nothing twice, and a hole made visible."""
    if batch.sequence < expected:
        return []
    if batch.sequence > expected:
        return [Batch(expected, batch.sequence, missing=True), batch]
    return [batch]


class Window:
    """The newest batches, consecutive, bounded in bytes. `following` is the sequence due next."""

    def __init__(self, following: int, max_bytes: int = WINDOW_BYTES) -> None:
        self.following = following
        self._batches: OrderedDict[int, Batch] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    def append(self, batch: Batch) -> None:
        """Take in a batch as it arrives."""
        for taken in in_order(self.following, batch):
            self._batches[taken.sequence] = taken
            self._bytes += len(taken.data)
            self.following = taken.following
        while self._bytes > self._max_bytes and len(self._batches) > 1:
            _, dropped = self._batches.popitem(last=False)
            self._bytes -= len(dropped.data)

    def holds(self, sequence: int) -> bool:
        """Whether a reader at `sequence` can go on from here, now or when the next batch arrives."""
        return sequence >= self.following or sequence in self._batches

    def get(self, sequence: int) -> Batch | None:
        """The batch at `sequence`."""
        return self._batches.get(sequence)
