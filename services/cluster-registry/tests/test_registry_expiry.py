"""Credentials about to expire are told in time, once."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.cluster_registry.__main__ import build
from kubelore.cluster_registry.lifetimes import THRESHOLDS_D, Lifetime, due_threshold, lifetime
from kubelore.common.bus import connect
from kubelore.common.kube import ClusterAccess
from kubelore.common.store import open_database
from kubelore.lab.waiting import wait_for

DAY = 86_400.0


def token(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.x"


async def ends(registry_house, name: str, lasting: Lifetime, **changes: object) -> None:
    """Give a cluster credentials that last so long: those of simulated clusters never end."""
    cluster, sealed = await registry_house.clusters.credentials(name)
    await registry_house.clusters.exchange(cluster, changes, sealed, lasting)


async def expiring(registry_house, registry, name: str, at: float) -> None:
    """Onboard a cluster whose token ends at a time."""
    await registry.add(name)
    await ends(registry_house, name, Lifetime("token", at))


async def test_each_threshold_is_told_once_and_with_rising_severity(registry_house, registry, clock) -> None:
    end = clock.now + 40 * DAY
    await expiring(registry_house, registry, "prod", end)
    told: list[int] = []
    for left in (40, 31, 29.5, 29.4, 8, 6.9, 6.8, 2, 0.9, 0.5, 0.1, -0.1, -3):
        clock.now = end - left * DAY
        told.append(await registry_house.expiry.tell_due())
    assert told == [0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]

    async def heard() -> bool:
        return len(registry.alerts) == 4

    await wait_for(heard, "the alerts")
    assert [alert.severity for alert in registry.alerts] == ["info", "warning", "critical", "critical"]
    assert [alert.data["threshold_days"] for alert in registry.alerts] == [30, 7, 1, 0]
    assert "has expired" in registry.alerts[-1].data["message"]
    assert "clusters rotate prod" in registry.alerts[0].data["remedy"]
    assert len({alert.id for alert in registry.alerts}) == 4


async def test_late_at_first_sight_only_the_nearest_threshold_is_told(
    registry_house, registry, clock
) -> None:
    await expiring(registry_house, registry, "prod", clock.now + 5 * DAY)
    assert [await registry_house.expiry.tell_due() for _ in range(2)] == [1, 0]


async def test_a_restart_and_another_replica_tell_nothing_again(
    registry_house, registry, clock, settings, bus
) -> None:
    await expiring(registry_house, registry, "prod", clock.now + 5 * DAY)
    assert await registry_house.expiry.tell_due() == 1
    async with await open_database(settings) as database:
        other = await build(settings, bus, database, clock)
        assert await other.expiry.tell_due() == 0


async def test_new_credentials_are_told_of_anew(registry_house, registry, clock, fleet) -> None:
    await expiring(registry_house, registry, "prod", clock.now + 5 * DAY)
    await registry_house.expiry.tell_due()
    assert (await registry.rotate("prod", fleet[0].kubeconfig)).credentials_expire_at is None
    assert await registry_house.expiry.tell_due() == 0
    stored = registry_house.clusters._clusters
    await stored.update(
        "prod", {"lifetime": {"what": "token", "expires_at": clock.now + DAY, "renew_at": None}}
    )
    assert await registry_house.expiry.tell_due() == 1


async def test_other_namespaces_for_the_same_credentials_tell_nothing_again(
    registry_house, registry, clock
) -> None:
    await expiring(registry_house, registry, "prod", clock.now + 5 * DAY)
    assert await registry_house.expiry.tell_due() == 1
    await registry.update("prod", namespaces=["shop"])
    assert await registry_house.expiry.tell_due() == 0


async def test_a_token_that_renews_itself_is_told_of_only_when_that_fails(
    registry_house, registry, clock
) -> None:
    end = clock.now + 0.5 * DAY
    lasting = {"what": "token", "expires_at": end, "renew_at": end - 0.2 * DAY}
    await registry.add("prod")
    stored = registry_house.clusters._clusters
    await stored.update("prod", {"lifetime": lasting, "renews_token": True})
    assert await registry_house.expiry.tell_due() == 0
    clock.now = end - 0.05 * DAY
    assert await registry_house.expiry.tell_due() == 1


async def test_an_alert_is_a_cloud_event_that_any_subscriber_can_read(
    registry_house, registry, clock, settings
) -> None:
    bus = await connect(settings, name="subscriber")
    heard = await bus.client.subscribe("kubelore.v1.events.alert.prod.warning.cluster-registry")
    await bus.heard()
    await expiring(registry_house, registry, "prod", clock.now + 5 * DAY)
    await registry_house.expiry.tell_due()
    message = await heard.next_msg(timeout=5)
    await bus.close()
    assert message.headers is not None
    assert message.headers["Content-Type"] == "application/cloudevents+json"
    event = json.loads(message.data)
    assert (event["specversion"], event["type"]) == ("1.0", "io.kubelore.credentials.expire")
    assert (event["source"], event["subject"]) == ("/kubelore/cluster-registry", "prod")
    assert event["data"]["days_left"] == 5


async def test_who_tell_at_once_tell_one_alert(registry_house, registry, clock) -> None:
    await expiring(registry_house, registry, "prod", clock.now + 5 * DAY)
    telling = [asyncio.create_task(registry_house.expiry.tell_due()) for _ in range(3)]
    await asyncio.gather(*telling)
    assert await registry_house.expiry.tell_due() == 0

    async def heard() -> bool:
        return len(registry.alerts) == 1

    await wait_for(heard, "one alert, however many tell it at once")


def test_what_ends_first_is_what_counts() -> None:
    now = time.time()
    access = ClusterAccess(server="https://a.example.com", token=token(exp=now + 90, iat=now))
    assert lifetime(access) == Lifetime("token", pytest.approx(now + 90), None)
    account = token(exp=now + 90, iat=now, sub="system:serviceaccount:ns:robot")
    found = lifetime(ClusterAccess(server="https://a.example.com", token=account))
    assert found.renew_at == pytest.approx(now + 60, abs=1)
    assert lifetime(ClusterAccess(server="https://a.example.com", token="opaque")) == Lifetime()
    assert lifetime(ClusterAccess(server="https://a.example.com", token=token(exp=1e300))) == Lifetime()


@given(st.floats(-100, 400))
def test_the_threshold_is_the_nearest_that_has_passed(days: float) -> None:
    due = due_threshold(1e9 + days * DAY, 1e9)
    left = timedelta(seconds=(1e9 + days * DAY) - 1e9)
    passed = {each for each in THRESHOLDS_D if left <= timedelta(days=each)}
    assert (due is None) == (not passed)
    assert due is None or due == min(passed)
