"""How often a process writes: what many do a little of is done in fewer, larger batches."""

from __future__ import annotations

import asyncio


class Pace:
    """Turns that lie at least `apart_s` apart, handed out in the order of asking.

    Whoever asks alone waits for nothing; the more ask, the longer each waits,
    and the more it has gathered by then, but never longer than `most_s`.
    """

    def __init__(self, apart_s: float, most_s: float) -> None:
        self._apart_s = apart_s
        self._most_s = most_s
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for one's turn."""
        now = asyncio.get_running_loop().time()
        at = min(max(self._next, now), now + self._most_s)
        self._next = at + self._apart_s
        if at > now:
            await asyncio.sleep(at - now)

    def stretch(self, by_s: float) -> None:
        """Let the next turn that is asked for lie so much further away: what was done in this one was large."""
        self._next += by_s
