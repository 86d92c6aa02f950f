"""Several things at once, whose failure is the failure of one of them.

A TaskGroup wraps what its tasks raise, and whoever waits out a store that is
away, or answers a caller, does not know a wrapped Unavailable for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup]:
    """A TaskGroup that raises the first error of its tasks as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
