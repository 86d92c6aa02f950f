"""What unpacks the objects of each replica: its dictionaries, asked for once and kept.

They are known by the fingerprint of their bytes, so that one of another
replica, or of the same replica after a restart, is never taken for it. They
hold pieces of objects of all clusters: nothing of them leaves this process but
what they unpack.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from kubelore.common.bus import Bus
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import NamedDictionaries
from kubelore.common.errors import IntegrityError, Unavailable
from kubelore.common.frames import Dictionary, Unpacker

MAX_KEPT = 256
"""Each takes up to 150 KB; those not used for longest are forgotten, and asked for again."""


class Unpackers:
    """One unpacker for each dictionary, for all replicas together."""

    def __init__(self, bus: Bus, max_kept: int = MAX_KEPT) -> None:
        self._bus = bus
        self._max_kept = max_kept
        self._kept: OrderedDict[str, Unpacker] = OrderedDict()
        self._plain = Unpacker(Dictionary())

    async def of(self, owner: str, fingerprints: Sequence[str], deadline_s: float) -> list[Unpacker]:
        """The unpackers of what this replica packed, in that order.

        Raises Unavailable when it does not have a dictionary any more: it started
        again between two answers.
        """
        missing = [name for name in fingerprints if name and name not in self._kept]
        if missing:
            await self._learn(owner, missing, deadline_s)
        found = [self._kept[name] if name else self._plain for name in fingerprints]
        for name in fingerprints:
            if name:
                self._kept.move_to_end(name)
        while len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
        return found

    async def _learn(self, owner: str, fingerprints: list[str], deadline_s: float) -> None:
        request = NamedDictionaries(fingerprints)
        answer = await self._bus.request(resources.DICTIONARIES, request, target=owner, deadline_s=deadline_s)
        for name in fingerprints:
            dictionary = answer.items.get(name)
            if dictionary is None:
                raise Unavailable(f"{owner} started again meanwhile", remedy="Ask again.", retry_after_s=1)
            if dictionary.fingerprint() != name:
                raise IntegrityError(f"{owner} sent another dictionary than it named")
            self._kept[name] = Unpacker(dictionary)
