"""Clusters that could not be observed, and when each is tried again: ever later, and at once with new credentials."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

LIMIT_S = 60.0
STEADY_S = 60.0


class _Setback(msgspec.Struct):
    generation: int
    attempts: int
    until: float


class Setbacks:
    """One count per cluster; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_cluster: dict[str, _Setback] = {}

    def note(self, cluster: str, generation: int, *, lasted_s: float = 0.0) -> None:
        """It failed, after it had gone well for `lasted_s`. The first time it may be tried again at once."""
        former = self._by_cluster.get(cluster)
        begins = former is None or former.generation != generation or lasted_s >= STEADY_S
        attempts = 0 if begins or former is None else min(former.attempts + 1, 10)
        pause = min(float(2**attempts), LIMIT_S) if attempts else 0.0
        self._by_cluster[cluster] = _Setback(generation, attempts, self._clock() + pause)

    def may_try(self, cluster: str, generation: int) -> bool:
        """Whether it is time to try a cluster (again)."""
        setback = self._by_cluster.get(cluster)
        return setback is None or setback.generation != generation or self._clock() >= setback.until

    def keep(self, clusters: set[str]) -> None:
        """Forget clusters that are no longer there."""
        for cluster in self._by_cluster.keys() - clusters:
            del self._by_cluster[cluster]
