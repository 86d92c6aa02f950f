"""A whole stack at work under its allow-lists: nothing it needs is refused, and its own credentials reach no further."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.errors
import pytest
import pytest_asyncio

from kubelore.common.contracts.endpoints import ENDPOINTS
from kubelore.common.contracts.permissions import SERVICES
from kubelore.lab.waiting import wait_for
from kubelore.stack.kept import Kept
from kubelore.stack.layout import DataDirectory, RunningStack

REFUSED = "permissions violation"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory, start_kubelore) -> AsyncIterator[Any]:
    """Two replicas of every service, and two simulated clusters."""
    data = tmp_path_factory.mktemp("permitted")
    twice = {service.replace("-", "_"): 2 for service in SERVICES}
    async with start_kubelore(data, with_demo=True, **twice) as running:
        for cluster in ("demo-data", "demo-shop"):
            await running.until_live(cluster)
        yield running


class Intruder:
    """Whoever got hold of the password of one service."""

    def __init__(self, kubelore, service: str) -> None:
        self._kept = Kept.load(DataDirectory(kubelore.data))
        self._service = service
        self.errors: list[str] = []

    async def __aenter__(self):
        self.client = await nats.connect(
            f"nats://127.0.0.1:{self._kept.ports['nats']}",
            user=self._service,
            password=self._kept.password(self._service),
            inbox_prefix=f"_INBOX_{self._service}",
            error_cb=self._note,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def _note(self, error: Exception) -> None:
        self.errors.append(str(error).lower())

    async def answered(self, subject: str, payload: bytes = b"") -> bool:
        """Whether a request gets an answer; False when the bus refuses to carry it. Nothing else is accepted."""
        before = len(self.errors)
        asking = asyncio.create_task(self.client.request(subject, payload, timeout=10))
        refusal = asyncio.create_task(self._refused_since(before))
        try:
            await asyncio.wait({asking, refusal}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return False
            asking.result()
            return True
        finally:
            for task in (asking, refusal):
                task.cancel()
            await asyncio.gather(asking, refusal, return_exceptions=True)

    async def _refused_since(self, before: int) -> None:
        await self.client.flush()
        while not any(REFUSED in error for error in self.errors[before:]):  # noqa: ASYNC110 - a callback fills it
            await asyncio.sleep(0.01)


async def replica_of(demo, service: str) -> str:
    """The id of a replica, as the metrics name it."""

    async def named() -> str:
        metrics = (await demo.http.get("/metrics")).text
        found = re.search(rf'replica="({service}-[^"]+)"', metrics)
        return found[1] if found else ""

    return await wait_for(named, f"{service} to be in the metrics")


@pytest.mark.parametrize("service", SERVICES)
async def test_every_endpoint_answers_the_callers_it_names_and_is_out_of_reach_for_others(
    demo, service: str
) -> None:
    replicas = {one: await replica_of(demo, one) for one in ("resource-ops", "container-ops")}
    async with Intruder(demo, service) as intruder:
        for endpoint in ENDPOINTS:
            subject = endpoint.subject(
                replicas.get(endpoint.service) if endpoint.scope != "service" else None
            )
            # No message of any contract: what is answered is a refusal, so nothing is changed by trying.
            reached = await intruder.answered(subject, b"\xc1")
            assert reached == (service in endpoint.callers), subject


@pytest.mark.parametrize(
    ("service", "streams"),
    [
        ("cluster-registry", {"EVENTS", "KV_LEASES"}),
        ("resource-ops", {"CHANGES", "EVENTS", "KV_LEASES", "KV_CHECKPOINTS"}),
        ("gateway", {"CHANGES", "FEED", "EVENTS", "KV_LEASES"}),
    ],
)
async def test_streams_answer_who_works_with_them_and_nobody_may_change_them(
    demo, service: str, streams: set[str]
) -> None:
    async with Intruder(demo, service) as intruder:
        for stream in ("CHANGES", "FEED", "EVENTS", "PARKED", "KV_LEASES", "KV_CHECKPOINTS"):
            assert await intruder.answered(f"$JS.API.STREAM.INFO.{stream}") == (stream in streams), stream
            for call in ("UPDATE", "PURGE", "DELETE"):
                assert not await intruder.answered(f"$JS.API.STREAM.{call}.{stream}"), (call, stream)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_hears_what_is_said_to_another(demo, service: str) -> None:
    """While everything is asked for, the largest answers among it, which travel as sessions."""
    heard: list[str] = []

    async def hear(message: nats.aio.msg.Msg) -> None:
        heard.append(message.subject)

    async with Intruder(demo, service) as intruder:
        tried = [f"_INBOX_{other}.>" for other in SERVICES if other != service]
        tried += [
            ">",
            "kubelore.>",
            "kubelore.v1.session.>",
            "kubelore.v1.session.*.*.*.out",
            "$JS.>",
            "$KV.>",
        ]
        for subject in tried:
            await intruder.client.subscribe(subject, cb=hear)
        await intruder.client.flush()
        page = await demo.list(limit=10_000)
        assert page["items"]
        await demo.list(type="pods", limit=5)
        await intruder.client.flush()
        assert heard == []
        assert len([error for error in intruder.errors if REFUSED in error]) == len(tried)


def logs_that_tell_of_a_refusal(folder: Path) -> list[str]:
    logs = [log for log in folder.glob("*.log") if log.name.startswith(SERVICES)]
    assert len(logs) == 2 * len(SERVICES)
    return [log.name for log in logs if REFUSED in log.read_text().lower()]


async def test_nothing_that_a_day_s_work_needs_is_refused(demo) -> None:
    listed = await demo.list(type="pods", limit=1)
    async with aclosing(demo.watch(type="pods", since=listed["watch_from"])) as events, asyncio.timeout(60):
        await anext(events)
    assert await demo.ids(type="deployments")
    removed = await demo.http.delete("/api/k8s/clusters/demo-data")
    assert removed.status_code == 204
    kubeconfig = (DataDirectory(demo.data).demo / "demo-data.kubeconfig").read_text()
    await demo.onboard("demo-data", kubeconfig, new_history=True)
    assert (await demo.http.post("/api/k8s/clusters/demo-data/test")).status_code == 200

    async def shared() -> bool:
        """Both replicas of resource-ops answer, in two phases."""
        page = await demo.list(type="pods", limit=5)
        return not page["partial"] and len(page["items"]) == 5

    await wait_for(shared, "a whole page out of both clusters", 60)
    assert logs_that_tell_of_a_refusal(DataDirectory(demo.data).logs) == []


async def test_every_replica_is_a_process_of_its_own_and_shown(demo) -> None:
    running = RunningStack.now(DataDirectory(demo.data))
    assert running is not None
    names = [process.name for process in running.processes if process.name.startswith(SERVICES)]
    assert sorted(names) == sorted(f"{service}-{number}" for service in SERVICES for number in (1, 2))
    assert running.urls == demo.urls
    for url in demo.urls:
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            assert (await http.get("/readyz")).status_code == 200


async def test_a_watch_at_the_second_gateway_goes_on_where_one_at_the_first_stopped(demo) -> None:
    async with aclosing(demo.watch(type="pods")) as first, asyncio.timeout(60):
        event_id = await anext(at async for at, name, _ in first if name != "status")
    headers = {"Authorization": f"Bearer {demo.token}", "Last-Event-ID": event_id}
    async with (
        httpx.AsyncClient(base_url=demo.urls[1], headers=headers, timeout=30) as http,
        http.stream("GET", "/api/k8s/unified/watch", params={"type": "pods"}) as answer,
    ):
        assert answer.status_code == 200
        async with asyncio.timeout(60):
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    assert line != f"id: {event_id}"
                    break
