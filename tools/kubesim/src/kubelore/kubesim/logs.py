"""Container logs, made when asked for: line n of a container is a function of the pod's uid and n.

So 100,000 pods have logs that cost no memory, and a log read twice says the same.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from . import podlife
from .call import Call
from .status import Json, bad_request

KEPT_LINES = 2000  # what a node's log rotation would have left
OPTIONS = "kubesim.kubelore.dev/logs"  # an annotation: "rate=500 style=json rotate=5000 follow=ends"
INOTIFY = b"failed to create fsnotify watcher: too many open files"
_SECOND = 1_000_000_000
_FLUSH_S = 0.05  # a chatty container's lines go out together
_LAST_WORDS = (
    "INFO  loading model from /models/current.bin",
    "ERROR open /models/current.bin: no such file or directory",
    "FATAL recommender cannot start without a model, exiting with code 1",
)
_ITEMS = ("boots", "coat", "lamp", "teapot", "notebook", "scarf", "backpack")


Style = Literal["words", "json", "ansi", "long", "web"]
Follow = Literal["goes-on", "ends", "silent", "inotify"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a pod's annotation asks of its logs.

    `rate` is lines a second, `rotate` the lines of a file, after which it is
    begun anew and only it can be read; `follow` what becomes of a follow then.
    """

    rate: float = 0.0
    style: Style = "words"
    rotate: int = 0
    follow: Follow = "goes-on"

    @classmethod
    def of(cls, pod: Json) -> Options:
        """Read them; words that mean nothing are passed over."""
        said = (pod["metadata"].get("annotations") or {}).get(OPTIONS, "")
        words = dict(word.partition("=")[::2] for word in said.split())
        style: Any = words.get("style", "words")
        follow: Any = words.get("follow", "goes-on")
        return cls(float(words.get("rate", 0)), style, int(words.get("rotate", 0)), follow)


@dataclass(frozen=True, slots=True)
class LogSource:
    """One container's log: lines every `period` ns from `start` (ns) to `end` or on and on."""

    uid: str
    container: str
    app: str
    start: int
    end: int | None
    crash: bool
    options: Options = Options()

    @property
    def period(self) -> int:
        if self.options.rate:
            return max(1, round(_SECOND / self.options.rate))
        tenths = 2 if self.crash else 5 + zlib.crc32(self.uid.encode()) % 30
        return tenths * _SECOND // 10

    def time_of(self, number: int) -> int:
        return self.start + number * self.period

    def written(self) -> int:
        """How many lines there are by now."""
        if self.crash:
            return len(_LAST_WORDS)
        until = min(time.time_ns(), self.end) if self.end else time.time_ns()
        return max(0, (until - self.start) // self.period + 1)

    def kept_from(self, count: int) -> int:
        """The first line of the file that is written when there are so many."""
        return count // self.options.rotate * self.options.rotate if self.options.rotate else 0

    def text(self, number: int) -> str:
        if self.crash:
            return _LAST_WORDS[number]
        if self.options.style != "words":
            return _STYLED[self.options.style](number)
        if self.options.rate:
            return f"INFO {self.app} wrote line {number} of many, and says a few words more in each of them"
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


_MASK = (1 << 64) - 1


def _request(number: int) -> str:
    """A request as a web server logs it, different in each line and yet cheap to make."""
    mixed = number * 0x9E3779B97F4A7C15 & _MASK
    mixed = (mixed ^ mixed >> 31) * 0xBF58476D1CE4E5B9 & _MASK
    mixed ^= mixed >> 29
    path = f"/shop/{_ITEMS[mixed % 7]}?session={mixed >> 40:06x}"
    code = (200, 200, 200, 200, 200, 304, 404, 500)[mixed >> 8 & 7]
    return f'10.244.0.{2 + (mixed >> 12) % 248} - - "GET {path} HTTP/1.1" {code} {200 + (mixed >> 22) % 8800} "-" "probe"'


_LEVELS = ("info", "debug", "warn", "error")
_STYLED: dict[str, Callable[[int], str]] = {
    "json": lambda n: (
        f'{{"level":"{_LEVELS[n % 4]}","msg":"request {n}","status":{200 + n % 4 * 100},"user":{{"id":{n % 50}}}}}'
    ),
    "ansi": lambda n: f"\x1b[3{1 + n % 7}m{_LEVELS[n % 4].upper()}\x1b[0m line {n}",
    "web": _request,
    "long": lambda n: f"line {n} " + "x" * (600_000 if n % 10 == 9 else 10),
}


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
        meta["uid"],
        container,
        app,
        _epoch(ran["startedAt"]),
        _epoch(end) if end else None,
        crash,
        Options.of(pod),
    )


def _epoch(stamp: str) -> int:
    """Nanoseconds; the API server passes whole seconds on to the kubelet."""
    return int(datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()) * _SECOND


def _line(log: LogSource, number: int, *, stamped: bool) -> bytes:
    if not stamped:
        return f"{log.text(number)}\n".encode()
    second, fraction = divmod(log.time_of(number), _SECOND)
    return f"{_second(second)}.{fraction:09d}Z {log.text(number)}\n".encode()


@lru_cache(maxsize=4096)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _chosen(log: LogSource, query: Mapping[str, str]) -> range:
    count = log.written()
    first = log.kept_from(count) if log.options.rotate else max(0, count - KEPT_LINES)
    if query.get("tailLines", "").isdigit():
        first = max(first, count - int(query["tailLines"]))
    since = query.get("sinceTime", "")
    oldest = _epoch(since) if since else 0
    if query.get("sinceSeconds", "").isdigit():
        oldest = time.time_ns() - int(query["sinceSeconds"]) * _SECOND
    first = max(first, -((log.start - oldest) // log.period))
    return range(min(first, count), count)


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
    if query.get("follow") != "true" or log.crash:
        return
    if log.options.follow == "inotify":
        yield INOTIFY
        return
    async for chunk in _followed(call, log, numbers.stop, stamped=stamped):
        yield chunk


async def _followed(call: Call, log: LogSource, number: int, *, stamped: bool) -> AsyncIterator[bytes]:
    rotated = log.kept_from(number) + log.options.rotate
    while log.end is None or log.time_of(number) <= log.end:
        await asyncio.sleep(max(0.0, (log.time_of(number) - time.time_ns()) / _SECOND, _pause(log)))
        entry = call.cluster.store.find(call.type, call.namespace, call.name)
        if entry is None or entry.uid != log.uid or b'"phase":"Running"' not in entry.body:
            return
        until = max(log.written(), number + 1)
        if log.options.rotate and log.options.follow in ("ends", "silent"):
            until = min(until, rotated)
        yield b"".join(_line(log, each, stamped=stamped) for each in range(number, until))
        number = until
        if number == rotated and log.options.follow == "ends":
            return
        if number == rotated and log.options.follow == "silent":
            await asyncio.sleep(3600)


def _pause(log: LogSource) -> float:
    return _FLUSH_S if log.period < _FLUSH_S * _SECOND else 0.0
