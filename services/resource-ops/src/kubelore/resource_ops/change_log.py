"""One cluster's records on their way to the bus, and how far the bus has acknowledged them.

The checkpoint of a type is the last resourceVersion behind which everything was
acknowledged. It moves with acknowledgements, never with what was merely read,
so that an observer which dies starts again where the bus left off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kubelore.common.bus import ChangePublisher
from kubelore.common.contracts.changes import Change, Gap, Record, Synced


class ChangeLog:
    """Appends records in order and keeps the acknowledged position of every type."""

    def __init__(self, publisher: ChangePublisher, positions: dict[str, str]) -> None:
        self._publisher = publisher
        self._outstanding: Counter[str] = Counter()
        self._bookmarks: dict[str, str] = {}
        self.positions = dict(positions)
        self.published = 0

    @property
    def throttled(self) -> bool:
        """Whether the bus refuses records because its consumers are behind."""
        return self._publisher.state == "throttled"

    async def append(self, record: Change | Gap | Synced) -> None:
        """Hand a record to the publisher; waits while its queue is full. Raises LeaseLost when fenced off."""
        self._outstanding[record.type] += 1
        self._bookmarks.pop(record.type, None)
        await self._publisher.put(record)

    def bookmark(self, type_name: str, rv: str) -> None:
        """Everything up to `rv` has been read: move the position as soon as what was read is acknowledged."""
        if self._outstanding[type_name]:
            self._bookmarks[type_name] = rv
        else:
            self.positions[type_name] = rv

    def forget(self, type_name: str) -> None:
        """The type is no longer served: it has no position."""
        self.positions.pop(type_name, None)
        self._bookmarks.pop(type_name, None)

    def acknowledged(self, records: Sequence[Record]) -> None:
        """The bus has stored these; the publisher calls this in order."""
        for record in records:
            if not isinstance(record, Change | Gap | Synced):
                continue
            self.published += 1
            self._outstanding[record.type] -= 1
            if isinstance(record, Synced) or (isinstance(record, Change) and record.kind != "observed"):
                self.positions[record.type] = record.rv
            if not self._outstanding[record.type] and record.type in self._bookmarks:
                self.positions[record.type] = self._bookmarks.pop(record.type)
