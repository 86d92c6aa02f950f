"""Work that is cancelled while it talks to MongoDB stops, at whatever moment the cancellation comes."""

from __future__ import annotations

import asyncio

from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database


async def test_a_cancellation_is_never_swallowed(settings: CommonSettings) -> None:
    async with await open_database(settings) as database:
        things = database.collection("things")
        await things.count()
        for steps in range(60):
            task = asyncio.create_task(things.count())
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait([task], timeout=5)
                assert task.cancelled(), f"cancelled after {steps} steps of the loop"
