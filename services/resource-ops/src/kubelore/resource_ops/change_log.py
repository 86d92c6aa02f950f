"""One cluster's records on their way to the bus, and how far the bus has acknowledged them.

The checkpoint of a type is the last resourceVersion behind which everything was
acknowledged. It moves with acknowledgements, never with what was merely read,
so that an observer which dies starts again where the bus left off. An empty
position marks a type whose first list was begun and is not acknowledged whole:
what was published of it may be gone by the time it is listed again, so the
repetition has to be a gap.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from kubelore.common.bus import ChangePublisher, Checkpoint, LeaseLost
from kubelore.common.contracts.changes import Change, Gap, Record, Synced
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

SAVE_S = 1.0


class ChangeLog:
    """Appends records in order, and keeps and saves the acknowledged position of every type."""

    def __init__(self, publisher: ChangePublisher, checkpoint: Checkpoint) -> None:
        self._publisher = publisher
        self._checkpoint = checkpoint
        self._saving = asyncio.Lock()
        self._saved = dict(checkpoint.positions)
        self._outstanding: Counter[str] = Counter()
        self._bookmarks: dict[str, str] = {}
        self._farewells: list[Synced] = []
        self.positions = dict(checkpoint.positions)
        self.published = 0

    @property
    def throttled(self) -> bool:
        """Whether the bus refuses records because its consumers are behind."""
        return self._publisher.state == "throttled"

    @property
    def leaving(self) -> set[str]:
        """Types that were withdrawn, while the bus has not acknowledged it yet."""
        return {farewell.type for farewell in self._farewells}

    async def begin(self, type_names: Iterable[str]) -> set[str]:
        """Mark types as begun, before the first of their records; returns those that were begun and never finished.

        Raises KubeloreError when the mark cannot be saved: then nothing may be published of them.
        """
        names = set(type_names)
        interrupted = {name for name in names if self.positions.get(name) == ""}
        for name in names - self.positions.keys():
            self.positions[name] = ""
        await self.save()
        return interrupted

    async def append(self, record: Change | Gap | Synced) -> None:
        """Hand a record to the publisher; waits while its queue is full.

        Raises LeaseLost when fenced off, and TooLarge for a record that fits no message.
        """
        self._outstanding[record.type] += 1
        self._bookmarks.pop(record.type, None)
        try:
            await self._publisher.put(record)
        except BaseException:
            self._outstanding[record.type] -= 1
            raise

    async def withdraw(self, gap: Gap, synced: Synced) -> None:
        """The type is no longer served: it has no position once both records are acknowledged."""
        self.positions[synced.type] = ""
        self._farewells.append(synced)
        await self.append(gap)
        await self.append(synced)

    def bookmark(self, type_name: str, rv: str) -> None:
        """Everything up to `rv` has been read: move the position as soon as what was read is acknowledged."""
        if self._outstanding[type_name]:
            self._bookmarks[type_name] = rv
        else:
            self.positions[type_name] = rv

    def acknowledged(self, records: Sequence[Record]) -> None:
        """The bus has stored these; the publisher calls this in order."""
        for record in records:
            if not isinstance(record, Change | Gap | Synced):
                continue
            self.published += 1
            self._outstanding[record.type] -= 1
            if any(record is farewell for farewell in self._farewells):
                self._forget(record.type)
            elif isinstance(record, Synced) or (isinstance(record, Change) and record.kind != "observed"):
                self.positions[record.type] = record.rv
            if not self._outstanding[record.type] and record.type in self._bookmarks:
                self.positions[record.type] = self._bookmarks.pop(record.type)

    def _forget(self, type_name: str) -> None:
        self._farewells = [farewell for farewell in self._farewells if farewell.type != type_name]
        if self.positions.get(type_name) == "":
            del self.positions[type_name]

    async def save(self) -> None:
        """Write the positions if they have moved. Raises LeaseLost when a later holder has claimed them."""
        async with self._saving:
            positions = dict(self.positions)
            if positions != self._saved:
                self._checkpoint.positions = positions
                await self._checkpoint.save()
                self._saved = positions

    async def keep_saving(self) -> None:
        """Save once a second. Raises LeaseLost when that, or publishing, is another's by now."""
        while True:
            await asyncio.sleep(SAVE_S)
            if self._publisher.state == "lost":
                raise LeaseLost(f"{self._publisher.cluster}: publishing has stopped")
            try:
                await self.save()
            except LeaseLost:
                raise
            except KubeloreError as error:
                log.info("checkpoint not saved", cluster=self._publisher.cluster, detail=error.detail)
