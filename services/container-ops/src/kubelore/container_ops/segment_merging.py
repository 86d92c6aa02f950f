"""Small segments become large ones, which compress better and have a filter; what belongs to nothing goes.

The merged segment names those it is made of, which hides them from whoever
meets it. They are retired right after, and go an hour later, so that a search
that is under way still finds and reads them.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from kubelore.common.bus import Leases
from kubelore.common.errors import AlreadyExists, KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.segment_blocks import PieceSealer, unpack_block
from kubelore.container_ops.segment_store import FILTERED_BYTES, FOLDER, SegmentStore
from kubelore.container_ops.segment_writing import SegmentWriter, WrittenSegment, place_of
from kubelore.container_ops.segments import Segment, StreamGap, StreamKey

log = get_logger(__name__)

LEASE = "logs.merging"
EVERY_S = 30.0
TARGET_BYTES = 32 * 1024 * 1024
"""Text of one merged segment, at most."""
WORTH_BYTES = 16 * 1024 * 1024
WORTH_COUNT = 32
SETTLED_S = 3600.0
"""What was written so long ago is merged even when it is little."""
LOOKED_AT = 1000
ORPHANED_S = 3600.0
_DAY_NS = 86_400_000_000_000
_NS = 1_000_000_000

Part = tuple[Segment, PieceSealer, Sequence[bytes]]


class SegmentMerging:
    """Looks after the segments of all owners."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._swept_at = 0.0

    async def run(self, leases: Leases, every_s: float = EVERY_S) -> None:
        """Merge whenever this replica holds the lease, until cancelled."""
        while True:
            lease = await leases.wait(LEASE)
            try:
                while lease.held:
                    await self._round()
                    await asyncio.sleep(every_s)
            finally:
                await lease.release()

    async def _round(self) -> None:
        try:
            while await self.merge_round():
                pass
            if time.monotonic() - self._swept_at > ORPHANED_S:
                await self.sweep()
                self._swept_at = time.monotonic()
        except KubeloreError as error:
            log.info("log segments not merged", reason=error.reason, detail=error.detail)

    async def merge_round(self, now_ns: int | None = None) -> int:
        """Merge what is worth it; how many segments were taken up."""
        now = time.time_ns() if now_ns is None else now_ns
        repository = self._store.repository
        found = await repository.small(FILTERED_BYTES, now, limit=LOOKED_AT)
        done = await repository.merged([one.id for one in found]) if found else set[str]()
        if done:
            await repository.retire(sorted(done), now)
        heads = {owner: await repository.newest(owner) for owner in {one.owner for one in found if one.owner}}
        groups: defaultdict[tuple[str, str, int], list[Segment]] = defaultdict(list)
        for one in found:
            if one.id not in done and heads.get(one.owner) != one.id:
                groups[one.cluster, one.policy, one.last // _DAY_NS].append(one)
        taken = 0
        for group in groups.values():
            for chosen in worth_merging(group, now):
                await self._merge([one.id for one in chosen])
                taken += len(chosen)
        return taken

    async def _merge(self, ids: list[str]) -> None:
        parts: list[Part] = []
        for one in sorted(
            await self._store.repository.with_ids(ids), key=lambda one: (one.first, one.written)
        ):
            pieces = await self._store.read(one, range(len(one.index.blocks))) if one.blob else []
            parts.append((one, self._store.sealer(one), pieces))
        if not parts:
            return  # They have expired meanwhile.
        cluster, policy = parts[0][0].cluster, parts[0][0].policy
        blob, key = self._store.new_blob(cluster)
        filtered = sum(one.raw for one, _, _ in parts) >= FILTERED_BYTES
        written = await asyncio.to_thread(merged, parts, PieceSealer(key, blob), filtered=filtered)
        segment = self._store.described(written, blob, key, cluster=cluster, policy=policy)
        segment.id, segment.level, segment.merges = f"merged.{os.urandom(12).hex()}", int(filtered), ids
        await self._store.put(segment, written)
        try:
            await self._store.repository.add(segment)
        except AlreadyExists:
            return  # Another replica merged them; the blob is swept.
        await self._store.repository.retire(ids, time.time_ns())

    async def sweep(self, orphaned_s: float = ORPHANED_S) -> int:
        """Forget what is retired for an hour, and delete blobs that belong to no segment for as long; how many."""
        before = datetime.now(UTC) - timedelta(seconds=orphaned_s)
        await self._store.repository.remove_retired(int(before.timestamp() * _NS))
        old = [one.key async for one in self._store.blobs.list(FOLDER) if one.modified_at < before]
        gone = 0
        for start in range(0, len(old), 500):
            some = old[start : start + 500]
            for key in set(some) - await self._store.repository.blobs(some):
                await self._store.blobs.delete(key)
                gone += 1
        return gone


def worth_merging(group: list[Segment], now: int) -> Iterator[list[Segment]]:
    """Those of a cluster, policy and day that become one, in the order they were written."""
    chosen: list[Segment] = []
    size = 0
    for one in [*sorted(group, key=lambda one: one.written), None]:
        if one is not None and size + one.raw <= TARGET_BYTES:
            chosen.append(one)
            size += one.raw
            continue
        settled = bool(chosen) and now - chosen[0].written > SETTLED_S * _NS
        if len(chosen) > 1 and (size >= WORTH_BYTES or len(chosen) >= WORTH_COUNT or settled):
            yield chosen
        chosen, size = ([one], one.raw) if one is not None else ([], 0)


def merged(parts: Sequence[Part], sealer: PieceSealer, *, filtered: bool) -> WrittenSegment:
    """One segment of several, the lines of each stream in the order of the parts. Raises IntegrityError."""
    writer = SegmentWriter(sealer, filtered=filtered)
    ordered = heapq.merge(
        *(_streams_of(part, order) for order, part in enumerate(parts)), key=lambda one: one[:2]
    )
    for _, _, key, lines, gaps in ordered:
        writer.add(key, lines, gaps)
    return writer.finish()


_Piece = tuple[tuple[str, ...], int, StreamKey, list[LogLine], list[StreamGap]]


def _streams_of(part: Part, order: int) -> Iterator[_Piece]:
    """The streams of a segment in its order: the gaps of each, then its lines block by block."""
    segment, sealer, pieces = part
    streams = segment.index.streams
    told = 0
    for number, piece in enumerate(pieces):
        block = unpack_block(sealer.open(piece, number))
        lines = block.lines()
        start = 0
        for place, count in block.columns.runs:
            while told <= place:
                key = streams[told].key
                yield place_of(key), order, key, [], streams[told].gaps
                told += 1
            key = streams[place].key
            yield place_of(key), order, key, lines[start : start + count], []
            start += count
    for one in streams[told:]:
        yield place_of(one.key), order, one.key, [], one.gaps
