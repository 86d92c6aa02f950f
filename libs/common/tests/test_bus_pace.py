"""Turns: none for whoever is alone, apart for many, and never too long."""

from __future__ import annotations

import asyncio
import time

import pytest

from kubelore.common.bus.pace import Pace

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _taken(pace: Pace, count: int) -> float:
    """Seconds until so many who ask at the same time have had their turns."""
    begun = time.monotonic()
    await asyncio.gather(*(pace.turn() for _ in range(count)))
    return time.monotonic() - begun


async def test_whoever_asks_alone_does_not_wait():
    pace = Pace(10.0, 10.0)
    async with asyncio.timeout(5):
        await pace.turn()


async def test_turns_of_many_lie_apart():
    assert await _taken(Pace(0.01, 10.0), 11) >= 0.1


async def test_nobody_waits_longer_than_the_most():
    async with asyncio.timeout(5):
        await _taken(Pace(1.0, 0.02), 100)


async def test_turns_are_taken_in_the_order_of_asking():
    pace, order = Pace(0.005, 10.0), list[int]()

    async def take(number: int) -> None:
        await pace.turn()
        order.append(number)

    await asyncio.gather(*(take(number) for number in range(8)))
    assert order == list(range(8))


async def test_what_was_large_pushes_the_next_turn_away():
    pace = Pace(0.0, 10.0)
    begun = time.monotonic()
    await pace.turn()
    pace.stretch(0.05)
    await pace.turn()
    assert time.monotonic() - begun >= 0.05
