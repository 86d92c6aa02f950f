"""The journal of operations in containers, over a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from kubelore.common.authz import Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.container_history import ContainerOperationRef, ListContainerOperations
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, NotFound, Unavailable
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.container_ops.operation_repository import OperationRepository
from kubelore.container_ops.operations import Journal
from kubelore.container_ops.past_operations import PastOperations

TARGET = ContainerId("prod", "shop", "web-1", "web")
NOW = -1.0
"""Silence enough for whatever was said by now, be it in this very millisecond."""


def person(name: str, *namespaces: str, rights: bool = True) -> Caller:
    grant = Grant(role="operator", rights=("exec",) if rights else (), namespaces=namespaces or ("shop",))
    return Caller(subject=name, grants=(grant,))


ANNA, BERT = person("anna"), person("bert", "other")


@dataclass
class Books:
    repository: OperationRepository
    journal: Journal
    past: PastOperations

    async def listed(self, caller: Caller, **asked: object) -> list[str]:
        with acting_as(caller):
            page = await self.past.list(ListContainerOperations(**asked))  # type: ignore[arg-type]
        return [one.id for one in page.items]


@pytest_asyncio.fixture(loop_scope="session")
async def books(settings: CommonSettings, tmp_path: Path) -> AsyncIterator[Books]:
    async with await open_database(settings) as database:
        repository = OperationRepository(database)
        await repository.prepare()
        keyring = Keyring.create(tmp_path / "logs.json", "logs")
        journal = Journal(repository, keyring, "replica-1", timedelta(days=1))
        yield Books(repository, journal, PastOperations(repository, journal))


async def test_an_operation_is_on_record_before_its_effect_and_again_after_it(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["ls", "-l"], reason="looking") as entry:
            during = await books.past.get(ContainerOperationRef(entry.operation_id))
            entry.result["exit_code"] = 0
        after = await books.past.get(ContainerOperationRef(entry.operation_id))
    assert (during.status, during.command, during.reason) == ("running", ["ls", "-l"], "looking")
    assert (after.status, after.result, after.executed_by) == ("completed", {"exit_code": 0}, "anna")
    assert after.finished_at is not None


async def test_command_and_result_are_not_readable_at_rest(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["mysql", "-phunter2"]) as entry:
            entry.result["stdout"] = "hunter3"
    row = await books.repository.get(entry.operation_id)
    assert b"hunter" not in row.sealed + row.outcome


async def test_an_error_makes_it_failed_and_goes_on(books: Books) -> None:
    with acting_as(ANNA):
        with pytest.raises(Unavailable):
            async with books.journal.recording("file", TARGET, ["files:delete", "/x"]) as entry:
                raise Unavailable("the node is gone")
        kept = await books.past.get(ContainerOperationRef(entry.operation_id))
    assert (kept.status, kept.result["error"]) == ("failed", "the node is gone")


async def test_what_is_cancelled_is_on_record_as_cancelled(books: Books) -> None:
    begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with books.journal.recording("exec", TARGET, ["sleep", "1000"]) as entry:
            begun.set_result(entry.operation_id)
            await asyncio.Event().wait()

    with acting_as(ANNA):
        task = asyncio.create_task(work())
        id_ = await begun
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await books.past.get(ContainerOperationRef(id_))).status == "cancelled"


async def test_what_a_dead_replica_was_doing_becomes_unknown(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["true"]) as entry:
            await books.repository.give_up(NOW)
            assert (await books.past.get(ContainerOperationRef(entry.operation_id))).status == "unknown"
        assert (await books.past.get(ContainerOperationRef(entry.operation_id))).status == "completed"


async def test_what_was_given_up_runs_again_when_its_replica_says_that_it_lives(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["true"]) as entry:
            await books.repository.give_up(NOW)
            await books.repository.still_running([entry.operation_id])
            shown = await books.past.get(ContainerOperationRef(entry.operation_id))
            assert (shown.status, shown.finished_at) == ("running", None)
        await books.repository.still_running([entry.operation_id])
        assert (await books.past.get(ContainerOperationRef(entry.operation_id))).status == "completed"


async def test_an_orphan_is_looked_after_by_one_and_only_once(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["true"]) as entry:
            assert entry.operation_id not in await orphans(books)
            await books.repository.give_up(NOW)
            (row,) = [one for one in await books.repository.orphaned(NOW, 20) if one.id == entry.operation_id]
            assert [await books.repository.claim(row) for _ in range(2)] == [True, False]
            await books.journal.end(row.id, "unknown", {"stopped": False})
            assert entry.operation_id not in await orphans(books)


async def test_orphans_of_a_cluster_that_does_not_answer_let_the_others_pass(books: Books) -> None:
    with acting_as(ANNA):
        async with (
            books.journal.recording("exec", TARGET, ["true"]) as tried,
            books.journal.recording("exec", TARGET, ["true"]) as other,
        ):
            await books.repository.give_up(NOW)
            for row in await books.repository.orphaned(NOW, 100):
                if row.id == tried.operation_id:
                    await books.repository.claim(row)
            ours = {tried.operation_id, other.operation_id}
            assert [one for one in await orphans(books) if one in ours] == [
                other.operation_id,
                tried.operation_id,
            ]


async def test_what_lives_after_all_is_an_orphan_again_when_its_replica_dies(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["true"]) as entry:
            await books.repository.give_up(NOW)
            await books.journal.end(entry.operation_id, "unknown", {"error": "its replica died"})
            await books.repository.still_running([entry.operation_id])
            assert (await books.past.get(ContainerOperationRef(entry.operation_id))).result == {}
            await books.repository.give_up(NOW)
            assert entry.operation_id in await orphans(books)


async def orphans(books: Books) -> list[str]:
    return [row.id for row in await books.repository.orphaned(NOW, 100)]


async def test_what_says_that_it_lives_is_not_given_up(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["true"]) as entry:
            await books.repository.still_running([entry.operation_id])
            await books.repository.give_up(60)
            assert (await books.past.get(ContainerOperationRef(entry.operation_id))).status == "running"


async def test_others_see_it_only_with_the_right_exec_in_its_namespace(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("exec", TARGET, ["true"]) as entry:
            pass
    assert entry.operation_id in await books.listed(person("carla", "sh*"))
    for stranger in (BERT, person("dora", "shop", rights=False)):
        assert entry.operation_id not in await books.listed(stranger)
        with acting_as(stranger), pytest.raises(NotFound):
            await books.past.get(ContainerOperationRef(entry.operation_id))


async def test_ones_own_are_shown_without_the_right(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("log", TARGET, []) as entry:
            pass
    assert entry.operation_id in await books.listed(person("anna", "shop", rights=False))


async def test_pages_hold_each_operation_once_newest_first(books: Books) -> None:
    with acting_as(ANNA):
        made: list[str] = []
        for number in range(5):
            async with books.journal.recording("exec", TARGET, [str(number)], session_id="paged") as entry:
                made.append(entry.operation_id)
        found: list[str] = []
        before = ""
        while True:
            asked = ListContainerOperations(session="paged", before=before, limit=2)
            page = await books.past.list(asked)
            found += [one.id for one in page.items]
            if not (before := page.next):
                break
    assert found == sorted(made, reverse=True)


async def test_conditions_and_text_narrow_the_list(books: Books) -> None:
    with acting_as(ANNA):
        async with books.journal.recording("file", TARGET, ["files:chmod", "/srv/Config"]) as entry:
            pass
    assert await books.listed(ANNA, kind="file", pod="web-1", text="srv/config") == [entry.operation_id]
    assert await books.listed(ANNA, kind="file", text="srv/nothing") == []
    assert await books.listed(ANNA, kind="file", until=1.0) == []


async def test_a_page_that_is_too_large_is_refused(books: Books) -> None:
    with pytest.raises(BadRequest):
        await books.listed(ANNA, limit=501)
