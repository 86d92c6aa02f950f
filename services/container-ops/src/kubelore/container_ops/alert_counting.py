"""How often lines matched within a stretch of time. Pure."""

from __future__ import annotations

from collections import deque

NS = 1_000_000_000
_SLICES = 60


class Window:
    """Counts what matched in the last `window_s` seconds of the lines' own time, in slices of a sixtieth of it."""

    def __init__(self, window_s: int) -> None:
        self._span = window_s * NS
        self._slice = max(1, self._span // _SLICES)
        self._slices: deque[tuple[int, int]] = deque()
        self.total = 0

    def add(self, at: int) -> int:
        """Count a line of a time (ns), and say how many there are in the window that ends with the latest."""
        start = at - at % self._slice
        if self._slices and start <= self._slices[-1][0]:
            latest, count = self._slices.pop()
            self._slices.append((latest, count + 1))
        else:
            self._slices.append((start, 1))
        self.total += 1
        until = self._slices[-1][0] - self._span
        while self._slices[0][0] <= until:
            self.total -= self._slices.popleft()[1]
        return self.total

    def clear(self) -> None:
        """Begin anew, after it was told."""
        self._slices.clear()
        self.total = 0
