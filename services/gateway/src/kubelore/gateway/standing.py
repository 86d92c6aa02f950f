"""How somebody stands: who they are by which credential, for how long, and whether that still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from kubelore.common.authz import Caller
from kubelore.common.errors import Unauthenticated

CHECK_S = 5.0
"""How often what runs for long asks whether its caller may still have it."""


@dataclass(frozen=True)
class Standing:
    """An authenticated caller. `again` authenticates the same credential anew.

    `csrf` is empty unless a cookie was what proved it; `expires_at` is None when
    it does not expire. `own_origin` says that no other site's page made the
    request: a bearer token proves it, a cookie does not.
    """

    caller: Caller
    expires_at: datetime | None
    again: Callable[[], Awaitable[Standing]] = field(repr=False)
    csrf: str = field(default="", repr=False)
    own_origin: bool = True

    async def check(self) -> None:
        """Raise Unauthenticated unless the credential still holds and grants what it did, or Unavailable."""
        now = await self.again()
        if now.caller != self.caller:
            raise Unauthenticated(
                "what the credential grants has changed", remedy="Ask again, and see what it shows now."
            )

    async def lapse(self) -> NoReturn:
        """Wait for the end of this standing, and raise what `check` does."""
        while True:
            await asyncio.sleep(CHECK_S)
            await self.check()
