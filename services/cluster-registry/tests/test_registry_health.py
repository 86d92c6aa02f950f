"""The health loop: clusters fall and come back, and it is recorded and told."""

from __future__ import annotations

import time

import pytest

from kubelore.cluster_registry import health, prober
from kubelore.common.contracts.clusters import ClusterEvent, cluster_event_subject
from kubelore.kubesim.faults import Faults


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of half a minute; the pace itself is held by test_health_state."""
    monkeypatch.setattr(health, "INTERVAL_S", 0.2)
    monkeypatch.setattr(health, "CONFIRM_S", 0.1)
    monkeypatch.setattr(prober, "ROSTER_S", 0.2)
    monkeypatch.setattr(prober, "TIMEOUT_S", 1.0)


async def test_a_fall_and_a_recovery_are_recorded_and_told_once(probed, fleet) -> None:
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    await fleet[0].inject(Faults(refuse=True))
    fallen = await probed.until("prod", status="disconnected")
    assert fallen.health_status == "unhealthy"
    assert fallen.status_detail
    await fleet[0].inject(Faults())
    risen = await probed.until("prod", status="connected")
    assert (risen.health_status, risen.status_detail) == ("healthy", "")
    await probed.until_told("prod", "added", "connected", "disconnected", "connected")


async def test_refused_credentials_are_an_error_and_not_a_lost_connection(probed, fleet) -> None:
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    await fleet[0].inject(Faults(error_rate=1.0, error_code=401))
    assert (await probed.until("prod", status="error")).health_status == "unhealthy"
    await fleet[0].inject(Faults(refuse=True))
    await probed.until("prod", status="disconnected")
    await fleet[0].inject(Faults(error_rate=1.0, error_code=401))
    await probed.until("prod", status="error")
    assert probed.told("prod") == ["added", "connected", "disconnected"]


async def test_a_removed_cluster_is_probed_no_more(probed, fleet) -> None:
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    await probed.remove("prod")
    await probed.until_told("prod", "added", "connected", "removed")
    await fleet[0].inject(Faults(refuse=True))
    await probed.add("second", fleet[1].kubeconfig)
    await probed.until_told("second", "added", "connected")
    assert probed.told("prod") == ["added", "connected", "removed"]


async def test_a_cluster_that_comes_back_under_its_name_is_probed_where_it_is_now(probed, fleet) -> None:
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    await probed.remove("prod")
    await probed.add("prod", fleet[1].kubeconfig, new_history=True)
    await fleet[0].inject(Faults(refuse=True))
    await probed.until_told("prod", "added", "connected", "removed", "added", "connected")
    await fleet[1].inject(Faults(refuse=True))
    await probed.until("prod", status="disconnected")


async def test_a_test_that_succeeds_wakes_the_loop_long_before_its_turn(probed, fleet, monkeypatch) -> None:
    monkeypatch.setattr(health, "BACKOFF_LIMIT_S", 600.0)
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    monkeypatch.setattr(health, "INTERVAL_S", 600.0)
    await fleet[0].inject(Faults(refuse=True))
    await probed.until("prod", status="disconnected")
    await fleet[0].inject(Faults())
    assert (await probed.test("prod")).ok
    assert (await probed.get("prod")).status == "connected"
    await probed.until_told("prod", "added", "connected", "disconnected", "connected")


async def test_an_observer_that_is_live_again_brings_the_probe_forward(probed, fleet, monkeypatch) -> None:
    monkeypatch.setattr(health, "BACKOFF_LIMIT_S", 600.0)
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    monkeypatch.setattr(health, "INTERVAL_S", 600.0)
    await fleet[0].inject(Faults(refuse=True))
    await probed.until("prod", status="disconnected")
    await fleet[0].inject(Faults())
    event = ClusterEvent(
        cluster="prod", happened="synced", at=time.time(), as_of=time.time(), detail="live", resource_count=5
    )
    await probed.bus.publish_event(cluster_event_subject(event), event)
    await probed.until("prod", status="connected", resource_count=5)
    await probed.until_told("prod", "added", "connected", "disconnected", "synced", "connected")


async def test_rotated_credentials_are_probed_at_once(probed, fleet, monkeypatch) -> None:
    monkeypatch.setattr(prober, "ROSTER_S", 600.0)
    await probed.add("prod")
    await probed.until_told("prod", "added", "connected")
    await probed.rotate("prod", fleet[0].kubeconfig)
    await probed.until_told("prod", "added", "connected", "updated", "connected")
