"""How far a type counts as published: never further than what the bus has acknowledged."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from kubelore.common.bus import ChangePublisher, Checkpoint, LeaseLost, Leases, connect, ensure_streams
from kubelore.common.contracts.changes import Change, Gap, Kind, Synced
from kubelore.common.errors import TooLarge
from kubelore.resource_ops.change_log import ChangeLog


def change(rv: str, kind: Kind = "updated", **more) -> Change:
    values = {"object": b"{}", **more}
    return Change(
        cluster="sim",
        incarnation=1,
        type="pods",
        uid="u",
        id="sim:pods:d:p",
        kind=kind,
        rv=rv,
        at=0.0,
        **values,
    )


def gap(after: str) -> Gap:
    return Gap(cluster="sim", incarnation=1, type="pods", after_rv=after, at=0.0)


def synced(rv: str, count: int = 0) -> Synced:
    return Synced(cluster="sim", incarnation=1, type="pods", rv=rv, count=count, at=0.0)


@dataclass
class Desk:
    publisher: ChangePublisher
    checkpoint: Checkpoint
    log: ChangeLog


@pytest_asyncio.fixture(loop_scope="session")
async def desk(settings) -> AsyncIterator[Desk]:
    bus = await connect(settings, name="resource-ops")
    await ensure_streams(bus)
    lease = await Leases(bus).wait("observer.sim")
    publisher = ChangePublisher(bus, "sim", lease, on_acked=lambda records: log.acknowledged(records))
    await publisher.fence()
    checkpoint = await Checkpoint.load(bus, "sim", lease)
    log = ChangeLog(publisher, checkpoint)
    yield Desk(publisher, checkpoint, log)
    await publisher.close()
    await lease.release()
    await bus.close()


async def test_a_change_moves_the_position_once_it_is_acknowledged(desk: Desk) -> None:
    await desk.log.append(change("5"), "pods")
    assert desk.log.positions == {}
    await desk.publisher.flush()
    assert desk.log.positions == {"pods": "5"}
    assert desk.log.published == 1


async def test_observed_objects_move_nothing_until_they_are_synced(desk: Desk) -> None:
    assert await desk.log.begin(["pods"]) == set()
    await desk.log.append(change("5", "observed"), "pods")
    await desk.publisher.flush()
    assert desk.log.positions == {"pods": ""}
    await desk.log.append(synced("9", 1), "pods")
    await desk.publisher.flush()
    assert desk.log.positions == {"pods": "9"}


async def test_a_bookmark_waits_for_what_was_read_before_it(desk: Desk) -> None:
    await desk.log.append(change("5"), "pods")
    desk.log.bookmark("pods", "8")
    assert desk.log.positions == {}
    await desk.publisher.flush()
    assert desk.log.positions == {"pods": "8"}
    desk.log.bookmark("pods", "12")
    assert desk.log.positions == {"pods": "12"}


async def test_a_record_that_fits_no_message_does_not_hold_back_the_position_for_ever(desk: Desk) -> None:
    with pytest.raises(TooLarge):
        await desk.log.append(change("5", object=os.urandom(9_000_000)), "pods")
    desk.log.bookmark("pods", "8")
    assert desk.log.positions == {"pods": "8"}


async def test_a_list_that_was_begun_is_remembered_by_the_next_holder(desk: Desk) -> None:
    await desk.log.begin(["pods", "nodes"])
    await desk.log.append(synced("9"), "pods")
    await desk.publisher.flush()
    await desk.log.save()
    successor = ChangeLog(desk.publisher, desk.checkpoint)
    assert await successor.begin(["pods", "nodes", "secrets"]) == {"nodes"}


async def test_a_withdrawn_type_has_no_position_once_that_is_acknowledged(desk: Desk) -> None:
    await desk.log.append(change("5"), "pods")
    await desk.publisher.flush()
    await desk.log.withdraw(gap("5"), synced("5"))
    assert desk.log.leaving == {"pods"}
    assert desk.log.positions == {"pods": ""}
    await desk.publisher.flush()
    assert (desk.log.positions, desk.log.leaving) == ({}, set())


async def test_saving_ends_when_publishing_is_anothers(desk: Desk) -> None:
    await desk.publisher.close()
    with pytest.raises(LeaseLost):
        await desk.log.keep_saving()
