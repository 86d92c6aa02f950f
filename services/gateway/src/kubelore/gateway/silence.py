"""Which replicas have stopped answering, so that one page waits for them and not every page.

A replica that missed its deadline is passed over from then on, and asked for
nothing, again and again, by one task beside: as soon as it answers that, it is
asked as before. One that is gone answers at once that it is, which counts too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kubelore.common.bus import Bus
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import NamedDictionaries
from kubelore.common.errors import DeadlineExceeded, KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

EVERY_S = 0.1
LONGEST_S = 60.0
"""After this long it is asked as before, and may cost another page its second."""


class Silence:
    """The replicas that do not answer now."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._silent: dict[str, asyncio.Task[None]] = {}

    def holds(self, replica: str) -> bool:
        """Whether a replica missed its deadline and has not answered since."""
        return replica in self._silent

    def note(self, replica: str) -> None:
        """A replica missed its deadline."""
        if replica not in self._silent:
            self._silent[replica] = asyncio.create_task(self._listen(replica), name=f"silent {replica}")

    async def _listen(self, replica: str) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_S):
                    await self._until_answered(replica)
        except KubeloreError as error:
            log.info("silent replica gone", replica=replica, reason=error.reason, detail=error.detail)
        finally:
            del self._silent[replica]

    async def _until_answered(self, replica: str) -> None:
        while True:
            try:
                await self._bus.request(resources.DICTIONARIES, NamedDictionaries([]), target=replica)
                return
            except DeadlineExceeded:
                await asyncio.sleep(EVERY_S)
