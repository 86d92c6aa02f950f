"""A gigabyte of stored logs: a word that hardly occurs, and a regular expression, beside zstdgrep on the same lines.

The lines are put into the store of a running stack as a collector would, and
asked for over HTTP. zstdgrep gets the same lines in one file, compressed at the
same level, and counts by the same expression.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import zstandard
from tests.bench.figures import Reach, Row, megabytes, seconds
from tests.bench.fleet import SimulatedClusters
from tests.bench.http_client import Connection, measure
from tests.bench.size import Size
from tests.bench.stack import Stack
from tests.bench.world import World, add_cluster, connect

from kubelore.common.crypto import Keyring
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.segment_blocks import LEVEL
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import SegmentBatch, StreamKey, StreamLines

RARE = Reach("50 ms", (0.050,))
REGEX = Reach("1.0 of zstdgrep's time", (1.0,))
WORD = "zanzibarfault"
PATTERN = "status=5[0-9]3 .*took=9[0-9]{3}ms"
BATCH_BYTES = 32 * 1024 * 1024
PODS = 20
_PATHS = ("/api/orders", "/api/items", "/healthz", "/api/users/login", "/static/app.js")
_AGENTS = ("curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64)", "kube-probe/1.34", "python-httpx/0.28")


def search_logs(world: World) -> list[Row]:
    """Store, then search."""
    size = replace(world.size, clusters=1, pods=PODS)
    folder = world.folder / "searched"
    with SimulatedClusters(folder, size) as clusters, Stack(world.folder / "searching") as stack:
        stack.up()
        (kubeconfig,) = clusters.kubeconfigs
        add_cluster(stack, kubeconfig.stem, kubeconfig.read_text())
        plain = folder / "lines.zst"
        raw, lines, stored, took = asyncio.run(_fill(stack, kubeconfig.stem, plain, size))
        connection = connect(stack)
        rows = [_stored(raw, lines, stored, took), _rare(connection, raw, size)]
        rows.append(_regex(connection, plain, raw, size))
        connection.close()
    return rows


def log_lines(size: int, seed: int = 7) -> Iterator[list[LogLine]]:
    """Lines of a web server with ids, in batches of a few megabytes, one of them with the rare word."""
    chance = random.Random(seed)
    at, made, number = 1_764_000_000_000_000_000, 0, 0
    while made < size:
        batch: list[LogLine] = []
        for _ in range(20_000):
            at += chance.randrange(1_000, 2_000_000)
            number += 1
            status = chance.choices((200, 201, 304, 404, 503), (80, 8, 6, 5, 1))[0]
            text = (
                f"level=info request={chance.getrandbits(64):016x} user={chance.randrange(50_000)} "
                f"method=GET path={chance.choice(_PATHS)}/{chance.randrange(5000)} status={status} "
                f"bytes={chance.randrange(40_000)} took={chance.randrange(10_000)}ms "
                f'agent="{chance.choice(_AGENTS)}"'
            )
            if number == 500_000 or (number == 1000 and size < 2**28):
                text += f" {WORD}"
            batch.append(LogLine(at, text.encode()))
            made += len(text) + 1
        yield batch


async def _fill(stack: Stack, cluster: str, plain: Path, size: Size) -> tuple[int, int, int, float]:
    """Bytes and lines that were stored, the bytes that they take, and the seconds of CPU that storing took."""
    environment = psutil.Process(stack.pid("container-ops")).environ()
    told = {
        name.removeprefix("KUBELORE_").lower(): value
        for name, value in environment.items()
        if name.startswith("KUBELORE_")
    }
    settings = CommonSettings(**{k: v for k, v in told.items() if k in CommonSettings.model_fields})  # type: ignore[arg-type]
    keyring = Keyring.load(settings.keyring_dir / "logs.json")
    raw = lines = sequence = 0
    cpu = 0.0
    with plain.open("wb") as file, zstandard.ZstdCompressor(level=LEVEL).stream_writer(file) as same:
        async with await open_database(settings) as database:
            store = SegmentStore(database, BlobStore.open(settings.blob_url), keyring)
            await store.prepare()
            held: list[list[LogLine]] = []
            for batch in chain(log_lines(size.stored_log_bytes), [None]):
                if batch is not None:
                    held.append(batch)
                    same.write(b"".join(line.text + b"\n" for line in batch))
                    lines += len(batch)
                waiting = sum(len(line.text) for one in held for line in one)
                if held and (batch is None or waiting >= BATCH_BYTES):
                    sequence += 1
                    begun = time.process_time()
                    await store.append(_batch(cluster, sequence, held))
                    cpu += time.process_time() - begun
                    held = []
            found = await store.held("bench")
            raw = found.raw_bytes
    return raw, lines, found.stored_bytes, cpu


def _batch(cluster: str, sequence: int, batches: list[list[LogLine]]) -> SegmentBatch:
    streams = [
        StreamLines(
            StreamKey(
                cluster=cluster,
                namespace="shop",
                pod=f"web-{place % PODS}",
                uid=f"uid-{place % PODS}",
                container="web",
                restart=place // PODS,
                workload="deployments.apps/web",
            ),
            lines,
        )
        for place, lines in enumerate(batches)
    ]
    return SegmentBatch(owner="bench", sequence=sequence, policy="bench", cluster=cluster, streams=streams)


def _stored(raw: int, lines: int, stored: int, took: float) -> Row:
    told = f"{raw / stored:.1f} times smaller, {lines / took:,.0f} lines a second of one core"
    work = f"storing {megabytes(raw)} of logs ({lines:,} lines with ids), with the index for searching"
    return Row(work, told)


def _rare(connection: Connection, raw: int, size: Size) -> Row:
    query = {"search": WORD, "live": "false", "timeout_s": 30}
    found = json.loads(connection.get("/api/k8s/logs/search", query))
    assert len(found["items"]) == 1, found
    latency = measure(lambda: connection.get("/api/k8s/logs/search", query), size)
    work = f"search {megabytes(raw)} of stored logs: a word of one line"
    return Row(work, str(latency), RARE.text, RARE.met_by(latency.p50) if size.targets else None)


def _regex(connection: Connection, plain: Path, raw: int, size: Size) -> Row:
    since, until = "2025-11-01T00:00:00Z", "2026-12-31T00:00:00Z"
    query = {"regex": PATTERN, "live": "false", "timeout_s": 30, "since": since, "until": until}
    ours, theirs, counts = [], [], set()
    for _ in range(size.rival_runs):
        begun = time.perf_counter()
        counts.add(int(json.loads(connection.get("/api/k8s/logs/histogram", query))["total"]))
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        counts.add(_zstdgrep(plain))
        theirs.append(time.perf_counter() - begun)
    assert len(counts) == 1, counts
    mine, that = statistics.median(ours), statistics.median(theirs)
    work = f"count the lines of {megabytes(raw)} of stored logs that match `{PATTERN}` ({counts.pop()})"
    met = REGEX.met_by(mine / that) if size.targets else None
    return Row(work, seconds(mine), REGEX.text, met, "zstdgrep -cE on one file", seconds(that), that / mine)


def _zstdgrep(plain: Path) -> int:
    environment: dict[str, Any] = {"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}
    done = subprocess.run(
        ["zstdgrep", "-cE", PATTERN, str(plain)],
        env=environment,
        capture_output=True,
        timeout=300,
        check=True,
    )
    return int(done.stdout.split()[-1].rpartition(b":")[2])
