"""Logs of many containers as one, through the gateway: streams that are taken up again, sockets, and pages."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet

SHOP = "logs-shop"
MANY = "logs-many"
STREAM = "/api/k8s/logs/stream"
LASTING = "storefront,web,cart,catalog"
"""Containers that are there for the whole test: those of jobs come, with lines from before they were seen."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(kubelore) -> AsyncIterator[Any]:
    """A cluster whose containers write about one line a second each, and one with five hundred of them."""
    async with SimulatedFleet(clusters=1, pods=510, demo=True) as fleet:
        demo = next(fleet[number] for number in range(len(fleet)) if fleet[number].name == "demo-shop")
        await kubelore.onboard(SHOP, demo.kubeconfig)
        await kubelore.onboard(MANY, fleet[0].kubeconfig)
        yield kubelore
        await kubelore.remove(SHOP)
        await kubelore.remove(MANY)


async def events(kubelore: Any, last: str = "", **query: Any) -> AsyncIterator[tuple[str, str, Any]]:
    """Events of a stream as (id, name, data)."""
    headers = {"Last-Event-ID": last} if last else {}
    async with kubelore.http.stream("GET", STREAM, params=query, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        position = name = ""
        async for line in answer.aiter_lines():
            key, _, value = line.partition(": ")
            if key == "id":
                position = value
            elif key == "event":
                name = value
            elif key == "data":
                yield position, name, json.loads(value)


def origin(item: dict[str, Any]) -> tuple[str, str]:
    return item["pod"], item["container"]


async def test_a_stream_that_is_taken_up_again_loses_and_repeats_nothing(shop) -> None:
    got: list[dict[str, Any]] = []
    last = ""
    for _ in range(4):
        async with (
            asyncio.timeout(30),
            aclosing(
                events(
                    shop,
                    last,
                    clusters=SHOP,
                    namespace="shop",
                    tail=1,
                    container=LASTING,
                )
            ) as stream,
        ):
            before = len(got)
            async for position, name, data in stream:
                if name == "lines":
                    got += data["items"]
                    last = position
                    if len(got) > before + 12:
                        break
    assert len(got) > 4 * 12
    for one in {origin(item) for item in got}:
        times = [_seconds(item) for item in got if origin(item) == one]
        steps = {round(later - earlier, 1) for earlier, later in itertools.pairwise(times)}
        # The simulated container writes at one pace: a step of its own length every time.
        assert len(steps) <= 1, f"{one}: {sorted(steps)}"


def _seconds(item: dict[str, Any]) -> float:
    return datetime.fromisoformat(item["timestamp"][:26] + "+00:00").timestamp()


async def test_five_hundred_containers_are_one_stream_in_order(shop) -> None:
    seen: set[str] = set()
    times: list[str] = []
    notes: list[Any] = []
    async with asyncio.timeout(90), aclosing(events(shop, clusters=MANY, tail=1, follow="false")) as stream:
        async for _, name, data in stream:
            if name == "lines":
                seen |= {item["pod"] for item in data["items"]}
                times += [item["timestamp"] for item in data["items"]]
            elif name == "note":
                notes.append(data)
    assert notes == []
    assert len(seen) == 510
    assert times == sorted(times)


async def test_a_socket_carries_the_same_events(shop) -> None:
    headers = dict(shop.http.headers)
    async with (
        aiohttp.ClientSession(headers={"Authorization": headers["authorization"]}) as session,
        session.ws_connect(f"{shop.url}/api/k8s/logs/ws?clusters={SHOP}&namespace=shop&tail=1") as socket,
    ):
        told = [json.loads((await socket.receive(timeout=20)).data) for _ in range(2)]
    lines = next(one for one in told if one["event"] == "lines")
    assert lines["id"]
    assert lines["items"][0]["message"]


async def test_pages_forward_and_backward_hold_the_same_lines(shop) -> None:
    until = datetime.now(UTC) - timedelta(seconds=2)
    span = {"since": (until - timedelta(seconds=40)).isoformat(), "until": until.isoformat()}
    forward = await _pages(shop, direction="forward", **span)
    backward = await _pages(shop, direction="backward", **span)
    assert len(forward) > 100
    assert sorted(forward) == sorted(backward)
    assert len(set(forward)) == len(forward)
    assert [one[0] for one in forward] == sorted(one[0] for one in forward)
    assert [one[0] for one in backward] == sorted((one[0] for one in backward), reverse=True)


async def _pages(kubelore: Any, **query: Any) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    token: str | None = ""
    while token is not None:
        asked = {"clusters": SHOP, "namespace": "shop", "container": LASTING, "limit": 30, **query}
        answer = await kubelore.http.get(
            "/api/k8s/logs", params=asked | ({"continue": token} if token else {})
        )
        assert answer.status_code == 200, answer.text
        found += [(one["timestamp"], one["pod"], one["container"]) for one in answer.json()["items"]]
        token = answer.json()["continue"]
    return found


async def test_a_reader_that_does_not_read_holds_up_nobody_else(shop) -> None:
    async with shop.http.stream("GET", STREAM, params={"clusters": MANY}) as idle:
        assert idle.status_code == 200
        async with (
            asyncio.timeout(30),
            aclosing(events(shop, clusters=SHOP, namespace="shop", tail=1)) as stream,
        ):
            async for _, name, _ in stream:
                if name == "lines":
                    break


async def test_a_workload_that_no_cluster_has_is_not_found(shop) -> None:
    query = {"clusters": f"{SHOP},{MANY}", "namespace": "shop", "workload": "deploy/nothing-like-it"}
    answer = await shop.http.get(STREAM, params=query)
    assert answer.status_code == 404


async def test_a_workload_without_its_namespace_is_refused(shop) -> None:
    answer = await shop.http.get(STREAM, params={"clusters": SHOP, "workload": "deploy/cart"})
    assert answer.status_code == 400
    assert "namespace" in answer.json()["remedy"]


async def test_an_id_that_is_none_is_refused(shop) -> None:
    answer = await shop.http.get(STREAM, params={"clusters": SHOP}, headers={"Last-Event-ID": "nonsense"})
    assert answer.status_code == 400


async def test_an_expression_that_cannot_be_is_refused(shop) -> None:
    answer = await shop.http.get(STREAM, params={"clusters": SHOP, "regex": "("})
    assert answer.status_code == 400


async def test_a_selection_of_nothing_says_so(shop) -> None:
    async with asyncio.timeout(20), aclosing(events(shop, clusters=SHOP, labels="app=nobody")) as stream:
        async for _, name, data in stream:
            assert (name, data["kind"]) == ("note", "none")
            break


async def test_text_is_the_lines_alone(shop) -> None:
    query = {"clusters": SHOP, "namespace": "shop", "workload": "deploy/cart", "format": "text", "tail": 2}
    answer = await shop.http.get(STREAM, params={**query, "follow": "false"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert "order=" in answer.text
    assert "{" not in answer.text
