"""Checkpoints: kept over restarts, and closed to holders that were replaced."""

from __future__ import annotations

import pytest

from kubelore.common.bus import Bus, Checkpoint, Lease, LeaseLost, Leases


async def lease_of(bus: Bus) -> Lease:
    return await Leases(bus).wait("observer.prod", retry_s=0.1)


async def test_positions_are_there_for_the_next_holder(bus: Bus, bus_server) -> None:
    lease = await lease_of(bus)
    checkpoint = await Checkpoint.load(bus, "prod", lease)
    assert (checkpoint.incarnation, checkpoint.uid, checkpoint.positions) == (1, "", {})
    checkpoint.positions["pods"] = "41"
    await checkpoint.save()
    checkpoint.positions["deployments.apps"] = "42"
    checkpoint.incarnation, checkpoint.uid = 2, "kube-system-uid"
    await checkpoint.save()
    await lease.release()
    again = await lease_of(bus)
    found = await Checkpoint.load(bus, "prod", again)
    assert found.positions == {"pods": "41", "deployments.apps": "42"}
    assert (found.incarnation, found.uid) == (2, "kube-system-uid")
    await again.release()


async def test_a_replaced_holder_cannot_save_over_its_successor(bus: Bus) -> None:
    first = await lease_of(bus)
    old = await Checkpoint.load(bus, "prod", first)
    await first.release()
    second = await lease_of(bus)
    new = await Checkpoint.load(bus, "prod", second)
    new.positions["pods"] = "50"
    await new.save()
    old.positions["pods"] = "10"
    with pytest.raises(LeaseLost):
        await old.save()
    with pytest.raises(LeaseLost):
        await Checkpoint.load(bus, "prod", first)
    await new.save()
    assert (await Checkpoint.load(bus, "prod", second)).positions == {"pods": "50"}
    await second.release()


async def test_a_save_whose_answer_was_lost_does_not_end_the_holder(bus: Bus) -> None:
    lease = await lease_of(bus)
    checkpoint = await Checkpoint.load(bus, "prod", lease)
    # The same holder's write, of which this object never heard: as after a lost answer.
    unheard = await Checkpoint.load(bus, "prod", lease)
    unheard.positions["pods"] = "5"
    await unheard.save()
    checkpoint.positions["pods"] = "6"
    await checkpoint.save()
    assert (await Checkpoint.load(bus, "prod", lease)).positions == {"pods": "6"}
    await lease.release()
