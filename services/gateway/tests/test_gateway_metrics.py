"""`/metrics`: everything counted once, nobody's names in it, and nothing for whoever may not read everything."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.bus import connect
from kubelore.gateway.metrics import Metrics, metrics_routes
from kubelore.gateway.problems import install
from kubelore.lab.waiting import wait_for

LIST = "/api/k8s/unified/resources"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; fails for text that is no exposition."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(world) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await world.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.text)


def value(found, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


async def test_requests_are_counted_by_template_and_status_with_their_durations(world) -> None:
    await world.replica("prod")
    before = await scraped(world)
    await world.list(limit=1)
    await world.list(limit=1)
    missing = await world.http.get("/api/k8s/clusters/secret-name")
    assert missing.status_code == 404
    await world.http.get("/no/such/path/secret-name")
    await world.http.request("PROPFIND", LIST)
    after = await scraped(world)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    requests = "kubelore_http_requests_total"
    assert more(requests, method="GET", route=LIST, status="200") == 2
    assert more(requests, method="GET", route="/api/k8s/clusters/{cluster}", status="404") == 1
    assert more(requests, method="GET", route="unmatched", status="404") == 1
    assert more("kubelore_http_request_duration_seconds_count", method="GET", route=LIST) == 2
    assert more("kubelore_http_request_duration_seconds_bucket", method="GET", route=LIST, le="+Inf") == 2
    assert (
        sum(
            count
            for (name, labels), count in after.items()
            if name == requests and ("method", "other") in labels
        )
        == 1
    )
    assert value(after, "kubelore_clusters") == 1
    assert value(after, "kubelore_http_requests_in_flight") == 1


async def test_no_label_holds_what_a_client_wrote(world) -> None:
    await world.replica("prod")
    await world.http.get("/api/k8s/clusters/secret-name")
    await world.http.get("/secret-name")
    await world.http.get(LIST, params={"search": "secret-name", "labels": "app=secret-name"})
    await world.http.get(f"{LIST}/prod:pods:default:secret-name")
    assert "secret-name" not in (await world.http.get("/metrics")).text


async def test_watches_and_bodies_that_were_refused_are_counted(world) -> None:
    await world.replica("prod")
    limit = world.settings.max_watches
    too_large = await world.http.post(
        "/api/k8s/clusters/inspect", content=bytes(world.settings.max_body_bytes + 1)
    )
    assert too_large.status_code == 413
    async with world.http.stream("GET", "/api/k8s/unified/watch") as first:
        assert first.status_code == 200
        async with world.http.stream("GET", "/api/k8s/unified/watch") as second:
            assert second.status_code == 200
            assert limit == 2
            assert (await world.http.get("/api/k8s/unified/watch")).status_code == 429
            found = await scraped(world)
    assert value(found, "kubelore_watches_open") == 2
    assert value(found, "kubelore_watches_limit") == limit
    assert value(found, "kubelore_http_bodies_refused_total") == 1
    assert value(found, "kubelore_http_rate_limited_total") == 1


async def test_one_scrape_shows_the_endpoints_of_every_replica(world) -> None:
    one, two = await world.replica("prod"), await world.replica("test")
    await world.list(limit=1)

    async def all_heard() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        found = await scraped(world)
        replicas = [
            value(found, "kubelore_replicas", service=name) for name in ("resource-ops", "cluster-registry")
        ]
        return found if replicas == [2, 1] else {}

    # A scrape shows who answered within half a second, and so do those of the next five.
    found = await wait_for(all_heard, "all three replicas in one scrape", every=1)
    for replica in (one, two):
        labels = {"service": "resource-ops", "replica": replica.bus.replica, "endpoint": "query"}
        assert value(found, "kubelore_endpoint_requests_total", **labels, outcome="served") >= 1
        assert value(found, "kubelore_endpoint_requests_in_flight", **labels) == 0


async def test_scrapes_at_once_ask_the_services_once(world) -> None:
    await world.replica("prod")
    bus = await connect(world.settings, name="counting")
    asked = 0

    async def count(_) -> None:
        nonlocal asked
        asked += 1

    try:
        await bus.client.subscribe("$SRV.STATS", cb=count)
        await bus.heard()
        await asyncio.gather(*(scraped(world) for _ in range(5)))
        await bus.heard()
        assert asked == 1
    finally:
        await bus.close()


@pytest.mark.parametrize(
    ("grants", "status"),
    [
        (ADMINISTRATOR.grants, 200),
        ((Grant(role="viewer"),), 200),
        ((Grant(role="viewer", namespaces=("shop",)),), 403),
        ((Grant(role="admin", clusters=("prod",)),), 403),
        ((), 403),
    ],
)
async def test_only_who_may_read_everything_reads_the_metrics(world, grants, status: int) -> None:
    bus = await connect(world.settings, name="gateway")
    app = FastAPI()
    install(app)
    app.include_router(metrics_routes(bus, Metrics()))

    async def as_caller(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"caller": Caller(subject="scraper", grants=grants)}}, receive, send)

    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(as_caller), base_url="http://test"
        ) as http:
            assert (await http.get("/metrics")).status_code == status
    finally:
        await bus.close()


async def test_a_stranger_reads_no_metrics(world) -> None:
    assert (await world.stranger.get("/metrics")).status_code == 401
