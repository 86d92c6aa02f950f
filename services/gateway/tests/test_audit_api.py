"""`/api/audit`: filters, pages, who sees what, and the verdict on the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.crypto import Keyring
from kubelore.common.store import BlobStore, open_database
from kubelore.gateway.audit.endpoints import _rows, _views, _without_closed
from kubelore.gateway.audit.entries import Entry
from kubelore.gateway.audit.heads import HeadStore
from kubelore.gateway.audit.log import AuditLog
from kubelore.gateway.repository import AuditRepository

PATH = "/api/audit"


@pytest_asyncio.fixture(loop_scope="session")
async def second(world) -> AsyncIterator[tuple[AuditLog, AuditRepository]]:
    """Another gateway's chain in the same log, for entries of whoever a test needs."""
    async with await open_database(world.settings) as database:
        repository = AuditRepository(database)
        signer = Keyring.load(world.settings.keyring_dir / "gateway.json").signer()
        log = AuditLog(
            repository, HeadStore(BlobStore.open(world.settings.blob_url), signer), writer="gateway-2"
        )
        running = asyncio.create_task(log.run())
        async with asyncio.timeout(10):
            await log.opened.wait()
        yield log, repository
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def made(number: int = 0, **fields: Any) -> Entry:
    at = 1_800_000_000.0 + number
    return Entry(
        **{"at": at, "action": "things.make", "outcome": "ok", "status": 200, "actor": "ann", **fields}
    )


async def listed(world, **query: Any) -> list[dict[str, Any]]:
    answer = await world.http.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_an_act_is_listed_once_with_how_it_ended_as_soon_as_it_was_answered(world) -> None:
    for number in range(20):
        answer = await world.http.post(f"/api/k8s/clusters/c{number}/test")
        (newest, *others) = await listed(world, limit=1000)
        assert len(others) == number
        assert (newest["action"], newest["resource"], newest["cluster"]) == (
            "clusters.test",
            f"c{number}",
            f"c{number}",
        )
        assert (newest["outcome"], newest["status"], newest["reason"]) == ("failed", 404, "NotFound")
        assert newest["operation_id"] == answer.headers["operation-id"]
        assert newest["trace_id"] == answer.headers["trace-id"]


async def test_an_act_without_an_end_is_unknown(world, second) -> None:
    log, _ = second
    (intent,) = await log.intend([made(outcome="unknown", status=0, resource="prod")])
    (only,) = await listed(world)
    assert (only["id"], only["outcome"], only["status"]) == (intent, "unknown", 0)


async def test_every_filter_chooses_by_what_it_says(world, second) -> None:
    log, _ = second
    await log.conclude(
        [
            made(1, actor="ann", action="clusters.add", resource="prod", cluster="prod"),
            made(2, actor="bob", action="clusters.remove", resource="prod", cluster="prod", outcome="failed"),
            made(3, actor="bob", action="resources.apply", resource="prod:pods:a:b", cluster="prod"),
            made(4, actor="bob", action="tokens.make", resource="tokens/x"),
        ]
    )

    async def numbers(**query: Any) -> list[int]:
        return [round(time_of(item) - 1_800_000_000) for item in await listed(world, **query)]

    assert await numbers() == [4, 3, 2, 1]
    assert await numbers(actor="bob") == [4, 3, 2]
    assert await numbers(action="clusters.add") == [1]
    assert await numbers(action="clusters.*") == [2, 1]
    assert await numbers(action="clusters") == []
    assert await numbers(resource="prod") == [2, 1]
    assert await numbers(resource="prod*") == [3, 2, 1]
    assert await numbers(resource="prod:pods:*", actor="bob") == [3]
    assert await numbers(cluster="prod") == [3, 2, 1]
    assert await numbers(outcome="failed") == [2]
    assert await numbers(since="2027-01-15T08:00:03Z") == [4, 3]
    assert await numbers(until="2027-01-15T08:00:03Z") == [2, 1]
    assert await numbers(since="2027-01-15T08:00:02Z", until="2027-01-15T08:00:03Z") == [2]
    assert await numbers(actor='{"$ne": null}') == []
    assert (await world.refused(PATH, limit=1001))[0] == 400
    assert await numbers(until="2027-01-15") == []
    assert await numbers(since="2027-01-15", until="2027-01-15T08:00:02") == [1]
    for no_time in ("yesterday", "0.5", "1800000003", "2027-13-01"):
        assert (await world.refused(PATH, since=no_time))[0] == 400


