"""A generator of changes: pods of a cluster get a new revision at a steady rate."""

from __future__ import annotations

import asyncio
import random
import time

from .cluster import BEAT, ClusterState

_TICK_S = 0.02


async def change_pods(cluster: ClusterState, per_second: float) -> None:
    """Runs until cancelled. Falls behind rather than taking more than half of the event loop."""
    rng = random.Random(f"{cluster.seed}/{cluster.name}/load")  # noqa: S311 - reproducible
    resource_type = cluster.types.named("pods")
    entries = cluster.store.of(resource_type).entries
    started, done = time.monotonic(), 0
    while True:
        tick = time.monotonic()
        due = int((tick - started) * per_second) - done
        while entries and due > 0 and time.monotonic() - tick < _TICK_S / 2:
            _, entry = entries.peekitem(rng.randrange(len(entries)))
            if entry.template is not None:
                cluster.store.touch(resource_type, entry)
            else:
                obj = entry.decode()
                annotations = obj["metadata"].setdefault("annotations", {})
                annotations[BEAT] = str(int(annotations.get(BEAT, 0)) + 1)
                cluster.store.put(resource_type, obj)
            done, due = done + 1, due - 1
        await asyncio.sleep(_TICK_S)
