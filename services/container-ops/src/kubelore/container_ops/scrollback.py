"""The last that a terminal showed, for whoever attaches to it. Pure."""

from __future__ import annotations

from collections import deque

MAX_BYTES = 256 * 1024


class Scrollback:
    """The newest output up to a size; what is dropped is dropped at the beginning, up to a line's."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max = max_bytes
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._cut = False

    def add(self, data: bytes) -> None:
        """Output, in order."""
        self._pieces.append(data)
        self._size += len(data)
        while self._size > self._max:
            oldest = self._pieces.popleft()
            spare = self._size - self._max
            self._cut = True
            if spare < len(oldest):
                oldest = oldest[spare:]
                self._pieces.appendleft(oldest)
                self._size -= spare
            else:
                self._size -= len(oldest)

    def read(self) -> bytes:
        """What is there; after a cut it begins with a line, unless there is none.

        A line's beginning is where no character and hardly any control sequence is cut in two.
        """
        whole = b"".join(self._pieces)
        if not self._cut:
            return whole
        _, newline, behind = whole.partition(b"\n")
        return behind if newline else whole
