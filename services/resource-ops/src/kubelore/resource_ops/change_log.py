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
from contextlib import suppress

from kubelore.common.bus import ChangePublisher, Checkpoint, LeaseLost
from kubelore.common.contracts.changes import Applied, Change, Gap, Record, Synced
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.positions import beginnings, position_key

log = get_logger(__name__)

SAVE_S = 1.0


class ChangeLog:
    """Appends records in order, and keeps and saves the acknowledged position of every type.

    Positions have keys (`positions.position_key`), since of a cluster that is
    limited to namespaces every type has one for each.
    """

    def __init__(self, publisher: ChangePublisher, checkpoint: Checkpoint) -> None:
        self._publisher = publisher
        self._checkpoint = checkpoint
        self._saving = asyncio.Lock()
        self._saved = dict(checkpoint.positions)
        self._outstanding: Counter[str] = Counter()
        self._bookmarks: dict[str, str] = {}
        self._farewells: list[Synced] = []
        self._keys: dict[int, str] = {}
        """The position that a record moves, by the record's `id`, while it is on its way."""
        self._told: dict[int, asyncio.Future[None]] = {}
        """Who waits for the bus to have a record that moves no position, by the record's `id`."""
        self.positions = dict(checkpoint.positions)
        self.published = 0
        self._silent = False

    @property
    def throttled(self) -> bool:
        """Whether the bus refuses records because its consumers are behind."""
        return self._publisher.state == "throttled"

    @property
    def leaving(self) -> set[str]:
        """Types that were withdrawn, while the bus has not acknowledged it yet."""
        return {farewell.type for farewell in self._farewells}

    async def begin(self, keys: Iterable[str]) -> set[str]:
        """Mark positions as begun, before the first of their records; returns those begun and never finished.

        Raises KubeloreError when the mark cannot be saved: then nothing may be published of them.
        """
        names = set(keys)
        self.positions.update(beginnings(names, self.positions))
        interrupted = {name for name in names if self.positions.get(name) == ""}
        for name in names - self.positions.keys():
            self.positions[name] = ""
        await self.save()
        return interrupted

    async def fall_silent(self) -> None:
        """Publish what has been appended, save how far that goes, and let everything behind it pass by.

        For a cluster that was given to another replica: it publishes from here on.
        """
        self._silent = True
        await self._publisher.close()
        with suppress(KubeloreError):
            await self._write()

    async def append(self, record: Change | Gap | Synced, key: str) -> None:
        """Hand a record to the publisher, to move the position `key`; waits while its queue is full.

        Raises LeaseLost when fenced off, and TooLarge for a record that fits no message.
        """
        if self._silent:
            return
        self._outstanding[key] += 1
        self._keys[id(record)] = key
        self._bookmarks.pop(key, None)
        try:
            await self._publisher.put(record)
        except BaseException:
            self._outstanding[key] -= 1
            del self._keys[id(record)]
            raise

    async def tell(self, records: Sequence[Applied]) -> None:
        """Publish who wrote what; returns once the bus has it. Raises LeaseLost. Set your own deadline."""
        waiting: list[asyncio.Future[None]] = []
        try:
            for record in records:
                waiting.append(asyncio.get_running_loop().create_future())
                self._told[id(record)] = waiting[-1]
                await self._publisher.put(record)
            await asyncio.gather(*waiting)
        finally:
            for record in records:
                self._told.pop(id(record), None)

    async def withdraw(self, gap: Gap, synced: Synced) -> None:
        """The type is no longer served: it has no position once both records are acknowledged."""
        key = position_key(synced.type, synced.namespace)
        self.positions[key] = ""
        self._farewells.append(synced)
        await self.append(gap, key)
        await self.append(synced, key)

    def bookmark(self, key: str, rv: str) -> None:
        """Everything up to `rv` has been read: move the position as soon as what was read is acknowledged."""
        if self._silent:
            return
        if self._outstanding[key]:
            self._bookmarks[key] = rv
        else:
            self.positions[key] = rv

    def acknowledged(self, records: Sequence[Record]) -> None:
        """The bus has stored these; the publisher calls this in order."""
        for record in records:
            if isinstance(record, Applied):
                waiting = self._told.pop(id(record), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
                continue
            self.published += 1
            key = self._keys.pop(id(record))
            self._outstanding[key] -= 1
            if any(record is farewell for farewell in self._farewells):
                self._farewells = [farewell for farewell in self._farewells if farewell is not record]
                self._forget(key)
            elif isinstance(record, Synced) or (isinstance(record, Change) and record.kind != "observed"):
                self.positions[key] = record.rv
            if not self._outstanding[key] and key in self._bookmarks:
                self.positions[key] = self._bookmarks.pop(key)

    def _forget(self, key: str) -> None:
        if self.positions.get(key) == "":
            del self.positions[key]

    async def save(self) -> None:
        """Write the positions if they have moved. Raises LeaseLost when a later holder has claimed them."""
        if not self._silent:
            await self._write()

    async def _write(self) -> None:
        async with self._saving:
            positions = dict(self.positions)
            if positions != self._saved:
                self._checkpoint.positions = positions
                await self._checkpoint.save()
                self._saved = positions

    async def keep_saving(self) -> None:
        """Save once a second. Raises LeaseLost when that, or publishing, is another's by now."""
        while not self._silent:
            await asyncio.sleep(SAVE_S)
            if self._silent:
                return
            if self._publisher.state == "lost":
                raise LeaseLost(f"{self._publisher.cluster}: publishing has stopped")
            try:
                await self.save()
            except LeaseLost:
                raise
            except KubeloreError as error:
                log.info("checkpoint not saved", cluster=self._publisher.cluster, detail=error.detail)