def time_of(item: dict[str, Any]) -> float:
    return datetime.fromisoformat(item["at"]).timestamp()


async def test_pages_hold_every_entry_once_while_others_are_added(world, second) -> None:
    log, _ = second
    await log.conclude([made(number // 3, resource=f"r{number}") for number in range(100)])
    found, token = [], None
    while True:
        query = {"limit": 7} if token is None else {"limit": 7, "continue": token}
        page = (await world.http.get(PATH, params=query)).json()
        found += [item["resource"] for item in page["items"]]
        token = page["continue"]
        await log.conclude([made(1000, resource="later")])
        if token is None:
            break
    assert sorted(found) == sorted(f"r{number}" for number in range(100))
    query = {"limit": 7, "continue": "x" * 40}
    assert (await world.http.get(PATH, params=query)).status_code == 400
    first = (await world.http.get(PATH, params={"limit": 7})).json()["continue"]
    assert (await world.http.get(PATH, params={"actor": "bob", "continue": first})).status_code == 400


async def test_who_administers_some_clusters_sees_those_and_their_own_acts(world, second) -> None:
    log, repository = second

    class Known:
        def matching(self, caller: Caller, _: list[str]) -> list[str]:
            return [name for name in ("prod", "test") if caller.sees(name)]

    await log.conclude(
        [
            made(1, actor="bob", resource="prod", cluster="prod"),
            made(2, actor="bob", resource="test", cluster="test"),
            made(3, actor="ann", resource="test", cluster="test"),
            made(4, actor="ann", resource="prod", cluster="prod"),
            made(5, actor="bob", resource="tokens/1"),
        ]
    )

    async def seen(caller: Caller, **where: str) -> list[int]:
        rows = await _rows(repository, _views(caller, Known(), dict(where)), 100, None)  # type: ignore[arg-type]
        return [round(entry.at - 1_800_000_000) for _, entry, _ in await _without_closed(repository, rows)]

    def ann(*grants: Grant) -> Caller:
        return Caller(subject="ann", grants=grants)

    assert await seen(ADMINISTRATOR) == [5, 4, 3, 2, 1]
    assert await seen(ann()) == [4, 3]
    assert await seen(ann(Grant(role="viewer"))) == [4, 3]
    assert await seen(ann(Grant(role="admin", namespaces=("shop",)))) == [4, 3]
    prod = ann(Grant(role="admin", clusters=("pro*",)))
    assert await seen(prod) == [4, 3, 1]
    assert await seen(prod, actor="bob") == [1]
    assert await seen(prod, cluster="test") == [3]
    assert await seen(ann(), actor="bob") == []


async def verdict(world) -> list[dict[str, Any]]:
    answer = await world.http.get(f"{PATH}/verify")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines() if line]


async def test_the_verdict_names_every_chain_and_the_first_fault(world, second, mongo_of) -> None:
    log, _ = second
    await world.http.post("/api/k8s/clusters/prod/test")
    await log.conclude([made(number) for number in range(5)])
    await log.sign()
    one, other, total = await verdict(world)
    assert total == {"ok": True, "chains": 2, "entries": 7, "broken": 0}
    assert (one["ok"], other["ok"]) == (True, True)
    documents = mongo_of(world.settings).database["audit"]
    documents.update_one({"_id": f"{log.chain}/000000000003"}, {"$set": {"outcome": "failed"}})
    broken = {line["chain"]: line["fault"] for line in (await verdict(world))[:-1]}
    assert broken.pop(log.chain)["kind"] == "changed"
    assert list(broken.values()) == [None]
    assert (await verdict(world))[-1]["ok"] is False


async def test_nobody_verifies_without_the_token(world) -> None:
    assert (await world.stranger.get(f"{PATH}/verify")).status_code == 401
    assert (await world.stranger.get(PATH)).status_code == 401
