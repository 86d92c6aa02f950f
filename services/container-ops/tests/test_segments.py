"""Segments of logs: what goes in comes out, once, and only for who holds the keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kubelore.common.crypto import Keyring
from kubelore.common.errors import Conflict, IntegrityError
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.segment_blocks import PieceSealer, pack_block, unpack_block
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segment_writing import write_streams
from kubelore.container_ops.segments import Segment, SegmentBatch, StreamGap, StreamKey, StreamLines

SECOND = 1_000_000_000
TEXTS = st.binary(max_size=60).filter(lambda text: b"\n" not in text)
LINES = st.lists(st.builds(LogLine, st.integers(0, 2**62), TEXTS, st.booleans()), min_size=1, max_size=40)


def stream(pod: str = "web-1", **told: object) -> StreamKey:
    return StreamKey(
        cluster="prod",
        namespace="shop",
        pod=pod,
        uid=f"uid-{pod}",
        container="web",
        **told,  # type: ignore[arg-type]
    )


def said(*texts: str, at: int = 1, pod: str = "web-1") -> StreamLines:
    lines = [LogLine((at + place) * SECOND, text.encode()) for place, text in enumerate(texts)]
    return StreamLines(stream(pod), lines)


def batch(
    sequence: int, *streams: StreamLines, owner: str = "prod.node-1", policy: str = "p"
) -> SegmentBatch:
    return SegmentBatch(
        owner=owner,
        sequence=sequence,
        policy=policy,
        cluster="prod",
        streams=list(streams),
        cursors={one.stream.pod: Cursor().moved(one.lines) for one in streams},
    )


@pytest_asyncio.fixture(loop_scope="session")
async def store(settings: CommonSettings, tmp_path: Path) -> AsyncIterator[SegmentStore]:
    async with await open_database(settings) as database:
        blobs = BlobStore.open(f"file://{tmp_path}/blobs")
        made = SegmentStore(database, blobs, Keyring.create(tmp_path / "logs.json", "logs"))
        await made.prepare()
        yield made


async def held(store: SegmentStore, policy: str = "p") -> list[Segment]:
    ids = [one.id async for one in store.repository.of_policy(policy)]
    return await store.repository.with_ids(ids)


async def texts(store: SegmentStore, segment: Segment) -> list[bytes]:
    sealer = store.sealer(segment)
    numbers = range(len(segment.index.blocks))
    pieces = await store.read(segment, numbers)
    return [
        line.text
        for number, piece in zip(numbers, pieces, strict=True)
        for line in unpack_block(sealer.open(piece, number)).lines()
    ]


@given(LINES)
def test_a_block_gives_back_its_lines(lines: list[LogLine]) -> None:
    assert unpack_block(pack_block(lines, [(0, len(lines))])).lines() == lines


@given(st.lists(LINES, min_size=1, max_size=4), st.booleans())
@hypothesis_settings(deadline=None)
def test_a_segment_gives_back_the_lines_of_every_stream(parts: list[list[LogLine]], filtered: bool) -> None:
    sealer = PieceSealer(bytes(32), "b")
    written = write_streams(
        [StreamLines(stream(f"web-{place}"), lines) for place, lines in enumerate(parts)],
        sealer,
        filtered=filtered,
    )
    found: list[LogLine] = []
    for number, _ in enumerate(written.index.blocks):
        found += unpack_block(sealer.open(written.pieces[number], number)).lines()
    assert found == [line for lines in parts for line in lines]
    assert written.lines == len(found)


def test_a_piece_opens_in_its_own_place_only() -> None:
    sealer = PieceSealer(bytes(32), "blob")
    sealed = sealer.seal(b"lines", 3)
    assert sealer.open(sealed, 3) == b"lines"
    with pytest.raises(IntegrityError):
        sealer.open(sealed, 4)
    with pytest.raises(IntegrityError):
        PieceSealer(bytes(32), "another").open(sealed, 3)


async def test_a_batch_is_kept_with_its_lines_and_cursors(store: SegmentStore) -> None:
    first = batch(1, said("one", "two"), said("three", pod="web-2"))
    await store.append(first)
    (segment,) = await held(store)
    assert await texts(store, segment) == [b"one", b"two", b"three"]
    resumed = await store.resume("prod.node-1")
    assert (resumed.sequence, resumed.cursors) == (1, first.cursors)


async def test_an_owner_that_never_appended_starts_at_nothing(store: SegmentStore) -> None:
    resumed = await store.resume("prod.node-9")
    assert (resumed.sequence, resumed.cursors) == (0, {})


async def test_a_batch_appended_again_is_there_once(store: SegmentStore) -> None:
    twice = batch(1, said("once"))
    await store.append(twice)
    await store.append(twice)
    assert (await store.held("p")).lines == 1


async def test_of_two_who_collect_for_one_owner_the_second_is_refused(store: SegmentStore) -> None:
    await store.append(batch(1, said("mine")))
    with pytest.raises(Conflict):
        await store.append(batch(1, said("mine too")))
    assert (await store.held("p")).lines == 1


async def test_a_batch_of_a_gap_alone_is_kept(store: SegmentStore) -> None:
    gap = StreamGap(SECOND, 2 * SECOND, "rotated away")
    await store.append(batch(1, StreamLines(stream(), [], [gap])))
    (segment,) = await held(store)
    assert segment.blob == ""
    assert segment.index.streams[0].gaps == [gap]


async def test_what_is_older_than_the_limit_expires_and_where_its_owner_stands_stays(
    store: SegmentStore,
) -> None:
    await store.append(batch(1, said("old")))
    await store.append(batch(2, said("old too")))
    gone = await store.expire("p", before=3 * SECOND)
    assert (gone.segments, gone.lines) == (2, 2)
    assert (await store.held("p")).lines == 0
    assert (await store.resume("prod.node-1")).sequence == 2
    assert [info async for info in store.blobs.list("log-segments")] == []


async def test_the_oldest_go_first_when_there_is_too_much(store: SegmentStore) -> None:
    for sequence in range(1, 5):
        await store.append(batch(sequence, said("x" * 500, at=sequence * 10)))
    each = (await store.held("p")).stored_bytes // 4
    await store.expire("p", max_bytes=2 * each + 10)
    assert [one.sequence for one in await held(store) if one.lines] == [3, 4]


async def test_another_keyring_opens_nothing(store: SegmentStore, tmp_path: Path) -> None:
    await store.append(batch(1, said("secret")))
    (segment,) = await held(store)
    stranger = SegmentStore.__new__(SegmentStore)
    stranger._keyring = Keyring.create(tmp_path / "other.json", "logs")
    with pytest.raises(IntegrityError):
        stranger.sealer(segment)
