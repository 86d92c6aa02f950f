"""Sessions: whole or an error, bounded by credit, and ended by whoever stops."""

from __future__ import annotations

import asyncio
import random

import pytest

from kubelore.common.bus import Bus, Session, SessionEnded
from kubelore.common.bus.sessions import FRAME_BYTES, WINDOW, new_session_id
from kubelore.common.errors import Conflict


async def read(session: Session) -> bytes:
    return b"".join([frame async for frame in session])


async def test_both_sides_send_any_amount_at_the_same_time(bus: Bus, joining) -> None:
    other = await joining()
    source = random.Random(7)
    there, back = source.randbytes(5_000_001), source.randbytes(3 * FRAME_BYTES)

    async def talk(session: Session, data: bytes) -> bytes:
        async with session:
            receiving = asyncio.create_task(read(session))
            await session.send(data)
            await session.finish()
            return await receiving

    name = new_session_id("tester", "tester")
    async with asyncio.timeout(20):
        received = await asyncio.gather(
            talk(Session(bus, name, "server"), there), talk(Session(other, name, "client"), back)
        )
    assert received == [back, there]


async def test_a_reader_that_does_not_read_stops_the_sender_at_the_window(bus: Bus, joining) -> None:
    name = new_session_id("tester", "tester")
    sent = 0

    async def send_for_ever(session: Session) -> None:
        nonlocal sent
        while True:
            await session.send(bytes(FRAME_BYTES))
            sent += 1

    async with Session(bus, name, "server") as server, Session(await joining(), name, "client") as client:
        sending = asyncio.create_task(send_for_ever(server))
        done, _ = await asyncio.wait({sending}, timeout=1)
        assert not done
        assert sent == WINDOW
        frames = aiter(client)
        for _ in range(WINDOW):
            await asyncio.wait_for(anext(frames), 30)
        await asyncio.wait({sending}, timeout=0.5)
        assert WINDOW < sent <= 2 * WINDOW
        sending.cancel()


async def test_a_missing_frame_is_an_error_and_never_a_short_stream(bus: Bus, joining) -> None:
    name = new_session_id("tester", "tester")
    other = await joining()
    async with Session(other, name, "client") as client:
        await other.heard()
        head = b"\x00" + (1).to_bytes(8, "big")
        await bus.send(f"kubelore.v1.session.{name}.out", head + b"the second frame")
        with pytest.raises(SessionEnded, match="missing"):
            await asyncio.wait_for(read(client), 30)


async def test_a_sender_beyond_its_credit_is_cut_off(bus: Bus, joining) -> None:
    name = new_session_id("tester", "tester")
    other = await joining()
    async with Session(other, name, "client") as client:
        await other.heard()
        for number in range(WINDOW + 1):
            head = b"\x00" + number.to_bytes(8, "big")
            await bus.send(f"kubelore.v1.session.{name}.out", head + b"x")
        # All of it is there before the first is read, which would grant more.
        await bus.heard()
        await other.heard()
        with pytest.raises(SessionEnded, match="credit"):
            await asyncio.wait_for(read(client), 30)


async def test_a_receiver_that_leaves_stops_the_sender(bus: Bus, joining) -> None:
    name = new_session_id("tester", "tester")
    async with Session(bus, name, "server") as server:
        async with Session(await joining(), name, "client") as client:
            await server.send(b"some")
            assert await asyncio.wait_for(anext(aiter(client)), 5) == b"some"
        with pytest.raises(SessionEnded, match="cancelled"):
            await asyncio.wait_for(server.send(bytes(2 * WINDOW * FRAME_BYTES)), 5)


async def test_a_sender_that_fails_says_why(bus: Bus, joining) -> None:
    name = new_session_id("tester", "tester")
    async with Session(bus, name, "server") as server, Session(await joining(), name, "client") as client:
        await server.send(b"some")
        await server.fail(Conflict("the pod is gone"))
        frames = aiter(client)
        assert await asyncio.wait_for(anext(frames), 30) == b"some"
        with pytest.raises(Conflict, match="the pod is gone"):
            await asyncio.wait_for(anext(frames), 30)


async def test_a_peer_that_went_silent_ends_the_session(bus: Bus) -> None:
    async with Session(bus, new_session_id("tester", "tester"), "server", idle_s=0.3) as server:
        with pytest.raises(SessionEnded, match="silent"):
            await asyncio.wait_for(server.send(b"x"), 5)


@pytest.mark.parametrize("ends", ["finish", "fail"])
async def test_an_end_without_a_frame_waits_for_the_other_side_to_listen(
    bus: Bus, joining, ends: str
) -> None:
    name = new_session_id("tester", "tester")

    async def end(session: Session) -> None:
        await (session.finish() if ends == "finish" else session.fail(Conflict("not today")))

    async with asyncio.timeout(8), Session(bus, name, "server") as server:
        ending = asyncio.create_task(end(server))
        await bus.heard()
        async with Session(await joining(), name, "client") as client:
            if ends == "finish":
                assert await read(client) == b""
                await client.finish()
            else:
                with pytest.raises(Conflict, match="not today"):
                    await read(client)
        await ending
