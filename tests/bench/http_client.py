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
from collections.abc import Callable, Mapping
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

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body."""
        headers = {**self._headers, "Content-Type": "application/json"}
        self._http.request("POST", path, json.dumps(body), headers)
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Hang up."""
        self._http.close()


def measure(call: Callable[[], Any], size: Size) -> Latency:
    """Call it in several short runs, each bounded in count and time, after a few calls that do not count."""
    for _ in range(3):
        call()
    runs = []
    for _ in range(size.runs):
        taken: list[float] = []
        until = time.perf_counter() + size.run_s
        while len(taken) < size.samples and (not taken or time.perf_counter() < until):
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
        runs.append(taken)
    return Latency.of(runs)


def own_cost(body: bytes, size: Size) -> float:
    """Seconds (p50) that the client and the loopback take of a call with this answer."""
    with tempfile.NamedTemporaryFile(suffix=".body") as file:
        file.write(body)
        file.flush()
        command = [sys.executable, "-m", "tests.bench.echo", file.name]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            connection = Connection(server.stdout.readline().strip(), {})
            try:
                return measure(lambda: connection.get("/"), size).p50
            finally:
                connection.close()
        finally:
            server.kill()
            server.wait()
