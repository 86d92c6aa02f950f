"""Leases: one holder at a time, taken over soon after it dies, lost by the holder's own clock first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from contextlib import aclosing

import pytest

from kubelore.common.bus import Bus, Leases
from kubelore.common.bus.bucket import Bucket
from kubelore.common.errors import BadRequest
from kubelore.lab.waiting import wait_for

HOLDER = textwrap.dedent(
    """
    import asyncio, sys, time
    from pydantic import SecretStr
    from kubelore.common.bus import Leases, connect
    from kubelore.common.settings import CommonSettings

    async def main(url, user, password, key, ttl):
        settings = CommonSettings(nats_url=url, nats_user=user, nats_password=SecretStr(password))
        bus = await connect(settings, name="stopped")
        lease = await Leases(bus).acquire(key, int(ttl))
        print("held" if lease else "none", flush=True)
        while lease.held:
            await asyncio.sleep(0.02)
        print(f"lost {time.time()}", flush=True)
        await bus.close()

    asyncio.run(main(*sys.argv[1:]))
    """
)


async def test_only_one_of_many_gets_it(joining, bus: Bus) -> None:
    replicas = [await joining(f"replica-{number}") for number in range(4)]
    taken = await asyncio.gather(*(Leases(replica).acquire("observer.prod") for replica in replicas))
    held = [lease for lease in taken if lease is not None]
    assert len(held) == 1
    assert held[0].held
    await held[0].release()


async def test_a_released_lease_is_free_at_once_and_its_epoch_rises(bus: Bus) -> None:
    leases = Leases(bus)
    epochs = []
    for _ in range(3):
        lease = await leases.acquire("observer.prod")
        assert lease is not None
        epochs.append(lease.epoch)
        await lease.release()
        assert not lease.held
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("value", [b"", b"null", b"[" * 5_000, b'{"replica":7}'])
async def test_what_is_no_lease_ends_nobody_and_is_taken_over(bus: Bus, value: bytes) -> None:
    leases, bucket = Leases(bus), Bucket(bus, "LEASES")
    other = await leases.acquire("observer.other")
    await bucket.put("observer.prod", value, expected=(await bucket.get("observer.prod")).revision)
    assert await leases.holders("observer.") == {"observer.other": bus.replica}
    lease = await leases.acquire("observer.prod")
    assert lease is not None
    assert lease.held
    assert other is not None
    await asyncio.gather(lease.release(), other.release())


async def test_a_held_lease_outlives_its_time_to_live(bus: Bus) -> None:
    lease = await Leases(bus).acquire("observer.prod", ttl_s=3)
    assert lease is not None
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert lease.held
        assert await Leases(bus).acquire("observer.prod", ttl_s=3) is None
        await asyncio.sleep(0.2)
    await lease.release()


async def test_a_stopped_holder_is_replaced_in_time_and_wakes_knowing_that_it_lost(
    bus: Bus, bus_server
) -> None:
    holder = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            HOLDER,
            bus_server.url,
            bus_server.user,
            bus_server.password,
            "observer.prod",
            "4",
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    async with asyncio.timeout(20):
        assert await holder.stdout.readline() == b"held\n"
    os.kill(holder.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    async with asyncio.timeout(15):
        lease = await Leases(bus).wait("observer.prod", ttl_s=4, retry_s=0.1)
    assert time.monotonic() - stopped < 5.5
    os.kill(holder.pid, signal.SIGCONT)
    async with asyncio.timeout(10):
        assert (await holder.stdout.readline()).startswith(b"lost ")
        await holder.wait()
    assert lease.held
    await lease.release()


async def test_a_holder_cut_off_from_the_bus_gives_up_before_another_can_take_it(
    bus: Bus, bus_server
) -> None:
    lease = await Leases(bus).acquire("observer.prod", ttl_s=3)
    assert lease is not None
    acquired = time.monotonic()
    await bus_server.kill()
    async with asyncio.timeout(5):
        await lease.lost.wait()
    assert time.monotonic() - acquired < 3
    assert not lease.held
    await bus_server.start()
    async with asyncio.timeout(10):
        again = await Leases(bus).wait("observer.prod", ttl_s=3, retry_s=0.1)
    assert again.epoch > lease.epoch
    await again.release()


async def test_a_short_outage_costs_no_lease(bus: Bus, bus_server) -> None:
    lease = await Leases(bus).acquire("observer.prod", ttl_s=12)
    assert lease is not None
    await bus_server.kill()
    await bus_server.start()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert lease.held
        await asyncio.sleep(0.1)
    await lease.release()


async def test_watchers_see_who_holds_what_as_it_changes(joining, bus: Bus) -> None:
    one, two = await joining("one-1"), await joining("two-1")
    first = await Leases(one).acquire("observer.a")
    assert first is not None
    seen = Leases(bus).watch_holders("observer.")
    async with asyncio.timeout(10):
        assert await anext(seen) == {"observer.a": "one-1"}
        second = await Leases(two).acquire("observer.b")
        assert second is not None
        assert await anext(seen) == {"observer.a": "one-1", "observer.b": "two-1"}
        await first.release()
        assert await anext(seen) == {"observer.b": "two-1"}
    assert await Leases(bus).holders("observer") == {"observer.b": "two-1"}
    assert await Leases(bus).holders("other") == {}
    await second.release()


async def test_a_watcher_goes_on_after_the_server_was_killed(bus: Bus, bus_server) -> None:
    seen = Leases(bus).watch_holders("observer.")
    async with asyncio.timeout(20):
        assert await anext(seen) == {}
        changed = asyncio.ensure_future(anext(seen))
        await bus_server.kill()
        await bus_server.start()
        lease = await Leases(bus).wait("observer.a", retry_s=0.1)
        assert await changed == {"observer.a": bus.replica}
    await lease.release()


async def test_a_watcher_that_slept_sees_that_a_lease_has_ended_though_its_mark_is_gone(
    bus: Bus, bus_server, eventually
) -> None:
    """Whoever sleeps for longer than a pull lasts is told of nothing, and what expired leaves its mark for seconds."""
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, bus_server.url, bus_server.user, bus_server.password),
        *("observer.prod", "12"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    async with aclosing(Leases(bus).watch_holders("observer.")) as changes:
        assert "observer.prod" in await anext(changes)
        holder.kill()

        async def forgotten() -> bool:
            return (await bus.jetstream("STREAM.INFO.KV_LEASES"))["state"]["messages"] == 0

        await eventually(forgotten, 30)
        async with asyncio.timeout(10):
            assert await anext(changes) == {}
    await holder.wait()


@pytest.mark.parametrize("key", ["observer.*", "observer.>", "a b", "", ".a", "a..b"])
async def test_a_key_that_nats_could_take_for_a_pattern_is_refused(bus: Bus, key: str) -> None:
    with pytest.raises(BadRequest):
        await Leases(bus).acquire(key)


async def test_a_lease_that_is_handed_over_is_taken_by_that_replica_alone_and_answered_by_the_giver(
    joining, bus: Bus
) -> None:
    two, three = await joining("two"), await joining("three")
    given = await Leases(bus).acquire("observer.prod")
    assert given is not None
    await given.hand_over(two.replica)
    assert given.lost.is_set()
    assert not given.held
    assert await Leases(bus).holders("observer.") == {"observer.prod": bus.replica}
    assert await Leases(three).acquire("observer.prod") is None
    taken = await Leases(two).acquire("observer.prod")
    assert taken is not None
    assert (taken.answering, taken.epoch > given.epoch) == (bus.replica, True)
    assert await Leases(two).acquire("observer.prod") is None
    taken.answer()

    async def answers() -> bool:
        return await Leases(bus).holders("observer.") == {"observer.prod": two.replica}

    await wait_for(answers, "the new holder to be asked", 10)
    assert taken.held
    await taken.release()


async def test_a_lease_handed_to_a_replica_that_never_takes_it_is_free_in_time(bus: Bus) -> None:
    lease = await Leases(bus).acquire("observer.prod", ttl_s=3)
    assert lease is not None
    await lease.hand_over("nobody")
    async with asyncio.timeout(6):
        again = await Leases(bus).wait("observer.prod", ttl_s=3, retry_s=0.1)
    assert not again.answering
    await again.release()


async def test_what_an_absent_replica_holds_is_taken_and_it_learns_so_when_it_renews(
    joining, bus: Bus
) -> None:
    absent = await Leases(await joining("absent")).acquire("observer.prod", ttl_s=9)
    assert absent is not None
    assert await Leases(bus).acquire("observer.prod", absent={"somebody-else"}) is None
    taken = await Leases(bus).acquire("observer.prod", ttl_s=9, absent={"absent"})
    assert taken is not None
    assert taken.epoch > absent.epoch
    async with asyncio.timeout(8):
        await absent.lost.wait()
    assert taken.held
    await taken.release()
