"""What a collection promises, on every MongoDB server that Kubelore runs with.

Written once, run against a real mongod and against SecantusDB, both with a
user and a password.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    TooLarge,
)
from kubelore.common.settings import CommonSettings
from kubelore.common.store import (
    Collection,
    Database,
    gt,
    gte,
    lt,
    lte,
    ne,
    not_lt,
    one_of,
    open_database,
    position,
    present,
    starts_with,
)
from kubelore.stack.servers import MongoServer, secantus_engine

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["mongod", "secantusdb"])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MongoServer]:
    engine = secantus_engine() if request.param == "secantusdb" else None
    async with MongoServer(tmp_path_factory.mktemp(request.param), engine=engine, cache_mb=256) as running:
        if running.engine.kind != request.param:
            pytest.skip(f"there is no {request.param} here")
        yield running


def settings_for(url: str) -> CommonSettings:
    return CommonSettings(mongo_url=SecretStr(url), mongo_database="contract")  # type: ignore[call-arg]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(server: MongoServer) -> AsyncIterator[Database]:
    async with await open_database(settings_for(server.url)) as opened:
        yield opened


@pytest.fixture
def things(database: Database) -> Collection:
    return database.collection(f"things_{next(_numbers)}")


async def test_what_is_inserted_comes_back_as_it_was(things: Collection) -> None:
    document = {
        "_id": b"\x00\xff uid",
        "text": "grüße 🚀",
        "number": 2**53,
        "real": 1.5,
        "flag": True,
        "nothing": None,
        "raw": b"\x00\x01",
        "at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        "nested": {"app.kubernetes.io/name": "x", "list": [1, {"a": []}]},
    }
    await things.insert(document)
    assert await things.get(b"\x00\xff uid") == document


async def test_an_id_is_taken_once(things: Collection) -> None:
    await things.insert({"_id": "a", "n": 1})
    with pytest.raises(AlreadyExists):
        await things.insert({"_id": "a", "n": 2})
    assert await things.get("a") == {"_id": "a", "n": 1}


async def test_of_many_that_insert_one_id_exactly_one_succeeds(things: Collection) -> None:
    done = await asyncio.gather(
        *(things.insert({"_id": "a", "n": n}) for n in range(20)), return_exceptions=True
    )
    assert done.count(None) == 1
    assert all(error is None or isinstance(error, AlreadyExists) for error in done)


async def test_a_missing_document_is_not_found(things: Collection) -> None:
    with pytest.raises(NotFound):
        await things.get("nobody")
    assert await things.find_one({"_id": "nobody"}) is None


async def test_a_batch_repeated_is_recorded_once(things: Collection) -> None:
    batch = [{"_id": f"{n:03}"} for n in range(100)]
    assert await things.insert_new(batch[:60]) == 60
    assert await things.insert_new(batch) == 40
    assert await things.insert_new(batch) == 0
    assert await things.insert_new([]) == 0
    assert await things.count() == 100


async def test_a_batch_with_something_unstorable_fails(things: Collection) -> None:
    with pytest.raises(Invalid):
        await things.insert_new([{"_id": "a"}, {"_id": "b", "bad": object()}])


async def test_many_documents_are_changed_at_once_each_in_its_own_way(things: Collection) -> None:
    await things.insert_new([{"_id": f"{n:03}", "state": "intended", "kept": n} for n in range(100)])
    wanted = {f"{n:03}": {"state": f"done-{n}"} for n in range(0, 100, 2)}
    assert await things.update_each(wanted | {"absent": {"state": "done"}}) == 50
    assert await things.update_each({}) == 0
    assert await things.get("042") == {"_id": "042", "state": "done-42", "kept": 42}
    assert await things.get("043") == {"_id": "043", "state": "intended", "kept": 43}
    assert await things.count() == 100


async def test_a_unique_index_refuses_a_second_and_names_its_field(things: Collection) -> None:
    await things.ensure_index([("uid", 1)], unique=True)
    await things.ensure_index([("uid", 1)], unique=True)
    await things.insert({"_id": "a", "uid": "u"})
    with pytest.raises(AlreadyExists):
        await things.insert({"_id": "b", "uid": "u"})
    with pytest.raises(AlreadyExists):
        await things.insert_new([{"_id": "c", "uid": "u", "only": 1}]) or await things.insert(
            {"_id": "c", "uid": "u"}
        )
    assert await things.count() == 1


async def test_a_unique_index_over_some_documents_leaves_the_others(things: Collection) -> None:
    await things.ensure_index([("branch", 1)], unique=True, only={"current": True})
    await things.insert({"_id": 1, "branch": "main", "current": True})
    await things.insert({"_id": 2, "branch": "main", "current": False})
    await things.insert({"_id": 3, "branch": "main", "current": False})
    with pytest.raises(AlreadyExists):
        await things.insert({"_id": 4, "branch": "main", "current": True})


async def test_an_index_with_other_options_is_a_conflict(things: Collection) -> None:
    await things.ensure_index([("uid", 1)])
    with pytest.raises(Conflict):
        await things.ensure_index([("uid", 1)], unique=True)


FILTERS: list[tuple[dict[str, Any], set[int]]] = [
    ({}, {1, 2, 3, 4, 5}),
    ({"name": "alpha"}, {1}),
    ({"name": ne("alpha")}, {2, 3, 4, 5}),
    ({"size": gt(2)}, {3, 4}),
    ({"size": gte(2)}, {2, 3, 4}),
    ({"size": lt(2)}, {1}),
    ({"size": lte(2)}, {1, 2}),
    ({"size": not_lt(2)}, {2, 3, 4, 5}),
    ({"size": gte(2) & lt(4)}, {2, 3}),
    ({"name": one_of(["alpha", "beta", "none"])}, {1, 3}),
    ({"name": one_of([])}, set()),
    ({"name": starts_with("al")}, {1, 2}),
    ({"name": starts_with("al\U0010ffff")}, set()),
    ({"name": starts_with("")}, {1, 2, 3, 4}),
    ({"name": present(False)}, {5}),
    ({"tags": "x"}, {1, 3}),
    ({"labels.team": "one"}, {2}),
    ({"name": starts_with("al"), "size": 2}, {2}),
    ({"name": None}, {5}),
]


@pytest.mark.parametrize(("where", "expected"), FILTERS, ids=[str(number) for number in range(len(FILTERS))])
async def test_a_filter_finds(things: Collection, where: dict[str, Any], expected: set[int]) -> None:
    await things.insert_new(
        [
            {"_id": 1, "name": "alpha", "size": 1, "tags": ["x", "y"]},
            {"_id": 2, "name": "alto", "size": 2, "labels": {"team": "one"}},
            {"_id": 3, "name": "beta", "size": 3, "tags": ["x"]},
            {"_id": 4, "name": "\U0001f680", "size": 4},
            {"_id": 5, "size": "text"},
        ]
    )
    assert {document["_id"] for document in await things.find(where)} == expected
    assert await things.count(where) == len(expected)


@pytest.mark.parametrize(
    "value",
    [{"$ne": None}, {"$gt": ""}, {"$where": "sleep(1)"}, {"a": 1}, ["x"], [{"$ne": 1}], object()],
    ids=lambda value: "an object" if type(value) is object else repr(value),
)
async def test_an_operator_as_a_value_is_refused_everywhere(things: Collection, value: Any) -> None:
    await things.insert({"_id": "a", "token": "secret", "revision": 1})
    for attempt in (
        lambda: things.find({"token": value}),
        lambda: things.find_one({"token": value}),
        lambda: things.count({"token": value}),
        lambda: things.get(value),
        lambda: things.delete(value),
        lambda: things.delete("a", expect={"token": value}),
        lambda: things.delete_many({"token": value}),
        lambda: things.update(value, {"n": 1}),
        lambda: things.update("a", {"n": 1}, expect={"token": value}),
        lambda: things.replace({"_id": "a"}, expect={"token": value}),
        lambda: things.put({"_id": value}),
        lambda: things.insert({"_id": value}),
        lambda: things.find({"token": one_of([value])}),
        lambda: things.find({}, after=[value]),
    ):
        with pytest.raises(BadRequest):
            await attempt()
    assert await things.get("a") == {"_id": "a", "token": "secret", "revision": 1}


@pytest.mark.parametrize("field", ["$where", "$or", "a.$b", "", ".", "a..b", "a\0b", "a b"])
async def test_an_operator_as_a_field_is_refused(things: Collection, field: str) -> None:
    for attempt in (
        lambda: things.find({field: "x"}),
        lambda: things.find({}, sort=[(field, 1)]),
        lambda: things.find({}, fields=[field]),
        lambda: things.update("a", unset=[field]),
        lambda: things.update("a", increments={field: 1}),
    ):
        with pytest.raises(BadRequest):
            await attempt()


@pytest.mark.parametrize("document", [{"$set": 1}, {"a": {"$inc": 1}}, {"a": [{"$x": 1}]}, {"a\0": 1}])
async def test_a_document_with_an_operator_is_refused(things: Collection, document: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await things.insert({"_id": "a", **document})
    with pytest.raises(Invalid):
        await things.update("a", document)


async def test_pages_hold_every_row_once_also_with_ties_and_missing_fields(things: Collection) -> None:
    names = ["b", "a", None, "c", "b", "a", None, "b", "é", "\U0001f680"]
    await things.insert_new(
        [
            {"_id": n, "rank": n % 3, **({} if name is None else {"name": name})}
            for n, name in enumerate(names * 3)
        ]
    )
    for sort in (
        [("name", 1)],
        [("name", -1)],
        [("rank", -1), ("name", 1)],
        [("rank", 1), ("name", -1), ("_id", 1)],
    ):
        whole = await things.find(sort=sort, limit=1000)
        rows: list[dict[str, Any]] = []
        after: list[Any] | None = None
        while page := await things.find(sort=sort, limit=4, after=after):
            rows += page
            after = position(page[-1], sort)
        assert rows == whole
        assert len(rows) == 30


async def test_a_page_starts_behind_a_row_that_is_gone(things: Collection) -> None:
    await things.insert_new([{"_id": n} for n in range(6)])
    first = await things.find(limit=3)
    await things.delete(2)
    assert [row["_id"] for row in await things.find(limit=3, after=position(first[-1]))] == [3, 4, 5]


async def test_a_scan_gives_everything_that_matches(things: Collection) -> None:
    await things.insert_new([{"_id": n, "even": n % 2 == 0, "big": "x" * 100} for n in range(50)])
    found = [row async for row in things.scan({"even": True}, page=7, fields=["even"])]
    assert [row["_id"] for row in found] == list(range(0, 50, 2))
    assert set(found[0]) == {"_id", "even"}


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_a_limit_out_of_bounds_is_refused(things: Collection, limit: int) -> None:
    with pytest.raises(BadRequest, match="between 1 and 10000"):
        await things.find(limit=limit)


async def test_a_position_of_another_order_is_refused(things: Collection) -> None:
    with pytest.raises(BadRequest, match="position"):
        await things.find(sort=[("name", 1)], after=["x"])


async def test_an_update_changes_only_what_it_names(things: Collection) -> None:
    await things.insert({"_id": "a", "name": "x", "count": 1, "old": True, "labels": {"a": 1}})
    changed = await things.update("a", {"name": "y", "labels.b": 2}, increments={"count": 5}, unset=["old"])
    assert changed == {"_id": "a", "name": "y", "count": 6, "labels": {"a": 1, "b": 2}}
    assert await things.get("a") == changed


async def test_an_update_happens_only_in_the_expected_state(things: Collection) -> None:
    await things.insert({"_id": "a", "state": "open"})
    assert (await things.update("a", {"state": "closed"}, expect={"state": "open"}))["state"] == "closed"
    with pytest.raises(Conflict):
        await things.update("a", {"state": "lost"}, expect={"state": "open"})
    with pytest.raises(NotFound):
        await things.update("b", {"state": "closed"}, expect={"state": "open"})
    assert (await things.get("a"))["state"] == "closed"


async def test_of_many_that_advance_one_revision_exactly_one_succeeds(things: Collection) -> None:
    await things.insert({"_id": "a", "revision": 1, "by": None})
    read = await things.get("a")
    done = await asyncio.gather(
        *(things.advance({**read, "by": n}) for n in range(12)), return_exceptions=True
    )
    winners = [one for one in done if isinstance(one, dict)]
    assert len(winners) == 1
    assert sum(isinstance(one, Conflict) for one in done) == 11
    assert await things.get("a") == winners[0]
    assert winners[0]["revision"] == 2


async def test_a_replacement_expects_a_state_and_a_document(things: Collection) -> None:
    await things.insert({"_id": "a", "n": 1, "other": True})
    await things.replace({"_id": "a", "n": 2}, expect={"n": 1})
    assert await things.get("a") == {"_id": "a", "n": 2}
    with pytest.raises(Conflict):
        await things.replace({"_id": "a", "n": 3}, expect={"n": 1})
    with pytest.raises(NotFound):
        await things.replace({"_id": "b", "n": 3}, expect={"n": 1})


async def test_the_last_put_wins(things: Collection) -> None:
    await things.put({"_id": "a", "n": 1, "m": 1})
    await things.put({"_id": "a", "n": 2})
    assert await things.get("a") == {"_id": "a", "n": 2}


async def test_a_deletion_says_whether_it_was_there_and_can_expect_a_state(things: Collection) -> None:
    await things.insert({"_id": "a", "state": "open"})
    with pytest.raises(Conflict):
        await things.delete("a", expect={"state": "closed"})
    assert await things.delete("a", expect={"state": "open"}) is True
    assert await things.delete("a") is False
    assert await things.delete("a", expect={"state": "open"}) is False


async def test_many_are_changed_and_removed_by_a_filter_that_is_not_empty(things: Collection) -> None:
    await things.insert_new([{"_id": n, "old": n < 3} for n in range(5)])
    assert await things.update_many({"old": True}, {"mark": 1}) == 3
    assert await things.delete_many({"mark": 1}) == 3
    assert await things.count() == 2
    with pytest.raises(ValueError, match="empty filter"):
        await things.delete_many({})


async def test_counting_stops_at_its_limit(things: Collection) -> None:
    await things.insert_new([{"_id": n} for n in range(20)])
    assert await things.count(limit=7) == 7


async def test_what_mongodb_cannot_hold_is_refused(things: Collection) -> None:
    with pytest.raises(Invalid):
        await things.insert({"_id": 1, "number": 2**63})
    with pytest.raises(TooLarge):
        await things.insert({"_id": 1, "raw": bytes(17 * 1024 * 1024)})
    with pytest.raises(Invalid):
        await things.insert({"name": "without an _id"})
