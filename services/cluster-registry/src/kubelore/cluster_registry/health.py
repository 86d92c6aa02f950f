"""When to probe a cluster, and when a failed probe is a fall: pure, driven by a given clock.

A probe runs every 5 s, give or take 10 % so that 500 clusters do not fall into
step. A failure is confirmed 1 s later, hence a fall is known within 5.5 s + 3 s
(timeout) + 1 s + 3 s. While down the distance doubles up to 60 s, hence a
recovery is known within 66 s and one probe; or at once, where an observer or a
connection test has reached it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

INTERVAL_S = 5.0
TIMEOUT_S = 3.0
CONFIRM_S = 1.0
BACKOFF_LIMIT_S = 60.0
JITTER = 0.1

Verdict = Literal["connected", "disconnected"]


@dataclass(slots=True)
class ProbeState:
    """What is known of one cluster's reachability."""

    connected: bool | None = None
    failures: int = 0
    random: random.Random = field(default_factory=random.Random)

    def observe(self, reachable: bool) -> tuple[Verdict | None, float]:
        """Take in a probe's outcome; returns the verdict when it changed, and seconds until the next probe."""
        if reachable:
            self.failures = 0
            changed = self.connected is not True
            self.connected = True
            return ("connected" if changed else None), self._jittered(INTERVAL_S)
        self.failures += 1
        if self.failures == 1 and self.connected is not False:
            return None, CONFIRM_S
        changed = self.connected is not False
        self.connected = False
        backoff = min(INTERVAL_S * 2 ** min(self.failures - 2, 5), BACKOFF_LIMIT_S)
        return ("disconnected" if changed else None), self._jittered(max(backoff, INTERVAL_S))

    def believe(self) -> bool:
        """Somebody else has reached the cluster, and said so; whether that is news."""
        if self.connected is not False:
            return False
        self.failures, self.connected = 0, True
        return True

    def _jittered(self, seconds: float) -> float:
        return seconds * self.random.uniform(1 - JITTER, 1 + JITTER)
