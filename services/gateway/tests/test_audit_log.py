"""The log as it lies in MongoDB and the blob store: written in batches, verified, tampered with, pruned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.crypto import Keyring
from kubelore.common.crypto.signing import Signer
from kubelore.common.errors import Unavailable
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.gateway.audit.entries import MANY, Entry, Refusals, cluster_of, outcome_of
from kubelore.gateway.audit.heads import HeadStore
from kubelore.gateway.audit.keeper import DAY_S, Keeper, Retention
from kubelore.gateway.audit.log import AuditLog
from kubelore.gateway.audit.verification import Auditor, ChainReport
from kubelore.gateway.repository import AuditRepository
from kubelore.lab.waiting import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Shelf:
    """A database and a blob store, writers on them, and hands that reach past the log."""

    def __init__(self, settings: CommonSettings, repository: AuditRepository, tamper: Any) -> None:
        self.settings = settings
        self.repository = repository
        signer = Keyring.load(settings.keyring_dir / "gateway.json").signer()
        self.blobs = BlobStore.open(settings.blob_url)
        self.heads = HeadStore(self.blobs, signer)
        self.clock = Clock()
        self.documents = tamper.database["audit"]
        self.folder = Path(settings.blob_url.removeprefix("file://"))
        self._running: list[asyncio.Task[None]] = []

    async def open(self, **options: Any) -> AuditLog:
        log = AuditLog(self.repository, self.heads, writer="gateway-1", clock=self.clock, **options)
        self._running.append(asyncio.create_task(log.run()))
        async with asyncio.timeout(10):
            await log.opened.wait()
        return log

    async def kill(self) -> None:
        """What a kill -9 does to the writers: nothing is written or signed any more."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()

    async def written(self, count: int = 10, *, signed: bool = True, **options: Any) -> AuditLog:
        """A chain with so many entries, one a second."""
        log = await self.open(**options)
        for number in range(count):
            await log.intend([self.entry(f"r{number}")])
            self.clock.now += 1
            if signed and number in (count // 2, count - 1):
                await log.sign()
        return log

    def entry(self, resource: str = "prod", **more: Any) -> Entry:
        return Entry(
            at=self.clock(), **{"action": "things.make", "outcome": "unknown", "resource": resource, **more}
        )

    async def verify(self) -> list[ChainReport]:
        return [report async for report in Auditor(self.repository, self.heads).reports()]

    async def fault(self) -> tuple[str, int]:
        (report,) = await self.verify()
        assert report.fault is not None
        assert not report.ok
        return report.fault.kind, report.fault.number

    def keeper(self, days: float = 0, entries: int = 0) -> Keeper:
        return Keeper(
            self.repository, self.heads, Retention(days, entries), replica="keeper", clock=self.clock
        )

    def id(self, log: AuditLog, number: int) -> str:
        return f"{log.chain}/{number:012d}"

    def head(self, log: AuditLog, serial: int) -> Path:
        return self.folder / "audit" / "heads" / log.chain / f"{serial:012d}"


@pytest_asyncio.fixture(loop_scope="session")
async def shelf(settings: CommonSettings, mongo_of) -> AsyncIterator[Shelf]:
    async with await open_database(settings) as database:
        repository = AuditRepository(database)
        await repository.prepare()
        made = Shelf(settings, repository, mongo_of(settings))
        yield made
        await made.kill()


async def test_a_log_that_nobody_touched_verifies_while_it_grows_and_when_it_is_closed(shelf: Shelf) -> None:
    log = await shelf.written(7)
    (report,) = await shelf.verify()
    assert (report.ok, report.first, report.last, report.signed, report.closed) == (True, 1, 7, 7, False)
    assert (report.writer, report.opened_at) == ("gateway-1", 1_800_000_000.0)
    await log.intend([shelf.entry()])
    (report,) = await shelf.verify()
    assert (report.ok, report.last, report.signed) == (True, 8, 7)
    await shelf.kill()
    await log.close()
    (report,) = await shelf.verify()
    assert (report.ok, report.last, report.signed, report.closed) == (True, 8, 8, True)


async def test_many_requests_share_a_write_and_keep_their_order(shelf: Shelf) -> None:
    log = await shelf.open()
    ids = await asyncio.gather(
        *(log.intend([shelf.entry(f"r{n}"), shelf.entry(f"s{n}")]) for n in range(200))
    )
    assert [id_ for pair in ids for id_ in pair] == [shelf.id(log, n) for n in range(1, 401)]
    found = [written.content["resource"] async for written in shelf.repository.along(log.chain)]
    assert found == [name for n in range(200) for name in (f"r{n}", f"s{n}")]
    (report,) = await shelf.verify()
    assert report.ok


async def test_a_head_is_signed_by_itself_after_a_while_and_after_a_thousand_entries(shelf: Shelf) -> None:
    log = await shelf.written(3, signed=False, sign_every_s=0.2)

    def signed(up_to: int):
        async def so() -> bool:
            newest = await shelf.heads.newest(log.chain)
            return newest is not None and newest.number >= up_to

        return so

    await wait_for(signed(3), "a head", 10, every=0.05)
    other = await shelf.open(sign_every_s=3600)
    log = other
    await asyncio.gather(*(other.intend([shelf.entry()] * 100) for _ in range(10)))
    await wait_for(signed(1000), "a head of a thousand entries", 10, every=0.05)


async def test_a_changed_document_is_found(shelf: Shelf) -> None:
    log = await shelf.written()
    for change in (
        {"$set": {"actor": "somebody else"}},
        {"$set": {"outcome": "ok"}},
        {"$set": {"at": 1.0}},
        {"$set": {"more": {"deep": [1, 2]}}},
        {"$set": {"more": b"bytes"}},
        {"$unset": {"resource": ""}},
        {"$set": {"hash": b"x" * 32}},
        {"$set": {"hash": "text"}},
    ):
        before = shelf.documents.find_one({"_id": shelf.id(log, 4)})
        shelf.documents.update_one({"_id": shelf.id(log, 4)}, change)
        assert await shelf.fault() == ("changed", 4), change
        shelf.documents.replace_one({"_id": shelf.id(log, 4)}, before)
    assert all(report.ok for report in await shelf.verify())


async def test_deleted_documents_are_found(shelf: Shelf) -> None:
    log = await shelf.written()
    shelf.documents.delete_one({"_id": shelf.id(log, 4)})
    assert await shelf.fault() == ("missing", 4)
    shelf.documents.delete_many({"_id": {"$lt": shelf.id(log, 4)}})
    assert await shelf.fault() == ("missing", 1)


async def test_a_cut_tail_is_found(shelf: Shelf) -> None:
    log = await shelf.written()
    shelf.documents.delete_many({"_id": {"$gt": shelf.id(log, 6)}})
    assert await shelf.fault() == ("cut", 7)


async def test_a_chain_that_is_gone_is_found_even_when_nothing_was_ever_signed_of_it_but_its_beginning(
    shelf: Shelf,
) -> None:
    gone = await shelf.written(3)
    await shelf.written(3)
    shelf.documents.delete_many({"_id": {"$regex": f"^{gone.chain}/"}})
    reports = {report.chain: report for report in await shelf.verify()}
    assert [report.ok for report in reports.values()].count(False) == 1
    assert reports[gone.chain].fault is not None
    assert reports[gone.chain].fault.kind == "cut"


async def test_entries_of_a_chain_that_nobody_opened_are_found(shelf: Shelf) -> None:
    log = await shelf.written(2)
    (document,) = shelf.documents.find({"_id": shelf.id(log, 1)})
    shelf.documents.insert_one(document | {"_id": "0-forged/000000000001"})
    reports = {report.chain: report for report in await shelf.verify()}
    assert reports["0-forged"].fault is not None
    assert reports["0-forged"].fault.kind == "unannounced"
    assert reports[log.chain].ok


async def test_replaced_and_removed_heads_are_found(shelf: Shelf) -> None:
    log = await shelf.written()
    first, middle, last = (shelf.head(log, serial) for serial in range(3))
    whole = middle.read_bytes()
    for forged in (
        first.read_bytes(),
        last.read_bytes(),
        whole.replace(b'"number":6', b'"number":5'),
        b"",
        b"\xff",
    ):
        middle.write_bytes(forged)
        assert (await shelf.fault())[0] == "heads-missing"
    middle.unlink()
    assert (await shelf.fault())[0] == "heads-missing"
    middle.write_bytes(whole)
    last.write_bytes(whole)
    assert (await shelf.fault())[0] == "heads-missing"
    last.unlink()
    first.unlink()
    assert (await shelf.fault())[0] == "unannounced"


async def test_a_head_of_another_key_proves_nothing(shelf: Shelf) -> None:
    log = await shelf.written()
    forger = HeadStore(shelf.blobs, Signer(bytes(32)))
    vouchers = await shelf.heads.vouchers(log.chain)
    shelf.head(log, 2).unlink()
    assert await forger.put(vouchers.heads[2])
    assert (await shelf.fault())[0] == "heads-missing"


async def test_an_act_hidden_from_lists_without_its_end_is_found(shelf: Shelf) -> None:
    log = await shelf.open()
    (first,) = await log.intend([shelf.entry("a")])
    (second,) = await log.intend([shelf.entry("b")])
    await log.conclude([shelf.entry("a", outcome="ok", status=200, closes=first)])
    await log.conclude([shelf.entry("c", outcome="ok", status=200)])
    await shelf.repository.hide([first])
    assert [report.ok for report in await shelf.verify()] == [True]
    shelf.documents.update_one({"_id": second}, {"$set": {"shown": False}})
    assert await shelf.fault() == ("hidden", 2)
    shelf.documents.update_one({"_id": second}, {"$set": {"shown": True}})
    shelf.documents.update_one({"_id": shelf.id(log, 4)}, {"$set": {"shown": False}})
    assert await shelf.fault() == ("hidden", 4)


async def test_the_tail_of_a_writer_that_was_killed_is_signed_by_another(shelf: Shelf) -> None:
    log = await shelf.written(5, signed=False)
    await shelf.kill()
    await shelf.keeper().keep()
    assert [report.signed for report in await shelf.verify()] == [0]
    shelf.clock.now += 700
    await shelf.keeper().keep()
    assert [report.signed for report in await shelf.verify()] == [5]
    shelf.documents.delete_one({"_id": shelf.id(log, 5)})
    assert await shelf.fault() == ("cut", 5)


async def test_a_writer_that_another_signed_for_goes_on(shelf: Shelf) -> None:
    log = await shelf.written(5, signed=False)
    shelf.clock.now += 700
    await shelf.keeper().keep()
    await log.intend([shelf.entry()])
    await log.sign()
    (report,) = await shelf.verify()
    assert (report.ok, report.signed) == (True, 6)


async def test_what_is_older_than_the_settings_say_is_pruned_and_the_rest_verifies(shelf: Shelf) -> None:
    log = await shelf.written(10)
    shelf.clock.now = 1_800_000_004.0 + DAY_S
    await shelf.keeper(days=1).keep()
    assert shelf.documents.count_documents({}) == 6
    (report,) = await shelf.verify()
    assert (report.ok, report.first, report.last, report.signed) == (True, 5, 10, 10)
    await log.intend([shelf.entry()])
    await log.sign()
    shelf.clock.now += DAY_S
    await shelf.keeper(days=0.99).keep()
    (report,) = await shelf.verify()
    assert (report.ok, report.first, report.last) == (True, 12, 11)
    assert shelf.documents.count_documents({}) == 0
    assert [path.name for path in shelf.head(log, 0).parent.iterdir()] == []


async def test_the_newest_entries_are_kept_whatever_chain_they_are_in(shelf: Shelf) -> None:
    for _ in range(3):
        await shelf.written(5)
    await shelf.keeper(entries=7).keep()
    assert shelf.documents.count_documents({}) == 7
    assert [(report.ok, report.entries) for report in await shelf.verify()] == [
        (True, 0),
        (True, 2),
        (True, 5),
    ]


async def test_pruning_without_a_checkpoint_is_found_and_a_forged_one_does_not_help(shelf: Shelf) -> None:
    log = await shelf.written()
    shelf.clock.now = 1_800_000_004.0 + DAY_S
    await shelf.keeper(days=1).keep()
    (checkpoint,) = (shelf.folder / "audit" / "checkpoints" / log.chain).iterdir()
    shelf.documents.delete_one({"_id": shelf.id(log, 5)})
    assert await shelf.fault() == ("missing", 5)
    checkpoint.rename(checkpoint.with_name(f"{5:012d}"))
    assert not (await shelf.verify())[0].ok
    checkpoint.with_name(f"{5:012d}").unlink()
    assert not (await shelf.verify())[0].ok


async def test_a_chain_that_does_not_verify_is_not_pruned(shelf: Shelf) -> None:
    log = await shelf.written()
    shelf.documents.update_one({"_id": shelf.id(log, 2)}, {"$set": {"actor": "mallory"}})
    shelf.clock.now += 10 * DAY_S
    await shelf.keeper(days=1).keep()
    assert shelf.documents.count_documents({}) == 10
    assert await shelf.fault() == ("changed", 2)


async def test_a_round_of_pruning_that_was_killed_is_finished_by_the_next(shelf: Shelf) -> None:
    log = await shelf.written()
    saved = list(shelf.documents.find({}))
    shelf.clock.now = 1_800_000_004.0 + DAY_S
    await shelf.keeper(days=1).keep()
    shelf.documents.insert_many(saved[2:4])
    assert [report.ok for report in await shelf.verify()] == [True]
    await shelf.keeper(days=1).keep()
    assert shelf.documents.count_documents({}) == 6
    assert log.chain


async def test_what_could_not_be_written_is_refused_and_told_later(shelf: Shelf, mongo_of) -> None:
    log = await shelf.open()
    with mongo_of(shelf.settings).refusing_writes("audit"):
        refused = 0
        for number in range(5):
            with suppress(Unavailable):
                await log.intend([shelf.entry(f"r{number}")])
                continue
            refused += 1
        assert refused == 5

    async def told() -> bool:
        return shelf.documents.count_documents({"status": 503}) == 5

    await wait_for(told, "the refusals to be written", 15, every=0.05)
    (report,) = await shelf.verify()
    assert report.ok
    ends = {one["closes"] for one in shelf.documents.find({"closes": {"$exists": True}})}
    assert {one["_id"] for one in shelf.documents.find({"status": {"$exists": False}})} == ends


async def test_a_log_that_cannot_be_announced_takes_no_entry(shelf: Shelf) -> None:
    shelf.folder.chmod(0o700)
    (shelf.folder / "audit").write_bytes(b"in the way")
    log = AuditLog(shelf.repository, shelf.heads, writer="x", clock=shelf.clock)
    running = asyncio.create_task(log.run())
    try:
        with suppress(Unavailable):
            await log.intend([shelf.entry()])
            raise AssertionError("written to a chain that was not announced")
        (shelf.folder / "audit").unlink()
        async with asyncio.timeout(10):
            await log.opened.wait()
        await log.intend([shelf.entry()])
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def refusal(at: float, address: str = "192.0.2.1", reason: str = "Unauthorized") -> Entry:
    return Entry(at=at, action="authenticate", outcome="refused", address=address, status=401, reason=reason)


@given(st.lists(st.tuples(st.integers(1, 300), st.sampled_from("abc"), st.sampled_from("xy")), max_size=60))
def test_no_refusal_is_lost_in_counting_and_none_of_a_kind_stands_twice_in_a_minute(
    made: list[tuple[int, str, str]],
) -> None:
    refusals, written = Refusals(), list[Entry]()
    for at, address, reason in sorted(made):
        written += refusals.due(at)
        if (entry := refusals.add(refusal(float(at), address, reason))) is not None:
            written.append(entry)
    written += refusals.due(float("inf"))
    assert sum(entry.count for entry in written) == len(made)
    firsts = [entry for entry in written if not entry.since]
    for one in firsts:
        alike = [two.at for two in firsts if (two.address, two.reason) == (one.address, one.reason)]
        assert len([at for at in alike if one.at <= at < one.at + 60]) == 1


def test_too_many_who_are_refused_become_one() -> None:
    refusals = Refusals(most=10)
    written = [
        entry for n in range(1000) if (entry := refusals.add(refusal(1.0, f"address-{n}"))) is not None
    ]
    assert len(written) == 11
    assert written[-1].address == MANY
    (rest,) = refusals.due(float("inf"))
    assert rest.count == 989


def test_counted_refusals_name_their_resource_only_when_it_is_the_same_for_all() -> None:
    def of(at: float, *resources: str) -> Entry:
        refusals = Refusals()
        for resource in resources:
            refusals.add(msgspec.structs.replace(refusal(at), resource=resource, cluster=resource))
        (counted,) = refusals.due(float("inf"))
        return counted

    alike, various = of(1.0, "prod", "prod", "prod"), of(1.0, "prod", "test", "prod")
    assert (alike.resource, alike.cluster, alike.count) == ("prod", "prod", 2)
    assert (various.resource, various.cluster, various.count) == ("", "", 2)


def test_outcomes_and_clusters_are_told_from_what_is_known() -> None:
    assert [outcome_of(status) for status in (200, 204, 401, 403, 429, 404, 409, 500, 503, 504)] == [
        *("ok", "ok"),
        *("refused", "refused", "refused"),
        *("failed", "failed", "failed", "failed"),
        "unknown",
    ]
    assert [cluster_of(name) for name in ("prod", "prod:pods:shop:web", "tokens/ab", "", "No Cluster")] == [
        *("prod", "prod"),
        *("", "", ""),
    ]
