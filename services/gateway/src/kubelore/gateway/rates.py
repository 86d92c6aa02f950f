"""Token buckets by key, in bounded memory (docs/decisions/0063)."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

KEPT = 10_000


class Buckets:
    """For each key a bucket that holds `burst` and fills by `rate` a second. A rate of 0 limits nothing.

    Memory is bounded: of 10,001 keys the one used longest ago is forgotten, and
    begins with a full bucket when it comes again.
    """

    def __init__(
        self, rate: float, burst: float, *, kept: int = KEPT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._most = kept
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Seconds until one may be taken; 0 when it may be now."""
        if not self._rate:
            return 0.0
        return max(0.0, (1.0 - self._level(key)) / self._rate)

    def take(self, key: str) -> float:
        """Take one if there is one; seconds to wait when there is not, and then nothing is taken."""
        wait = self.wait_s(key)
        if self._rate and not wait:
            self._levels[key] = (self._level(key) - 1.0, self._clock())
            self._levels.move_to_end(key)
            if len(self._levels) > self._most:
                self._levels.popitem(last=False)
        return wait

    def _level(self, key: str) -> float:
        level, at = self._levels.get(key, (self._burst, self._clock()))
        return min(self._burst, level + (self._clock() - at) * self._rate)


def network_of(host: str) -> str:
    """What counts as one address: for IPv6 the /64, since whoever has one address has all of it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
