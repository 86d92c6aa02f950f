"""Merging of segments: every line stays, once and in its order, and nothing is merged twice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from kubelore.common.crypto import Keyring
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.segment_blocks import unpack_block
from kubelore.container_ops.segment_merging import SETTLED_S, SegmentMerging
from kubelore.container_ops.segment_repository import RETIRED, SegmentScope
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import SegmentBatch, StreamGap, StreamKey, StreamLines

SECOND = 1_000_000_000


@pytest_asyncio.fixture(loop_scope="session")
async def store(settings: CommonSettings, tmp_path: Path) -> AsyncIterator[SegmentStore]:
    async with await open_database(settings) as database:
        blobs = BlobStore.open(f"file://{tmp_path}/blobs")
        made = SegmentStore(database, blobs, Keyring.create(tmp_path / "logs.json", "logs"))
        await made.prepare()
        yield made


async def fill(store: SegmentStore, batches: int) -> dict[str, list[str]]:
    """Batches of two pods, and one that is not merged behind them; the lines of each pod."""
    said: dict[str, list[str]] = {"web-1": [], "web-2": []}
    for sequence in range(1, batches + 1):
        streams: list[StreamLines] = []
        for pod, kept in said.items():
            key = StreamKey(cluster="prod", namespace="shop", pod=pod, uid=pod, container="c")
            texts = [f"{pod} {sequence}.{place} {'x' * 40}" for place in range(3)]
            lines = [LogLine((sequence * 10 + at) * SECOND, text.encode()) for at, text in enumerate(texts)]
            gaps = [StreamGap(sequence, sequence, "lost")] if pod == "web-2" else []
            streams.append(StreamLines(key, lines, gaps))
            kept += texts
        await store.append(
            SegmentBatch(owner="o", sequence=sequence, policy="p", cluster="prod", streams=streams)
        )
    return said


async def everything(store: SegmentStore) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    ids = [one.id async for one in store.repository.of_policy("p") if one.level != RETIRED]
    for segment in sorted(await store.repository.with_ids(ids), key=lambda one: one.first):
        sealer = store.sealer(segment)
        for number, piece in enumerate(await store.read(segment, range(len(segment.index.blocks)))):
            block = unpack_block(sealer.open(piece, number))
            for stream, line in zip(block.columns.streams(), block.lines(), strict=True):
                pod = segment.index.streams[stream].key.pod
                found.setdefault(pod, []).append(line.text.decode())
    return found


async def test_many_small_segments_become_one_with_all_lines_and_gaps(store: SegmentStore) -> None:
    said = await fill(store, 40)
    merging = SegmentMerging(store)
    assert await merging.merge_round() == 39
    assert await everything(store) == said
    ids = [one.id async for one in store.repository.of_policy("p") if one.level != RETIRED]
    segments = await store.repository.with_ids(ids)
    assert sum(len(one.gaps) for segment in segments for one in segment.index.streams) == 40
    assert len(segments) == 2
    assert (await store.resume("o")).sequence == 40


async def test_a_few_small_segments_are_left_until_they_are_old(store: SegmentStore) -> None:
    said = await fill(store, 5)
    merging = SegmentMerging(store)
    assert await merging.merge_round() == 0
    assert await merging.merge_round(time.time_ns() + int((SETTLED_S + 60) * SECOND)) == 4
    assert await everything(store) == said


async def test_what_was_merged_and_not_yet_deleted_is_not_merged_again(store: SegmentStore) -> None:
    said = await fill(store, 40)
    repository, kept = store.repository, []
    ids = [one.id async for one in repository.of_policy("p")]
    kept = await repository.with_ids(ids)
    merging = SegmentMerging(store)
    await merging.merge_round()
    # As after a kill between the two steps.
    retired = [one.id for one in kept if one.sequence < 40]
    await repository.remove(retired)
    for one in kept:
        if one.id in retired:
            await repository.add(one)
    assert await merging.merge_round() == 0
    assert await everything(store) == said


async def test_blobs_that_belong_to_nothing_are_swept(store: SegmentStore) -> None:
    await fill(store, 40)
    merging = SegmentMerging(store)
    await merging.merge_round()
    assert await merging.sweep(orphaned_s=3600) == 0
    assert await merging.sweep(orphaned_s=-1) == 39
    assert len([one async for one in store.blobs.list("log-segments")]) == 2


async def test_what_is_held_is_counted_once_while_the_merged_are_still_there(store: SegmentStore) -> None:
    await fill(store, 40)
    before = await store.held("p")
    await SegmentMerging(store).merge_round()
    after = await store.held("p")
    assert (after.lines, after.segments) == (before.lines, 2)
    assert (await store.expire("p", max_bytes=0)).lines == before.lines
    assert (await store.held("p")).lines == 0
    assert not [one async for one in store.blobs.list("log-segments")]


async def test_what_is_let_go_to_make_room_is_not_found_again_in_its_parts(store: SegmentStore) -> None:
    await fill(store, 40)
    await SegmentMerging(store).merge_round()
    held = await store.held("p")
    assert (await store.expire("p", max_bytes=held.stored_bytes - 1)).segments == 1
    assert not [one async for one in store.repository.of_policy("p") if one.level == RETIRED]
    assert (await store.held("p")).segments == 1


async def test_a_search_that_begins_later_does_not_look_through_what_was_merged(store: SegmentStore) -> None:
    await fill(store, 40)
    before = time.time_ns()
    assert await SegmentMerging(store).merge_round() == 39
    scope, look = SegmentScope(clusters=("prod",)), store.repository.overlapping
    assert len(await look(scope, newest_first=True, began=before)) == 41
    assert len(await look(scope, newest_first=True, began=time.time_ns())) == 2
