"""What requests leave in the audit log: through the door of a real gateway, read where it lies."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
import pytest_asyncio
from fastapi import FastAPI

from kubelore.common.bus import connect
from kubelore.common.contracts.audit import AuditEvent
from kubelore.common.store import open_database
from kubelore.gateway.audit.requests import Audited, audited, check_audited, intend, routes_of
from kubelore.gateway.documentation import describe
from kubelore.gateway.openapi import application
from kubelore.gateway.repository import AuditRepository
from kubelore.lab.waiting import wait_for

ADD = "/api/k8s/clusters/add"


@pytest_asyncio.fixture(loop_scope="session")
async def entries(world):
    """Every entry of the log by now, in the order of its chain, as (action, resource, outcome, document)."""
    database = await open_database(world.settings)
    repository = AuditRepository(database)

    async def read(action: str = ""):
        return [
            written.content | {"id": written.id}
            async for chain in repository.chains()
            async for written in repository.along(chain)
            if not action or written.content["action"] == action
        ]

    yield read
    await database.close()


def outcomes(found) -> list[tuple[str, str, str, int]]:
    return [(one["action"], one.get("resource", ""), one["outcome"], one.get("status", 0)) for one in found]


async def test_a_mutation_has_its_intent_and_its_end(world, entries) -> None:
    answer = await world.http.post(
        ADD,
        json={"name": "prod", "kubeconfig": "secret: kubeconfig", "description": "private"},
        headers={"User-Agent": "x" * 200},
    )
    assert answer.status_code == 201, answer.text
    intent, end = await entries()
    assert outcomes([intent, end]) == [
        ("clusters.add", "prod", "unknown", 0),
        ("clusters.add", "prod", "ok", 201),
    ]
    assert end["closes"] == intent["id"]
    for entry in (intent, end):
        assert (entry["actor"], entry["credential"], entry["cluster"]) == ("admin", "admin", "prod")
        assert entry["address"] == "127.0.0.1"
        assert entry["user_agent"] == "x" * 80
        assert entry["operation_id"] == answer.headers["operation-id"]
        assert entry["trace_id"] == answer.headers["trace-id"]
        assert abs(entry["at"] - time.time()) < 30
        for never in ("secret", "private"):
            assert never not in str(entry)


async def test_the_intent_is_written_before_anything_is_done(world, entries) -> None:
    seen = []
    adding = world.registry.add

    async def look(request):
        seen.extend(outcomes(await entries()))
        return await adding(request)

    world.registry.during_add = look
    await world.http.post(ADD, json={"name": "prod", "kubeconfig": "x"})
    assert seen == [("clusters.add", "prod", "unknown", 0)]


async def test_what_failed_says_why(world, entries) -> None:
    assert (await world.http.delete("/api/k8s/clusters/nowhere")).status_code == 404
    assert (await world.http.post(ADD, json={"name": "prod"})).status_code == 400
    assert (await world.http.post(ADD, content=b"{")).status_code == 400
    assert (await world.http.put("/api/k8s/clusters/list")).status_code == 405

    async def four() -> bool:
        return len([one for one in await entries() if "status" in one]) == 4

    await wait_for(four, "four ends", 10, every=0.05)
    ends = [one for one in await entries() if "status" in one]
    assert [(one["action"], one.get("resource"), one["status"], one["reason"]) for one in ends] == [
        ("clusters.remove", "nowhere", 404, "NotFound"),
        ("clusters.add", "prod", 400, "BadRequest"),
        ("clusters.add", None, 400, "BadRequest"),
        ("request", "PUT /api/k8s/clusters/list", 405, "MethodNotAllowed"),
    ]


async def test_reading_leaves_nothing(world, entries) -> None:
    await world.replica("prod")
    await world.list(type="pods")
    await world.refused("/api/k8s/nothing")
    assert await entries() == []


async def test_refusals_that_repeat_are_counted_together(world, entries) -> None:
    for _ in range(50):
        assert (await world.stranger.get("/api/k8s/clusters/list")).status_code == 401
        assert (await world.stranger.post(ADD, json={"name": "prod"})).status_code == 401

    async def first() -> bool:
        return bool(await entries())

    await wait_for(first, "the first refusal", 10, every=0.05)
    (only,) = await entries()
    assert outcomes([only]) == [("authenticate", "", "refused", 401)]
    assert (only["reason"], only["address"], only.get("actor", "")) == ("Unauthorized", "127.0.0.1", "")
    await world.stop()
    _, rest = await entries()
    assert rest["count"] == 99
    assert rest["since"] == only["at"]


async def ann(world) -> dict[str, str]:
    """The headers of a viewer of one namespace."""
    grant = {"role": "viewer", "rights": [], "clusters": ["prod"], "namespaces": ["shop"]}
    made = await world.http.post("/api/tokens", json={"name": "ann", "grants": [grant]})
    return {"Authorization": f"Bearer {made.json()['token']}"}


async def test_a_refusal_before_any_act_names_what_its_path_names(world, entries) -> None:
    headers = await ann(world)
    path = "/api/k8s/unified/resources/prod:configmaps:shop:web"
    query = {"reason": "query-value"}
    assert (await world.stranger.get("/api/audit/verify", headers=headers)).status_code == 403
    untyped = await world.stranger.patch(path, content=b"no type", params=query, headers=headers)
    assert untyped.status_code == 501

    async def theirs() -> list[dict[str, object]]:
        return [one for one in await entries() if one.get("actor") == "ann"]

    async def both() -> bool:
        return len(await theirs()) == 2

    await wait_for(both, "two ends", 10, every=0.05)
    assert sorted(outcomes(await theirs())) == [
        ("audit.verify", "", "refused", 403),
        ("resources.patch", "prod:configmaps:shop:web", "failed", 501),
    ]
    assert "query-value" not in str(await theirs())


async def test_a_request_of_a_foreign_page_names_what_it_was(world, entries) -> None:
    await world.stranger.post("/api/session", headers={"Authorization": world.http.headers["authorization"]})
    answer = await world.stranger.delete("/api/k8s/clusters/prod", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403

    async def told() -> bool:
        return outcomes(await entries("request")) == [
            ("request", "DELETE /api/k8s/clusters/prod", "refused", 403)
        ]

    await wait_for(told, "the refusal to be on record", 10, every=0.05)


async def test_a_terminal_has_a_trace(world, entries) -> None:
    path = "/api/k8s/containers/prod:shop:web:app/exec/ws"
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
    }
    answer = await world.http.get(path, headers=headers)
    assert answer.status_code == 503
    intent, end = await entries("containers.terminal")
    assert answer.headers["trace-id"] == intent["trace_id"] == end["trace_id"] != ""


async def test_a_dry_run_leaves_its_refusals_by_what_they_were_about(world, entries) -> None:
    await world.replica("prod")
    headers = await ann(world)
    web = "prod:deployments.apps:shop:web"
    operations = [
        {"action": "scale", "id": web, "replicas": 0},
        {"action": "restart", "id": "nowhere:deployments.apps:shop:web"},
    ]
    body = {"operations": operations, "dry_run": True}
    tried = await world.stranger.post("/api/k8s/unified/batch", json=body, headers=headers)
    assert [one["error"]["status"] for one in tried.json()["results"]] == [403, 404]
    deleted = await world.stranger.delete(
        f"/api/k8s/unified/resources/{web}", params={"dry_run": True}, headers=headers
    )
    assert deleted.status_code == 403
    await world.stop()
    assert outcomes([one for one in await entries() if one.get("actor") == "ann"]) == [
        ("resources.scale", web, "refused", 403),
        ("resources.delete", web, "refused", 403),
    ]


async def test_what_was_written_is_told_on_the_bus(world) -> None:
    bus = await connect(world.settings.model_copy(update={"replica": ""}), name="listener")
    told: list[AuditEvent] = []

    async def listen() -> None:
        async with aclosing(bus.subscribe_events("kubelore.v1.events.audit.prod.>", AuditEvent)) as events:
            told.append(await anext(events))

    listening = asyncio.create_task(listen())
    try:

        async def heard() -> bool:
            await world.http.post("/api/k8s/clusters/prod/test")
            return bool(told)

        await wait_for(heard, "an event", 20, every=0.1)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await bus.close()
    assert (told[0].actor, told[0].action, told[0].outcome) == ("admin", "clusters.test", "failed")


async def test_nothing_is_changed_while_the_log_cannot_be_written(world, entries, mongo_of) -> None:
    with mongo_of(world.settings).refusing_writes("audit"):
        answer = await world.http.post(ADD, json={"name": "prod", "kubeconfig": "x"})
        assert answer.status_code == 503, answer.text
        assert answer.json()["reason"] == "AuditUnavailable"
        assert "prod" not in world.registry.clusters

    async def goes_on() -> bool:
        return (await world.http.post(ADD, json={"name": "prod", "kubeconfig": "x"})).status_code == 201

    await wait_for(goes_on, "the log to be written again", 20, every=0.2)

    async def told() -> bool:
        ends = [one for one in await entries("clusters.add") if one.get("status") == 503]
        return len(ends) >= 1 and all(one["reason"] == "AuditUnavailable" for one in ends)

    await wait_for(told, "the refusals to be written", 10, every=0.1)
    closed = {one["closes"] for one in await entries() if one.get("closes")}
    assert {one["id"] for one in await entries() if not one.get("status")} == closed


def test_every_route_that_changes_something_declares_its_action() -> None:
    app = application()
    changing = [route for route in routes_of(app) if {"POST", "PUT", "PATCH", "DELETE"} & route.methods]
    described = [
        method
        for path in describe(app)["paths"].values()
        for method in path
        if method in ("post", "put", "patch", "delete")
    ]
    assert len(changing) == len(described) > 3
    check_audited(app)


def test_every_route_by_which_files_leave_declares_its_action() -> None:
    shown = {"application/json", "application/yaml", "application/x-ndjson"}
    kinds = {
        path: set(operations.get("get", {}).get("responses", {}).get("200", {}).get("content", {}))
        for path, operations in describe(application())["paths"].items()
    }
    leaving = {path for path, found in kinds.items() if found - shown and "text/event-stream" not in found}
    declared = {
        route.path.replace(":container}", "}")
        for route in routes_of(application())
        if any(isinstance(one.call, Audited) for one in route.dependant.dependencies)
    }
    assert len(leaving) > 3
    assert leaving <= declared


def test_an_application_with_a_route_that_declares_none_does_not_start() -> None:
    app = FastAPI()

    @app.get("/read")
    async def read() -> None: ...

    @app.post("/declared", dependencies=[audited("things.make")])
    async def declared() -> None: ...

    check_audited(app)

    @app.patch("/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(TypeError, match="/forgotten"):
        check_audited(app)


async def test_nothing_is_intended_outside_of_a_request() -> None:
    with pytest.raises(RuntimeError):
        await intend([("things.make", "x")])
