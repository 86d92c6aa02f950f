"""API tokens: who makes them, what they open, and how soon they stop."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import httpx
import pytest

from kubelore.common.errors import Unavailable
from kubelore.common.store import open_database
from kubelore.gateway.remembered import FRESH_S, GRACE_S, Remembered
from kubelore.lab.waiting import wait_for
from kubelore.stack.servers import MongoServer

WITHIN_S = 10.0
"""A revocation must act within this, everywhere."""
LIFE_S = 5
"""Of a token that is to expire, but not before its watch is open."""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def client(world: Any, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=world.url, headers=bearer(token), timeout=20)


async def end_of(events: Any) -> tuple[str, dict[str, Any]]:
    while True:
        name, _, data = await events.next(bookmarks=True)
        if name == "error":
            return name, data


async def test_a_token_opens_what_its_grants_say_and_nothing_else(world) -> None:
    replica = await world.replica("prod-eu", "lab")
    replica.hold("prod-eu:pods:shop:web-0", "lab:pods:shop:web-0")
    made = await world.token("ci", clusters=["prod-*"], namespaces=["shop"])
    async with client(world, made["token"]) as ci:
        who = (await ci.get("/api/whoami")).json()
        assert (who["subject"], who["credential"]) == ("ci", f"token:{made['id']}")
        assert who["expires_at"] == made["expires_at"]
        assert who["grants"] == [
            {"role": "viewer", "rights": [], "clusters": ["prod-*"], "namespaces": ["shop"]}
        ]
        page = (await ci.get("/api/k8s/unified/resources", params={"type": "pods"})).json()
        assert [state["name"] for state in page["clusters"]] == ["prod-eu"]
        refused = await ci.get("/api/k8s/unified/resources", params={"type": "pods", "clusters": "lab"})
        assert refused.status_code == 404


async def test_the_secret_is_shown_once_and_kept_nowhere(world) -> None:
    made = await world.token("ci")
    secret = made["token"][-43:]
    listed = await world.http.get("/api/tokens")
    (item,) = listed.json()["items"]
    assert item == {name: value for name, value in made.items() if name != "token"}
    assert item["created_by"] == "admin"
    life = datetime.fromisoformat(item["expires_at"]) - datetime.fromisoformat(item["created_at"])
    assert abs(life - timedelta(seconds=600)) < timedelta(seconds=1)
    async with await open_database(world.settings) as database:
        (document,) = await database.collection("tokens").find()
    assert secret not in listed.text
    assert secret not in str(document)


def kept_frames() -> int:
    """Frames of the gateway that some error still holds, with everything in their variables."""
    gc.collect()
    held = (one for one in gc.get_objects() if isinstance(one, TracebackType))
    return sum("kubelore/gateway/" in one.tb_frame.f_code.co_filename for one in held)


async def test_refused_credentials_leave_nothing_of_their_requests_behind(world) -> None:
    foreign = {"Cookie": "kubelore_session=kls_" + "0" * 16 + "_" + "x" * 43}
    wrong = bearer("klt_" + "0" * 16 + "_" + "x" * 43)
    before = kept_frames()
    for _ in range(3):
        for headers in (wrong, foreign):
            assert (await world.stranger.get("/api/whoami", headers=headers)).status_code == 401
    assert kept_frames() <= before


async def test_the_last_use_is_shown_coarsely(world) -> None:
    made = await world.token("ci")
    async with client(world, made["token"]) as ci:
        await ci.get("/api/whoami")

        async def noted() -> Any:
            return (await world.http.get("/api/tokens")).json()["items"][0]["last_used_at"]

        used = datetime.fromisoformat(await wait_for(noted, "the use to be noted"))
    assert (used.second, used.microsecond) == (0, 0)


async def test_tokens_are_listed_page_by_page(world) -> None:
    ids = {(await world.token(f"t{number}"))["id"] for number in range(5)}
    walked: list[str] = []
    following = None
    while True:
        query = {"limit": 2, **({"continue": following} if following else {})}
        page = (await world.http.get("/api/tokens", params=query)).json()
        assert page["total"] == 5
        walked += [item["id"] for item in page["items"]]
        following = page["continue"]
        if following is None:
            break
    assert (len(walked), set(walked)) == (5, ids)


@pytest.mark.parametrize(
    "grant",
    [
        {"role": "viewer"},
        {"role": "operator"},
        {"role": "admin", "clusters": ["prod-*"]},
        {"role": "admin", "namespaces": ["shop"]},
    ],
)
async def test_only_who_administers_everything_makes_lists_and_revokes_tokens(world, grant) -> None:
    made = await world.token("somebody", **grant)
    other = await world.token("other")
    async with client(world, made["token"]) as somebody:
        body = {"name": "x", "grants": [{"role": "viewer", "clusters": ["prod-*"], "namespaces": ["shop"]}]}
        answers = [
            await somebody.post("/api/tokens", json=body),
            await somebody.get("/api/tokens"),
            await somebody.delete(f"/api/tokens/{other['id']}"),
        ]
        assert [(answer.status_code, answer.json()["reason"]) for answer in answers] == [
            (403, "Forbidden")
        ] * 3
        assert (await somebody.delete(f"/api/tokens/{made['id']}")).status_code == 204
        assert (await somebody.get("/api/whoami")).status_code == 401


async def test_nobody_hands_out_more_than_they_hold(world) -> None:
    made = await world.token("deputy", role="admin", rights=["secrets"])
    async with client(world, made["token"]) as deputy:
        for rights, expected in ([["secrets"], 201], [["exec"], 403], [["secrets", "backup"], 403]):
            body = {"name": "x", "grants": [{"role": "viewer"}, {"role": "viewer", "rights": rights}]}
            answer = await deputy.post("/api/tokens", json=body)
            assert answer.status_code == expected, answer.text
        assert (await deputy.post("/api/tokens", json=body)).json()["remedy"]


GRANT = {"role": "viewer"}
MALFORMED: list[dict[str, Any]] = [
    {},
    {"name": "x"},
    {"name": "x", "grants": []},
    {"name": "admin", "grants": [GRANT]},
    {"name": "oidc:alice", "grants": [GRANT]},
    {"name": "a\nb", "grants": [GRANT]},
    {"name": "x" * 64, "grants": [GRANT]},
    {"name": "x", "grants": [{"role": "root"}]},
    {"name": "x", "grants": [{"role": "viewer", "rights": ["everything"]}]},
    {"name": "x", "grants": [{"role": "viewer", "clusters": []}]},
    {"name": "x", "grants": [{"role": "viewer", "clusters": ["PROD"]}]},
    {"name": "x", "grants": [{"role": "viewer", "namespaces": ["a b"]}]},
    {"name": "x", "grants": [{"role": "viewer", "cluster": ["a"]}]},
    {"name": "x", "grants": [GRANT] * 51},
    {"name": "x", "grants": [GRANT], "expires_in_s": 0},
    {"name": "x", "grants": [GRANT], "expires_in_s": 10**9},
    {"name": {"$ne": None}, "grants": [GRANT]},
]


async def test_a_token_that_makes_no_sense_is_refused(world) -> None:
    for body in MALFORMED:
        answer = await world.http.post("/api/tokens", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest"), body
    assert (await world.http.get("/api/tokens")).json()["items"] == []


async def test_a_text_that_is_no_secret_of_a_token_opens_nothing(world) -> None:
    secret = (await world.token())["token"]
    other = (await world.token())["token"]
    mixed = secret[:21] + other[21:]
    for text in (
        secret[:-1],
        secret + "A",
        secret.upper(),
        mixed,
        f"klt_{'0' * 16}_{'A' * 43}",
        "klt__",
        "a.b.c",
    ):
        answer = await world.stranger.get("/api/whoami", headers=bearer(text))
        assert answer.status_code == 401, text
    for query in ({"token": secret}, {"access_token": secret}, {"api_key": secret}):
        assert (await world.stranger.get("/api/whoami", params=query)).status_code == 401


async def test_a_revoked_token_is_refused_everywhere_and_its_open_watches_end(world, another) -> None:
    await world.replica("prod-eu")
    made = await world.token("leaver")
    elsewhere = await another()
    async with client(world, made["token"]) as leaver:
        async with aclosing(world.watching(client=leaver)) as watching:
            events = await anext(watching)
            assert (await elsewhere.get("/api/whoami", headers=bearer(made["token"]))).status_code == 200
            assert (await world.http.delete(f"/api/tokens/{made['id']}")).status_code == 204
            assert (await leaver.get("/api/whoami")).status_code == 401
            async with asyncio.timeout(WITHIN_S):
                _, said = await end_of(events)
            assert said["reason"] == "Unauthorized"

        async def refused() -> bool:
            return (await elsewhere.get("/api/whoami", headers=bearer(made["token"]))).status_code == 401

        await wait_for(refused, "the other gateway to refuse the token", WITHIN_S)
    assert (await world.http.delete(f"/api/tokens/{made['id']}")).status_code == 404


async def test_a_token_expires_and_its_open_watches_end(world) -> None:
    await world.replica("prod-eu")
    made = await world.token("visitor", expires_in_s=LIFE_S)
    async with client(world, made["token"]) as visitor, aclosing(world.watching(client=visitor)) as watching:
        events = await anext(watching)
        async with asyncio.timeout(LIFE_S + WITHIN_S):
            _, said = await end_of(events)
        assert said["reason"] == "Unauthorized"
        assert (await visitor.get("/api/whoami")).status_code == 401


async def test_a_watch_ends_when_its_token_grants_less_than_it_did(world, another) -> None:
    await world.replica("prod-eu", "lab")
    made = await world.token("demoted")
    async with client(world, made["token"]) as demoted, aclosing(world.watching(client=demoted)) as watching:
        events = await anext(watching)
        async with await open_database(world.settings) as database:
            less = [{"role": "viewer", "rights": [], "clusters": ["lab"], "namespaces": ["*"]}]
            await database.collection("tokens").update(made["id"], {"grants": less})
        async with asyncio.timeout(WITHIN_S + FRESH_S):
            _, said = await end_of(events)
        assert said["reason"] == "Unauthorized"
        assert (await demoted.get("/api/whoami")).json()["grants"] == less


async def test_while_the_database_is_away_what_was_known_still_opens_and_the_administrator_gets_in(
    world, another, tmp_path
) -> None:
    async with MongoServer(tmp_path / "mongo") as mongo:
        client = await another(mongo_url=mongo.url)
        admin = {"Authorization": world.http.headers["Authorization"]}
        body = {"name": "ci", "grants": [{"role": "viewer"}]}
        known, unknown = [
            (await client.post("/api/tokens", json=body, headers=admin)).json()["token"] for _ in range(2)
        ]
        assert (await client.get("/api/whoami", headers=bearer(known))).status_code == 200
        await mongo.kill()
        refused = await client.get("/api/whoami", headers=bearer(unknown))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert (await client.get("/api/whoami", headers=bearer(known))).status_code == 200
        assert (await client.get("/api/whoami", headers=admin)).status_code == 200
        key = {**admin, "Idempotency-Key": "k"}
        assert (await client.post("/api/tokens", json=body, headers=key)).status_code == 503

        async def told() -> bool:
            answer = await client.get("/readyz")
            return (answer.status_code, answer.text) == (503, "waiting for database")

        await wait_for(told, "readyz to tell that the database is away", 15)
        await mongo.start()

        async def back() -> bool:
            found = await client.get("/api/whoami", headers=bearer(unknown))
            return found.status_code == 200 and (await client.get("/readyz")).status_code == 200

        await wait_for(back, "the unknown token to be taken again", 20)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_remembered_is_good_for_five_seconds_and_for_thirty_while_nobody_can_be_asked() -> None:
    clock = Clock()
    records: dict[str, str] = {"a": "first"}
    away = False
    asked: list[str] = []

    async def read(key: str) -> str | None:
        asked.append(key)
        if away:
            raise Unavailable("away")
        return records.get(key)

    remembered = Remembered(read, clock)
    assert await asyncio.gather(*(remembered.get("a") for _ in range(10))) == ["first"] * 10
    assert asked == ["a"]
    records["a"] = "second"
    clock.now += FRESH_S - 0.1
    assert await remembered.get("a") == "first"
    clock.now += 0.2
    assert await remembered.get("a") == "second"
    away = True
    clock.now += GRACE_S - 0.1
    assert await remembered.get("a") == "second"
    with pytest.raises(Unavailable):
        await remembered.get("never seen")
    clock.now += 0.2
    with pytest.raises(Unavailable):
        await remembered.get("a")
    away = False
    clock.now += 2
    del records["a"]
    assert await remembered.get("a") is None
