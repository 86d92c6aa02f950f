"""Plugs pulled under load: nothing that the API server confirmed is lost, and what it forgot is a recorded gap."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import aclosing

import nats
import pytest

from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


async def test_kill_nine_of_each_part_in_turn_loses_no_change(
    own_kubelore, plane, writer, witness, equals_kubectl
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    writing = asyncio.create_task(writer.write(1200, pause_s=0.01))
    await wait_for(_wrote(writer, 150), "the writer to be under way")

    os.kill(own_kubelore.pid("resource-ops"), signal.SIGKILL)
    await wait_for(_wrote(writer, 450), "writes while resource-ops comes back", 60)
    os.kill(own_kubelore.pid("nats"), signal.SIGKILL)
    await wait_for(_wrote(writer, 800), "writes while NATS comes back", 60)
    os.kill(own_kubelore.pid("cluster-registry"), signal.SIGKILL)
    os.kill(own_kubelore.pid("mongo"), signal.SIGKILL)
    await writing

    await wait_for(witness.has_all(writer), "every confirmed write to reach the witness", 90)
    await wait_for(equals_kubectl, "the read model to equal kubectl", 90)
    await own_kubelore.until_live("victim", 90)
    witness.assert_in_order()
    assert [gap for gap in witness.gaps if gap.type == "configmaps"] == []
    assert len(writer.written) + len(writer.deleted) == 1200


async def test_an_api_server_that_is_killed_loses_only_what_lies_in_a_recorded_gap(
    own_kubelore, plane, writer, witness, equals_kubectl
) -> None:
    """A restarted API server serves no watch from before its start: what it had not sent yet is gone with it."""
    await own_kubelore.onboard("victim", plane.kubeconfig())
    writing = asyncio.create_task(writer.write(600, pause_s=0.01))
    await wait_for(_wrote(writer, 200), "the writer to be under way")
    await plane.kill("apiserver")
    await plane.restart("apiserver")
    await writing

    await wait_for(witness.has_all_but_gaps(writer), "every write to arrive or to lie in a gap", 90)
    await wait_for(equals_kubectl, "the read model to equal kubectl", 90)
    await own_kubelore.until_live("victim", 90)
    witness.assert_in_order()


async def test_what_the_api_server_compacted_away_is_a_recorded_gap(
    own_kubelore, plane, writer, witness, equals_kubectl
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    await writer.write(60)
    await wait_for(witness.has_all(writer), "the writes before")
    before = len(writer.written)
    listed = await own_kubelore.list(type="configmaps", limit=1)

    paused = own_kubelore.pid("resource-ops")
    os.kill(paused, signal.SIGSTOP)
    try:
        # Its watches must be cut before anything is written, or the socket's buffer keeps the events for it.
        await plane.kill("apiserver")
        await plane.restart("apiserver")
        await writer.write(120)
        await plane.expire_history()
    finally:
        os.kill(paused, signal.SIGCONT)

    await wait_for(equals_kubectl, "the read model to equal kubectl", 90)

    async def recorded() -> bool:
        return any(gap.type == "configmaps" for gap in witness.gaps) and bool(_synced_after_gap(witness))

    await wait_for(recorded, "the gap to be recorded", 60)
    gap = next(gap for gap in witness.gaps if gap.type == "configmaps")
    assert int(gap.after_rv) >= max(int(rv) for _, rv in writer.written[:before])
    observed = {change.uid for change in witness.changes if change.kind == "observed"}
    live = {
        item["object"]["metadata"]["uid"]
        for item in (await own_kubelore.list(type="configmaps", limit=10_000))["items"]
    }
    assert live <= observed
    assert _synced_after_gap(witness)[-1].count == len(live)

    async with (
        asyncio.timeout(20),
        aclosing(own_kubelore.watch(type="cm", since=listed["watch_from"])) as events,
    ):
        async for _, name, data in events:
            if name == "reset":
                assert (data["cluster"], data["type"]) == ("victim", "configmaps")
                break


async def test_a_paused_observer_that_wakes_after_its_successor_took_over_publishes_nothing(
    own_kubelore, plane, writer, witness, equals_kubectl, second_replica
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    await writer.write(40)
    await wait_for(witness.has_all(writer), "the writes before")
    paused = own_kubelore.pid("resource-ops")
    second_replica()
    os.kill(paused, signal.SIGSTOP)
    try:
        started = time.monotonic()
        page = await own_kubelore.list(type="configmaps")
        assert time.monotonic() - started < 1.5
        assert page["partial"] is True
        await own_kubelore.until_live("victim", 40)
        await writer.write(60)
        await wait_for(witness.has_all(writer), "the successor to publish")
    finally:
        os.kill(paused, signal.SIGCONT)
    await writer.write(60)
    await wait_for(witness.has_all(writer), "the writes after")
    await wait_for(equals_kubectl, "the read model to equal kubectl", 60)
    witness.assert_in_order()
    fences = await _fences_in_stream_order(own_kubelore)
    assert len(set(fences)) >= 2
    assert fences == sorted(fences)


async def test_everything_killed_at_once_keeps_its_data(own_kubelore, plane, writer, equals_kubectl) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig(), tags=["kept"])
    await writer.write(30)
    for process in ("gateway", "resource-ops", "cluster-registry", "nats", "mongo"):
        os.kill(own_kubelore.pid(process), signal.SIGKILL)

    async def back() -> bool:
        answer = await own_kubelore.http.get("/api/k8s/clusters/victim")
        return answer.status_code == 200 and answer.json()["tags"] == ["kept"]

    await wait_for(back, "the cluster to be known again", 60, ignoring=(OSError, Exception))
    await writer.write(30)
    await wait_for(equals_kubectl, "the read model to equal kubectl", 90, ignoring=(Exception,))


def _wrote(writer, count: int):
    async def enough() -> bool:
        return len(writer.written) + len(writer.deleted) >= count

    return enough


def _synced_after_gap(witness):
    gap = next(gap for gap in witness.gaps if gap.type == "configmaps")
    return [synced for synced in witness.synced if synced.type == "configmaps" and synced.at > gap.at]


async def _fences_in_stream_order(kubelore) -> list[int]:
    """The fence of every batch in the feed, out of its message id `<cluster>.<fence>.<number>`."""
    settings = kubelore.bus_settings()
    client = await nats.connect(
        settings.nats_url, user=settings.nats_user, password=settings.nats_password.get_secret_value()
    )
    try:
        subscription = await client.jetstream().subscribe("", stream="FEED", ordered_consumer=True)
        fences: list[int] = []
        while True:
            try:
                message = await subscription.next_msg(timeout=2)
            except nats.errors.TimeoutError:
                return fences
            if (batch_id := (message.headers or {}).get("Nats-Msg-Id", "")).startswith("victim."):
                fences.append(int(batch_id.split(".")[1]))
    finally:
        await client.close()
