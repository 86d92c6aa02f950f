"""What was read by one owner and is not stored yet: lines with the positions behind them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.segments import Resume, SegmentBatch, StreamGap, StreamKey, StreamLines

LINE_BYTES = 80
"""What a line costs besides its text."""


class OwnerPending:
    """The lines of one policy on one node. `size` is about what they take in memory, `since` when the first came."""

    def __init__(self, owner: str, policy: str, cluster: str, resume: Resume) -> None:
        self.owner = owner
        self.policy = policy
        self.cluster = cluster
        self.cursors = dict(resume.cursors)
        self.size = 0
        self.since = 0.0
        self._sequence = resume.sequence
        self._streams: dict[StreamKey, StreamLines] = {}

    def add(self, stream: StreamKey, lines: list[LogLine], cursor: Cursor, now: float) -> int:
        """Lines of a container and the position after them; how many bytes they take."""
        if not self._streams:
            self.since = now
        self._of(stream).lines += lines
        self.cursors[cursor_key(stream.uid, stream.container)] = cursor
        size = sum(len(line.text) for line in lines) + LINE_BYTES * len(lines)
        self.size += size
        return size

    def miss(self, stream: StreamKey, gap: StreamGap, now: float) -> None:
        """Lines that nobody could read."""
        if not self._streams:
            self.since = now
        self._of(stream).gaps.append(gap)

    def take(self) -> SegmentBatch | None:
        """All of it as the next batch, None when there is nothing; from now on it is the store's."""
        if not self._streams:
            return None
        self._sequence += 1
        batch = SegmentBatch(
            owner=self.owner,
            sequence=self._sequence,
            policy=self.policy,
            cluster=self.cluster,
            streams=list(self._streams.values()),
            cursors=dict(self.cursors),
        )
        self._streams, self.size = {}, 0
        return batch

    def forget(self, keys: Iterable[str]) -> None:
        """Containers that are gone for good need no position."""
        for key in keys:
            self.cursors.pop(key, None)

    def _of(self, stream: StreamKey) -> StreamLines:
        found = self._streams.get(stream)
        if found is None:
            found = self._streams[stream] = StreamLines(stream, [], [])
        return found


def cursor_key(pod_uid: str, container: str) -> str:
    """Under which a container's position is kept."""
    return f"{pod_uid}/{container}"


def furthest(cursors: Iterable[Cursor]) -> Cursor | None:
    """Of the positions that several owners left of one container, the last."""
    return max(cursors, key=lambda cursor: (cursor.run, cursor.at, cursor.count), default=None)
