"""One keep-alive connection, and what it costs by itself.

The standard library's client, because it blocks: nothing but the call runs
while it is measured. Its own cost, with that of the loopback, is measured
against a server of another process that answers with the very same bytes.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.bench.figures import Latency
from tests.bench.size import Size

TIMEOUT_S = 60.0


class Connection:
    """GETs over one connection; raises AssertionError on any status but 200."""

    def __init__(self, url: str, headers: Mapping[str, str], context: Any = None) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._http = (
            http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        )

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """The body."""
        target = f"{path}?{urlencode(query)}" if query else path
        self._http.request("GET", target, headers=self._headers)
        answer = self._http.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{target} answered {answer.status}: {body[:500]!r}"
        return body

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """Status and body of the answer."""
        headers = {**self._headers, "Content-Type": "application/json"}
        self._http.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Hang up."""
        self._http.close()


def measure(call: Callable[[], Any], size: Size) -> Latency:
    """What one client sees; see `sample`."""
    return Latency.of(sample(call, size))


def measure_together(calls: Sequence[Callable[[], Any]], size: Size) -> Latency:
    """What several clients see who all call at the same time, each from a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        sampled = list(pool.map(lambda call: sample(call, size), calls))
    return Latency.of([list(chain(*together)) for together in zip(*sampled, strict=True)])


def sample(call: Callable[[], Any], size: Size) -> list[list[float]]:
    """Seconds of each call, in several short runs bounded in count and time; the first three do not count."""
    for _ in range(3):
        call()
    runs: list[list[float]] = []
    for _ in range(size.runs):
        taken: list[float] = []
        until = time.perf_counter() + size.run_s
        while len(taken) < size.samples and (not taken or time.perf_counter() < until):
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
        runs.append(taken)
    return runs


def own_cost(body: bytes, size: Size, clients: int = 1) -> float:
    """Seconds (p50) that client and loopback take of a call with this answer."""
    with echo_server(body) as url, ExitStack() as closing:
        connections = [Connection(url, {}) for _ in range(clients)]
        for connection in connections:
            closing.callback(connection.close)
        return measure_together([partial(connection.get, "/") for connection in connections], size).p50


@contextmanager
def echo_server(body: bytes) -> Iterator[str]:
    """The URL of a process that answers everything with this body."""
    with tempfile.NamedTemporaryFile(suffix=".body") as file:
        file.write(body)
        file.flush()
        command = [sys.executable, "-m", "tests.bench.echo", file.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                yield server.stdout.readline().strip()
            finally:
                server.kill()
