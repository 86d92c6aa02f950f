"""What the benchmarks share: one stack with all simulated clusters onboarded, made when the first one asks."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.bench import kubectl
from tests.bench.fleet import SimulatedClusters
from tests.bench.http_client import Connection
from tests.bench.size import Size
from tests.bench.stack import Stack

RESOURCES = "/api/k8s/unified/resources"
SYNC_WITHIN_S = 240.0
_LOOK_EVERY_S = 0.1


class World:
    """A folder that is gone afterwards, and what runs in it; `with` ends all of it."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.size = size
        self.first_sync_s = 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    @cached_property
    def clusters(self) -> SimulatedClusters:
        """The simulated clusters."""
        return self._open.enter_context(SimulatedClusters(self.folder / "clusters", self.size))

    @cached_property
    def kubectl(self) -> kubectl.Fleet:
        """kubectl for each of them."""
        home = self.folder / "home"
        home.mkdir()
        return kubectl.Fleet(self.clusters.kubeconfigs, home)

    @cached_property
    def stack(self) -> Stack:
        """A stack that observes all of them; `first_sync_s` tells how long that took."""
        kubeconfigs = self.clusters.kubeconfigs
        stack = self._open.enter_context(Stack(self.folder / "data"))
        stack.up()
        begun = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda path: add_cluster(stack, path.stem, path.read_text()), kubeconfigs))
        self.wait_until_synced(stack)
        self.first_sync_s = time.perf_counter() - begun
        return stack

    def connect(self) -> Connection:
        """A connection to the gateway, as administrator; closed at the end."""
        connection = connect(self.stack)
        self._open.callback(connection.close)
        return connection

    def wait_until_synced(self, stack: Stack) -> None:
        """Until every cluster is live and every pod counted."""
        deadline = time.monotonic() + SYNC_WITHIN_S
        while not self._synced(seen := list_pods(stack)):
            states = [(state["name"], state["status"], state["count"]) for state in seen.get("clusters", [])]
            assert time.monotonic() < deadline, f"not synced within {SYNC_WITHIN_S:g} s: {states}"
            time.sleep(_LOOK_EVERY_S)

    def _synced(self, page: dict[str, Any]) -> bool:
        live = [state for state in page.get("clusters", []) if state["status"] == "live"]
        return len(live) == self.size.clusters and page["total"] == self.size.all_pods


def connect(stack: Stack) -> Connection:
    """A connection to a stack's gateway, as administrator."""
    return Connection(stack.url, {"Authorization": f"Bearer {stack.token}"})


def add_cluster(stack: Stack, name: str, kubeconfig: str) -> None:
    """Onboard it through the API, also under the name of one that an earlier benchmark had and removed."""
    connection = connect(stack)
    asked = {"name": name, "kubeconfig": kubeconfig, "new_history": True}
    status, said = connection.send("POST", "/api/k8s/clusters/add", asked)
    connection.close()
    assert status == 201, f"adding {name} answered {status}: {said[:500]!r}"


def list_pods(stack: Stack, **query: Any) -> dict[str, Any]:
    """A page of pods as it is now; empty while the gateway does not answer it."""
    connection = connect(stack)
    try:
        return json.loads(connection.get(RESOURCES, {"type": "pods", "limit": 1, **query}))
    except (AssertionError, OSError):
        return {}
    finally:
        connection.close()
