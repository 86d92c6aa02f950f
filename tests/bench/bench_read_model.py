"""What the read model alone costs: memory and time, over synthetic pods, in one process.

    python tests/bench/bench_read_model.py [--pods 100000] [--clusters 20]

Times are those of the calls themselves; bus, gateway and HTTP come on top. CPU
time stands beside, since it hardly changes when the machine is busy elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

from synthetic_pods import pods

from kubelore.common.contracts.resources import ClusterState, ListDigests, Page, Query
from kubelore.common.kube.resource_type import PODS
from kubelore.resource_ops.comparing import digests
from kubelore.resource_ops.query import fetch, get, query, select
from kubelore.resource_ops.read_model import ReadModel
from kubelore.resource_ops.summary import count

Line = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=20)
    options = parser.parse_args()
    models = ReadModel()
    lines = _fill(models, options.pods // options.clusters, options.clusters)
    lines += _pages(models) + _large(models) + _comparing(models) + _updates(models)
    print("| work | measured |\n|---|---|")
    for work, measured in lines:
        print(f"| {work} | {measured} |")


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _fill(models: ReadModel, each: int, clusters: int) -> list[Line]:
    list(pods(1000, seed=-1))
    gc.collect()
    before, raw_bytes, seconds = _rss(), 0, 0.0
    for number in range(clusters):
        listed = list(pods(each, seed=number))
        raw_bytes += sum(map(len, listed))
        started = time.thread_time()
        models.open(f"cluster-{number:02d}").replace(PODS, listed, "200000000")
        seconds += time.thread_time() - started
        del listed
    gc.collect()
    gc.freeze()  # as the service does once its clusters are synced
    total = each * clusters
    packed = sum(model.held_bytes() for model in models.clusters.values())
    started = time.perf_counter()
    query(models, Query(clusters=list(models.clusters), types=["pods"], limit=1), _live)
    first = time.perf_counter() - started
    return [
        (
            f"{total:,} pods in {clusters} clusters, raw JSON",
            f"{raw_bytes / 1e6:.0f} MB, {raw_bytes // total} bytes each",
        ),
        (
            "memory growth with all indexes (of it packed objects)",
            f"{(_rss() - before) / 1e6:.0f} MB ({packed / 1e6:.0f} MB)",
        ),
        ("first list taken in, of CPU time", f"{total / seconds:,.0f} pods/s"),
        ("first query of an order (made once)", f"{first * 1e3:.0f} ms"),
    ]


def _live(cluster: str, types: frozenset[str]) -> ClusterState:
    return ClusterState(name=cluster, status="live")


def _timed(work: Callable[[], object], times: int) -> str:
    taken: list[float] = []
    cpu: list[float] = []
    for _ in range(times):
        started, used = time.perf_counter(), time.thread_time()
        work()
        cpu.append((time.thread_time() - used) * 1e3)
        taken.append((time.perf_counter() - started) * 1e3)
    last = min(times - 1, times * 99 // 100)
    return (
        f"{sorted(taken)[times // 2]:.2f} / {sorted(taken)[last]:.2f} ms (CPU {sorted(cpu)[times // 2]:.2f})"
    )


def _pages(models: ReadModel) -> list[Line]:
    asked = {
        "page of 100 whole objects": Query(clusters=[], limit=100),
        "page of 100 in the middle": Query(clusters=[], limit=100, after=["m", "", "", "", ""]),
        "page of 100, keys only": Query(clusters=[], limit=100, objects=False),
        "page of 100 as a table": Query(clusters=[], limit=100, view="table"),
        "label selector, 2 requirements": Query(
            clusters=[], limit=100, labels="tier=web,team in (team-01,team-02)"
        ),
        "field selector status.phase": Query(clusters=[], limit=100, fields="status.phase=Pending"),
        "field selector status.podIP (not indexed)": Query(
            clusters=[], limit=100, fields="status.podIP=10.1.2.3"
        ),
        "substring that no pod has": Query(clusters=[], limit=100, search="nowhere-at-all"),
        "substring in 2 % of the pods": Query(clusters=[], limit=100, search="checkout-api"),
        "substring in every pod": Query(clusters=[], limit=100, search="registry"),
    }
    return [(f"{work}, p50 / p99", _timed(_ask(models, query), 200)) for work, query in asked.items()]


def _ask(models: ReadModel, asked: Query) -> Callable[[], Page]:
    asked.clusters, asked.types = list(models.clusters), ["pods"]
    return lambda: query(models, asked, _live)


def _large(models: ReadModel) -> list[Line]:
    lines = [
        (
            f"10,000 in one answer, {view}, p50 / p99",
            _timed(_ask(models, Query(clusters=[], limit=10_000, view=view)), 20),
        )
        for view in ("metadata", "object", "table")
    ]
    ids = [row.id for row in _ask(models, Query(clusters=[], limit=100, objects=False))().rows]
    one = iter(ids * 50)
    lines.append(("get of one object, p50 / p99", _timed(lambda: get(models, next(one)), 5000)))
    lines.append(("fetch of 100 objects, p50 / p99", _timed(lambda: fetch(models, ids), 200)))
    return lines


def _comparing(models: ReadModel) -> list[Line]:
    """Digests of everything, made and then kept; and counts, which need none."""

    async def everything() -> int:
        names, after = 0, None
        while True:
            asked = ListDigests(clusters=list(models.clusters), types=["pods"], after=after, limit=1000)
            page = await digests(models, asked, _live)
            names, after = names + len(page.rows), page.next
            if after is None:
                return names

    gc.collect()
    before = _rss()
    started = time.thread_time()
    made = asyncio.run(everything())
    first = time.thread_time() - started
    gc.collect()
    held = _rss() - before
    started = time.thread_time()
    asyncio.run(everything())
    again = time.thread_time() - started
    asked = Query(clusters=list(models.clusters))

    def counted() -> object:
        selection, states = select(models, asked, _live)
        return count(models, selection.rows, states)

    return [
        ("digests of all, made", f"{first:.1f} s ({first / made * 1e6:.0f} us each)"),
        ("digests of all, kept", f"{again:.2f} s"),
        ("memory of the digests", f"{held / 1e6:.0f} MB"),
        ("counts by cluster, type, namespace, phase", _timed(counted, 20)),
    ]


def _updates(models: ReadModel) -> list[Line]:
    """The last cluster's pods once more: a new version each, with another status."""
    model = list(models.clusters.values())[-1]
    changed = []
    for number, row in enumerate(model):
        rv = str(row.rv).encode()
        newer = str(300_000_000 + number).encode()
        raw = row.whole().replace(b'"resourceVersion":"%b"' % rv, b'"resourceVersion":"%b"' % newer)
        changed.append(raw.replace(b'"restartCount":', b'"restartCount":1'))
    started = time.thread_time()
    for raw in changed:
        model.upsert(PODS, raw)
    seconds = time.thread_time() - started
    return [("updates of the status taken in, of CPU time", f"{len(changed) / seconds:,.0f}/s")]


if __name__ == "__main__":
    main()
