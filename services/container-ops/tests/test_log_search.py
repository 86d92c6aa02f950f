"""Searching what is stored: the same lines as a plain look at all of them finds, page by page, for who may see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.authz import Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.log_search import CountLogs, FoundLine, LogPlaces, SearchedLogs, SearchLogs
from kubelore.common.contracts.logs import LogFilter
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, Forbidden, NotFound
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.live_search import LiveSearch
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_places import Places
from kubelore.container_ops.log_search import LogSearch
from kubelore.container_ops.segment_filtering import SegmentFilters
from kubelore.container_ops.segment_merging import SegmentMerging
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import SegmentBatch, StreamGap, StreamKey, StreamLines
from kubelore.container_ops.stored_search import PAGE, StoredSearch

SECOND = 1_000_000_000
ANNA = Caller(subject="anna", grants=(Grant(role="viewer", clusters=("prod",), namespaces=("shop",)),))
BOSS = Caller(subject="boss", grants=(Grant(role="admin"),))


@dataclass
class Stored:
    store: SegmentStore
    search: LogSearch
    sequence: int = 0
    everything: list[tuple[int, str]] = field(default_factory=list)

    async def keep(self, *lines: tuple[int, str], pod: str = "web-1", **told: Any) -> None:
        """Keep lines of one pod as a batch of their own."""
        key = StreamKey(
            cluster=told.pop("cluster", "prod"),
            namespace=told.pop("namespace", "shop"),
            pod=pod,
            uid=f"uid-{pod}",
            container=told.pop("container", "web"),
            workload=told.pop("workload", "deployments.apps/web"),
            labels=told.pop("labels", (("app", "web"),)),
        )
        found = StreamLines(
            key, [LogLine(at * SECOND, text.encode()) for at, text in lines], told.pop("gaps", [])
        )
        self.sequence += 1
        await self.store.append(
            SegmentBatch(owner="o", sequence=self.sequence, policy="p", cluster=key.cluster, streams=[found])
        )
        self.everything += lines

    async def page(self, caller: Caller = BOSS, **asked: Any) -> SearchedLogs:
        places = LogPlaces(clusters=asked.pop("clusters", ("prod",)), **asked.pop("places", {}))
        request = SearchLogs(places=places, filter=LogFilter(**asked.pop("filter", {})), live=False, **asked)
        with acting_as(caller):
            return await self.search.search(request)

    async def all(self, caller: Caller = BOSS, **asked: Any) -> list[FoundLine]:
        """The lines of all pages."""
        found: list[FoundLine] = []
        after = None
        while True:
            page = await self.page(caller, after=after, **asked)
            found += page.items
            after = page.next
            if after is None:
                return found


def messages(found: list[FoundLine]) -> list[str]:
    return [one.message for one in found]


@pytest_asyncio.fixture(loop_scope="session")
async def stored(settings: CommonSettings, tmp_path: Path) -> AsyncIterator[Stored]:
    async with await open_database(settings) as database:
        blobs = BlobStore.open(f"file://{tmp_path}/blobs")
        store = SegmentStore(database, blobs, Keyring.create(tmp_path / "logs.json", "logs"))
        await store.prepare()
        yield Stored(store, LogSearch(store, LiveSearch(None, None, store)))  # type: ignore[arg-type]


async def test_a_line_of_a_pod_that_is_gone_is_found_by_its_name_workload_or_labels(stored: Stored) -> None:
    await stored.keep((1, "order 17 failed"), pod="web-1")
    await stored.keep(
        (2, "order 18 failed"), pod="job-9", workload="jobs.batch/job", labels=(("app", "job"),)
    )
    for places in ({"pod": "job-9"}, {"workload": "jobs.batch/job"}, {"labels": "app in (job)"}):
        assert messages(await stored.all(places=places, filter={"search": "failed"})) == ["order 18 failed"]


async def test_the_newest_comes_first_and_the_oldest_when_asked_for(stored: Stored) -> None:
    await stored.keep((1, "one"), (4, "four"))
    await stored.keep((2, "two"), (3, "three"), pod="web-2")
    assert messages(await stored.all()) == ["four", "three", "two", "one"]
    assert messages(await stored.all(direction="forward")) == ["one", "two", "three", "four"]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_search_finds_every_line_once_though_segments_are_merged_meanwhile(
    stored: Stored, newest_first: bool
) -> None:
    for batch in range(PAGE + 20):
        await stored.keep((batch, f"{batch}."))
    search = StoredSearch(
        stored.store,
        SegmentFilters(stored.store),
        Places(LogPlaces(clusters=("prod",)), BOSS),
        LineFilter(LogFilter()),
        newest_first=newest_first,
    )
    found: list[bytes] = []
    async for texts, _ in search.windows(lambda _, __, block, ___: block.text):
        if not found:
            assert await SegmentMerging(stored.store).merge_round() > PAGE
        found += b" ".join(texts).split()
    assert sorted(found) == sorted(f"{batch}.".encode() for batch in range(PAGE + 20))


@pytest.mark.parametrize("direction", ["forward", "backward"])
async def test_pages_hold_every_line_once(stored: Stored, direction: str) -> None:
    for batch in range(12):
        await stored.keep(
            *((batch * 5 + place // 3, f"{batch}.{place}") for place in range(20)), pod=f"web-{batch % 4}"
        )
    found = messages(await stored.all(direction=direction, limit=7))
    assert sorted(found) == sorted(text for _, text in stored.everything)
    whole = messages(await stored.all(direction=direction, limit=1000))
    assert found == whole


async def test_a_page_that_time_ran_out_on_goes_on_where_it_ended(stored: Stored) -> None:
    for batch in range(30):
        await stored.keep((batch, f"line {batch}"), (batch + 100, f"later {batch}"))
    page = await stored.page(filter={"search": "line"}, seconds=1e-6)
    assert page.next is not None
    found = messages(await stored.all(filter={"search": "line"}, seconds=1e-6))
    assert found == [f"line {batch}" for batch in reversed(range(30))]


async def test_only_lines_between_two_times_are_found(stored: Stored) -> None:
    await stored.keep(*((at, f"at {at}") for at in range(10)))
    found = await stored.all(filter={"since": 3 * SECOND, "until": 6 * SECOND}, direction="forward")
    assert messages(found) == ["at 3", "at 4", "at 5"]


async def test_the_work_of_a_search_is_the_blocks_that_it_read_whole(stored: Stored) -> None:
    await stored.keep(*((at, f"at {at}") for at in range(10)))
    await stored.keep((50, "much later"))
    work = (await stored.page(filter={"since": 3 * SECOND, "until": 4 * SECOND})).work
    assert (work.segments, work.blocks) == (1, 1)
    assert work.raw_bytes == len("\n".join(f"at {at}" for at in range(10)))


async def test_a_block_that_expired_before_it_was_read_is_no_work(stored: Stored, tmp_path: Path) -> None:
    await stored.keep((1, "gone"))
    for blob in (tmp_path / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    work = (await stored.page()).work
    assert (work.blocks, work.raw_bytes) == (0, 0)


async def test_a_caller_finds_nothing_in_namespaces_that_are_not_theirs(stored: Stored) -> None:
    await stored.keep((1, "mine"))
    await stored.keep((2, "theirs"), namespace="bank", pod="vault-1")
    assert messages(await stored.all(ANNA)) == ["mine"]
    with pytest.raises(Forbidden):
        await stored.page(ANNA, places={"namespaces": ("bank",)})
    with pytest.raises(NotFound):
        await stored.page(ANNA, clusters=("other",))


async def test_gaps_among_the_lines_are_told(stored: Stored) -> None:
    await stored.keep((1, "before"), (9, "after"), gaps=[StreamGap(2 * SECOND, 8 * SECOND, "rotated away")])
    (gap,) = (await stored.page()).gaps
    assert (gap.pod, gap.since, gap.reason) == ("web-1", "1970-01-01T00:00:02.000000000Z", "rotated away")


async def test_what_is_no_text_comes_as_base64(stored: Stored) -> None:
    key = StreamKey(cluster="prod", namespace="shop", pod="b", uid="u", container="c")
    lines = StreamLines(key, [LogLine(1, b"\xff\xfe")])
    await stored.store.append(
        SegmentBatch(owner="o", sequence=1, policy="p", cluster="prod", streams=[lines])
    )
    (line,) = await stored.all()
    assert (line.message, line.encoding) == ("//4=", "base64")


async def test_matching_lines_are_counted_over_time(stored: Stored) -> None:
    await stored.keep(*((at, "error" if at % 2 else "fine") for at in range(10)))
    with acting_as(BOSS):
        counted = await stored.search.count(
            CountLogs(
                places=LogPlaces(clusters=("prod",)),
                filter=LogFilter(search="error", since=0, until=10 * SECOND),
                buckets=5,
                live=False,
            )
        )
    assert counted.total == 5
    assert len(counted.items) == 5


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 0},
        {"limit": 100_000},
        {"seconds": 0},
        {"filter": {"regex": "("}},
        {"clusters": ("c",) * 201},
    ],
)
async def test_what_cannot_be_searched_is_refused(stored: Stored, asked: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await stored.page(**asked)
