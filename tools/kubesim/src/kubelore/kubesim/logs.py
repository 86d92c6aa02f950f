"""Container logs, made when asked for: line n of a container is a function of the pod's uid and n.

So 100,000 pods have logs that cost no memory, and a log read twice says the same.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from . import podlife
from .call import Call
from .status import Json, bad_request

KEPT_LINES = 2000  # what a node's log rotation would have left
_LAST_WORDS = (
    "INFO  loading model from /models/current.bin",
    "ERROR open /models/current.bin: no such file or directory",
    "FATAL recommender cannot start without a model, exiting with code 1",
)
_ITEMS = ("boots", "coat", "lamp", "teapot", "notebook", "scarf", "backpack")


@dataclass(frozen=True, slots=True)
class LogSource:
    """One container's log: lines every `period` seconds from `start` (epoch) to `end` or on and on."""

    uid: str
    container: str
    app: str
    start: float
    end: float | None
    crash: bool

    @property
    def period(self) -> float:
        return 0.5 + zlib.crc32(self.uid.encode()) % 30 / 10

    def time_of(self, number: int) -> float:
        return self.start + number * (0.2 if self.crash else self.period)

    def written(self) -> int:
        """How many lines there are by now."""
        if self.crash:
            return len(_LAST_WORDS)
        until = min(time.time(), self.end) if self.end else time.time()
        return max(0, math.floor((until - self.start) / self.period) + 1)

    def text(self, number: int) -> str:
        if self.crash:
            return _LAST_WORDS[number]
        rng = random.Random(f"{self.uid}/{self.container}/{number}")  # noqa: S311 - a reproducible log
        if self.app in ("postgres", "redis"):
            buffers, took = rng.randrange(4000), rng.random()
            return f"LOG:  checkpoint {number} complete: wrote {buffers} buffers in {took:.3f} s"
        if self.container in ("web", "envoy", "gateway"):
            path = f"/{self.app}/{rng.choice(_ITEMS)}?session={rng.randrange(1 << 24):06x}"
            code = rng.choice((200, 200, 200, 200, 304, 404, 500))
            return f'10.244.0.{rng.randrange(2, 250)} "GET {path} HTTP/1.1" {code} {rng.randrange(200, 9000)}'
        level = rng.choice(("INFO", "INFO", "INFO", "DEBUG", "WARN"))
        order, item, took = rng.randrange(10**6), rng.choice(_ITEMS), rng.randrange(90)
        return f"{level} {self.app} order={order:06} item={item} took={took}ms"


def source(pod: Json, container: str, *, previous: bool) -> LogSource:
    """The log that the query means; ApiError 400 with the real server's words when there is none."""
    meta, status = pod["metadata"], pod.get("status", {})
    names = [c["name"] for c in pod["spec"]["containers"]]
    if not container and len(names) > 1:
        raise bad_request(
            f"a container name must be specified for pod {meta['name']}, choose one of: {names}"
        )
    container = container or names[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {meta['name']}")
    states = {state["name"]: state for state in status.get("containerStatuses", ())}
    state = states.get(container, {}).get("state", {})
    crash = podlife.behaviour(pod) == "crash"
    if previous and not crash:
        message = f'previous terminated container "{container}" in pod "{meta["name"]}" not found'
        raise bad_request(message)
    ran = state.get("running") or state.get("terminated")
    if crash and states:
        ran = states[container]["lastState"]["terminated"]
    if not ran:
        reason = state.get("waiting", {}).get("reason", "PodInitializing")
        raise bad_request(f'container "{container}" in pod "{meta["name"]}" is waiting to start: {reason}')
    end = ran.get("finishedAt")
    app = (meta.get("labels") or {}).get("app", container)
    return LogSource(
        meta["uid"], container, app, _epoch(ran["startedAt"]), _epoch(end) if end else None, crash
    )


def _epoch(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def _line(log: LogSource, number: int, *, stamped: bool) -> bytes:
    moment = datetime.fromtimestamp(log.time_of(number), UTC)
    prefix = moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ") if stamped else ""
    return f"{prefix}{log.text(number)}\n".encode()


def _chosen(log: LogSource, query: Mapping[str, str]) -> range:
    count = log.written()
    first = max(0, count - KEPT_LINES)
    if query.get("tailLines", "").isdigit():
        first = max(first, count - int(query["tailLines"]))
    since = query.get("sinceTime", "")
    oldest = _epoch(since) if since else 0.0
    if query.get("sinceSeconds", "").isdigit():
        oldest = time.time() - int(query["sinceSeconds"])
    while first < count and log.time_of(first) < oldest:
        first += 1
    return range(first, count)


def _limited(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:limit] if limit < len(chunk) else chunk
        limit -= len(chunk)
        if limit <= 0:
            return


def asked(call: Call) -> LogSource:
    query = call.request.query
    return source(call.found().decode(), query.get("container", ""), previous=query.get("previous") == "true")


async def stream(call: Call, log: LogSource) -> AsyncIterator[bytes]:
    """The log's bytes; with `follow` until the container or the pod is gone."""
    query = call.request.query
    stamped = query.get("timestamps") == "true"
    numbers = _chosen(log, query)
    limit = int(query["limitBytes"]) if query.get("limitBytes", "").isdigit() else 1 << 62
    lines = (_line(log, number, stamped=stamped) for number in numbers)
    yield b"".join(_limited(lines, limit))
    number = numbers.stop
    while (
        query.get("follow") == "true"
        and not log.crash
        and (log.end is None or log.time_of(number) <= log.end)
    ):
        await asyncio.sleep(max(0.0, log.time_of(number) - time.time()))
        entry = call.cluster.store.find(call.type, call.namespace, call.name)
        if entry is None or entry.uid != log.uid or b'"phase":"Running"' not in entry.body:
            return
        yield _line(log, number, stamped=stamped)
        number += 1
