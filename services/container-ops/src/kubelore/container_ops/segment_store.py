"""The store of segments: what was collected goes in exactly once, and comes out block by block.

A batch is one sealed blob and one document. The blob is written first; a
document that is refused or lost leaves a blob that belongs to nothing, which
the upkeep takes away later.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence

from kubelore.common.crypto import Keyring
from kubelore.common.errors import AlreadyExists, Conflict
from kubelore.common.store import BlobStore, Database, blob_key
from kubelore.container_ops.segment_blocks import PieceSealer
from kubelore.container_ops.segment_repository import RETIRED, SegmentRepository
from kubelore.container_ops.segment_writing import WrittenSegment, write_streams
from kubelore.container_ops.segments import Expired, Held, Resume, Segment, SegmentBatch

FOLDER = "log-segments"
KEY_BYTES = 32
FILTERED_BYTES = 8 * 1024 * 1024
"""A batch with so much text gets its filter at once; a smaller one when it is merged with others."""


class SegmentStore:
    """Segments in the blob store and the database. Every method may raise Unavailable and DeadlineExceeded."""

    def __init__(self, database: Database, blobs: BlobStore, keyring: Keyring) -> None:
        self.repository = SegmentRepository(database)
        self.blobs = blobs
        self._keyring = keyring

    async def prepare(self) -> None:
        """Make the indexes of the database."""
        await self.repository.prepare()

    async def resume(self, owner: str) -> Resume:
        """How far an owner came: what its next batch's sequence follows, and its cursors."""
        return await self.repository.resume(owner)

    async def append(self, batch: SegmentBatch) -> None:
        """Keep a batch, exactly once: when this returns it is there, durably, with its cursors.

        Raises Conflict when another batch has the sequence: somebody else collects
        for this owner, so resume or stop. After Unavailable and DeadlineExceeded it
        is open whether the batch is there; append the same one again.
        """
        blob, key = self.new_blob(batch.cluster)
        raw = sum(len(line.text) + 1 for one in batch.streams for line in one.lines)
        filtered = raw >= FILTERED_BYTES
        written = await asyncio.to_thread(
            write_streams, batch.streams, PieceSealer(key, blob), filtered=filtered
        )
        segment = self.described(written, blob, key, cluster=batch.cluster, policy=batch.policy)
        segment.id = f"{batch.owner}#{batch.sequence:012d}"
        segment.owner, segment.sequence, segment.batch = batch.owner, batch.sequence, batch.id
        segment.level = 1 if filtered else 0
        await self.put(segment, written)
        try:
            await self.repository.add(segment, batch.cursors)
        except AlreadyExists as error:
            if await self.repository.batch_of(segment.id) != batch.id:
                raise Conflict(
                    f"somebody else collects logs for {batch.owner}", remedy="Resume from what it kept."
                ) from error

    async def read(self, segment: Segment, numbers: Sequence[int]) -> list[bytes]:
        """Some pieces of a segment as they lie, sealed; neighbours in one request. Raises NotFound."""
        places = segment.index.pieces()
        found: list[bytes] = []
        for start, end in _neighbours(numbers):
            offset = places[start][0]
            size = sum(places[number][1] for number in range(start, end))
            got = await self.blobs.get_range(segment.blob, offset, size)
            found += [got[places[number][0] - offset :][: places[number][1]] for number in range(start, end)]
        return found

    def sealer(self, segment: Segment) -> PieceSealer:
        """What opens the pieces of a segment. Raises IntegrityError."""
        key = self._keyring.open(segment.key, context=_context(segment.blob))
        return PieceSealer(key, segment.blob)

    async def covered(self, cluster: str) -> dict[tuple[str, str, int], int]:
        """The time of the last line (ns) that is stored of a container's run, by (uid of its pod, name, run).

        What is not in the 64 newest segments is left out.
        """
        found: dict[tuple[str, str, int], int] = {}
        for segment in await self.repository.newest_of(cluster, limit=64):
            for one in segment.index.streams:
                key = (one.key.uid, one.key.container, one.key.restart)
                found[key] = max(found.get(key, 0), one.last)
        return found

    async def held(self, policy: str) -> Held:
        """What is held of a policy."""
        held = Held()
        async for one in self.repository.of_policy(policy):
            if not one.lines or one.level == RETIRED:
                continue
            held.segments += 1
            held.lines += one.lines
            held.raw_bytes += one.raw
            held.stored_bytes += one.size
            held.oldest = min(held.oldest or one.first, one.first)
            held.newest = max(held.newest, one.last)
        return held

    async def expire(self, policy: str, *, before: int = 0, max_bytes: int | None = None) -> Expired:
        """Take away segments whose last line is older than `before` (ns), and the oldest over `max_bytes` stored.

        With `max_bytes=0` everything of the policy goes. A segment goes whole: one
        spans a day at most. How far an owner came stays, so nothing is collected again.
        """
        gone, ended = Expired(), 0
        over = 0 if max_bytes is None else (await self.held(policy)).stored_bytes - max_bytes
        async for one in self.repository.of_policy(policy):
            # The last part of a merged segment may come behind it, since it ends with it.
            part = one.level == RETIRED and one.last == ended
            if one.last >= before and gone.stored_bytes >= over and not part:
                break
            if not one.lines:
                continue
            await self._forget(one)
            ended = one.last
            if one.level == RETIRED:
                continue
            gone.segments += 1
            gone.lines += one.lines
            gone.stored_bytes += one.size
        return gone

    async def forget(self, owner: str) -> None:
        """Forget how far an owner came that will not collect again; its lines stay."""
        newest = await self.repository.newest(owner)
        found = await self.repository.with_ids([newest]) if newest else []
        if found and not found[0].lines:
            await self.repository.remove([newest])

    async def _forget(self, segment: Segment) -> None:
        if segment.owner and await self.repository.newest(segment.owner) == segment.id:
            await self.repository.hollow(segment.id)
        else:
            await self.repository.remove([segment.id])
        if segment.blob:
            await self.blobs.delete(segment.blob)

    def new_blob(self, cluster: str) -> tuple[str, bytes]:
        """The name of a blob that is not there yet, and a fresh key for it."""
        return blob_key(FOLDER, cluster, os.urandom(12).hex()), os.urandom(KEY_BYTES)

    async def put(self, segment: Segment, written: WrittenSegment) -> None:
        """Write the blob of a segment, if it has lines."""
        if segment.blob:
            await self.blobs.put(segment.blob, b"".join(written.pieces), create_only=True)

    def described(
        self, written: WrittenSegment, blob: str, key: bytes, *, cluster: str, policy: str
    ) -> Segment:
        """The document of what was written; who it is of is still to be said."""
        first, last = written.span()
        return Segment(
            id="",
            owner="",
            sequence=0,
            batch="",
            policy=policy,
            cluster=cluster,
            first=first,
            last=last,
            lines=written.lines,
            raw=written.raw,
            size=written.size,
            level=0,
            blob=blob if written.pieces else "",
            key=self._keyring.seal(key, context=_context(blob)),
            written=time.time_ns(),
            index=written.index,
        )


def _neighbours(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Numbers in rising order as ranges (first, behind the last)."""
    start = end = -1
    for number in numbers:
        if number != end:
            if end >= 0:
                yield start, end
            start = number
        end = number + 1
    if end >= 0:
        yield start, end


def _context(blob: str) -> str:
    return f"log-segment:{blob}"
