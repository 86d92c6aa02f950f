"""Which blocks of a segment may hold what a search needs: read from the segment's filter, piece by piece."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import Segment
from kubelore.container_ops.token_filter import Need, columns_in, row_of, runs_with

CACHE_BYTES = 24 * 1024 * 1024
MOST_RUNS = 64
"""Where more words than that hold a text, its blocks are opened without asking."""


class SegmentFilters:
    """Asks the filters; keeps what it read last, up to 24 MB."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._kept_bytes = 0

    async def candidates(self, segment: Segment, needs: Sequence[Need]) -> set[int] | None:
        """The numbers of the blocks that may hold all that is needed; None for all of them."""
        table = segment.index.filter
        if table is None or not needs:
            return None
        columns = len(segment.index.blocks)
        found: set[int] | None = None
        for need in needs:
            runs = [need.text] if need.exact else await self._runs(segment, need)
            if runs is None:
                continue
            holding: set[int] = set()
            for run in runs:
                row = row_of(run, table.rows)
                chunk = await self._piece(segment, columns + row // table.rows_per_chunk)
                holding |= columns_in(chunk, row % table.rows_per_chunk, columns)
            found = holding if found is None else found & holding
            if not found:
                return found
        return found

    async def _runs(self, segment: Segment, need: Need) -> list[bytes] | None:
        table = segment.index.filter
        if table is None or not table.vocabulary:
            return None
        number = len(segment.index.blocks) + len(table.chunks)
        return runs_with(await self._piece(segment, number), need, most=MOST_RUNS)

    async def _piece(self, segment: Segment, number: int) -> bytes:
        key = (segment.blob, number)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        (sealed,) = await self._store.read(segment, [number])
        plain = self._store.sealer(segment).open(sealed, number)
        self._keep(key, plain)
        return plain

    def _keep(self, key: tuple[str, int], plain: bytes) -> None:
        if key in self._kept:
            return
        self._kept[key] = plain
        self._kept_bytes += len(plain)
        while self._kept_bytes > CACHE_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
