"""What was read and is not stored yet."""

from __future__ import annotations

from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.owner_pending import OwnerPending, cursor_key, furthest
from kubelore.container_ops.segments import Resume, StreamGap, StreamKey

STREAM = StreamKey(cluster="prod", namespace="shop", pod="web-1", uid="u1", container="web")


def pending(sequence: int = 0, **cursors: Cursor) -> OwnerPending:
    return OwnerPending("p/prod/node-1", "p", "prod", Resume(sequence, cursors))


def test_nothing_read_is_no_batch() -> None:
    assert pending().take() is None


def test_a_batch_holds_the_lines_and_the_position_behind_them() -> None:
    owner = pending(sequence=7)
    owner.add(STREAM, [LogLine(1, b"one")], Cursor(1, 1), 0.0)
    owner.add(STREAM, [LogLine(2, b"two")], Cursor(2, 1), 0.0)
    batch = owner.take()
    assert batch is not None
    assert (batch.sequence, batch.cursors) == (8, {cursor_key("u1", "web"): Cursor(2, 1)})
    assert [line.text for line in batch.streams[0].lines] == [b"one", b"two"]


def test_what_comes_after_a_batch_is_in_the_next() -> None:
    owner = pending()
    owner.add(STREAM, [LogLine(1, b"one")], Cursor(1, 1), 0.0)
    first = owner.take()
    owner.add(STREAM, [LogLine(2, b"two")], Cursor(2, 1), 0.0)
    second = owner.take()
    assert first is not None
    assert second is not None
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.cursors[cursor_key("u1", "web")] == Cursor(1, 1)


def test_positions_of_containers_that_were_quiet_are_in_every_batch() -> None:
    owner = pending(**{cursor_key("u2", "db"): Cursor(5, 1)})
    owner.add(STREAM, [LogLine(1, b"one")], Cursor(1, 1), 0.0)
    batch = owner.take()
    assert batch is not None
    assert batch.cursors[cursor_key("u2", "db")] == Cursor(5, 1)


def test_a_gap_alone_is_a_batch() -> None:
    owner = pending()
    owner.miss(STREAM, StreamGap(1, 2, "rotated"), 0.0)
    batch = owner.take()
    assert batch is not None
    assert batch.streams[0].gaps == [StreamGap(1, 2, "rotated")]


def test_the_furthest_of_several_positions_counts() -> None:
    assert furthest([Cursor(9, 1, run=0), Cursor(3, 1, run=1), Cursor(2, 2, run=1)]) == Cursor(3, 1, run=1)
    assert furthest([]) is None
