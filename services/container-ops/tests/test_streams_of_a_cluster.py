"""What stays open to a cluster ends with it, and goes on with its other credentials where it can."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubelore.common.errors import NotFound
from kubelore.common.reach import CredentialsChanged
from kubelore.lab.waiting import wait_for


async def open_stream(reachable: Any, *, resumes: bool) -> asyncio.Task[None]:
    opened = asyncio.Event()

    async def stay() -> None:
        async with reachable.reach.streaming(reachable.name, resumes=resumes):
            opened.set()
            await asyncio.Event().wait()

    stream = asyncio.create_task(stay())
    await opened.wait()
    return stream


async def test_what_can_go_on_is_told_of_other_credentials_and_what_cannot_is_left_alone(
    simulated: Any,
) -> None:
    resuming = await open_stream(simulated, resumes=True)
    staying = await open_stream(simulated, resumes=False)
    await simulated.rotate(simulated.name)
    async with asyncio.timeout(10):
        with pytest.raises(CredentialsChanged):
            await resuming
    async with simulated.reach.streaming(simulated.name, resumes=True) as reached:
        assert reached.generation == 2
    assert not staying.done()
    staying.cancel()


async def test_everything_open_to_a_removed_cluster_ends_even_with_former_credentials(simulated: Any) -> None:
    old = await open_stream(simulated, resumes=False)
    await simulated.rotate(simulated.name)

    async def renewed() -> bool:
        async with simulated.reach.streaming(simulated.name) as reached:
            return reached.generation == 2

    await wait_for(renewed, "the other credentials to be used")
    new = await open_stream(simulated, resumes=True)
    await simulated.remove(simulated.name)
    for stream in (old, new):
        async with asyncio.timeout(10):
            with pytest.raises(NotFound):
                await stream
    with pytest.raises(NotFound):
        async with simulated.reach.using(simulated.name):
            pass


async def test_a_removal_that_was_not_heard_ends_what_is_open_when_it_is_looked_for(
    simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelore.common.reach.FRESH_S", 0.0)
    stream = await open_stream(simulated, resumes=False)
    del simulated.generations[simulated.name]
    with pytest.raises(NotFound):
        async with simulated.reach.using(simulated.name):
            pass
    async with asyncio.timeout(10):
        with pytest.raises(NotFound):
            await stream
