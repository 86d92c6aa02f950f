"""When backups are due, and which are no longer wanted. Pure: the time is given.

A schedule's slots are moments at whole minutes, as cron names them in a time
zone; each is due a little later, by a jitter that follows from the policy and
the slot. Around the change of clocks cronsim does as Debian's cron does: what
falls into the hour that is left out is due when it ends, and what falls into the
hour that comes twice is due in the first, unless its hour or minute begins with
a star.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from kubelore.common.errors import Invalid

MAX_CRON = 100
MAX_JITTER_S = 3600
DAY_S = 86_400

_WINDOWS_S = (3600, DAY_S, 8 * DAY_S, 32 * DAY_S, 366 * DAY_S)
_GAPS_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression in a time zone. `seed` tells apart policies that are due at the same slots."""

    cron: str
    zone: str = "UTC"
    jitter_s: int = 0
    seed: str = ""

    def check(self, now: float) -> None:
        """Raise Invalid for what is no schedule, never comes, or has more jitter than time between its slots."""
        if self.zone not in _zones():
            raise Invalid(f"{self.zone[:80]!r} is no time zone", remedy="Write it as Europe/Berlin, or UTC.")
        if len(self.cron.split()) != 5 or len(self.cron) > MAX_CRON:
            raise Invalid(
                f"{self.cron[:MAX_CRON]!r} is no cron expression",
                remedy="Write minute, hour, day of month, month and day of week, as in '30 2 * * *'.",
            )
        try:
            coming = list(islice(self.slots(now), _GAPS_LOOKED_AT))
        except (CronSimError, RecursionError) as error:
            raise Invalid(
                f"{self.cron!r} is no cron expression: {error}", remedy="See `man 5 crontab`."
            ) from error
        if not coming:
            raise Invalid(f"{self.cron!r} never comes", remedy="Check the day against the month.")
        shortest = min((b - a for a, b in pairwise(coming)), default=MAX_JITTER_S + 1)
        if not 0 <= self.jitter_s < min(shortest, MAX_JITTER_S + 1):
            raise Invalid(
                f"a jitter of {self.jitter_s} s does not fit a schedule that comes every {shortest} s",
                remedy=f"It must be less, and at most {MAX_JITTER_S} s.",
            )

    def slots(self, after: float) -> Iterator[int]:
        """The slots behind a moment, in seconds since 1970, rising."""
        last = after
        for moment in CronSim(self.cron, datetime.fromtimestamp(after, ZoneInfo(self.zone))):
            slot = int(moment.timestamp())
            # In an hour that comes twice, cronsim goes back to its first pass.
            if slot > last:
                yield slot
                last = slot

    def due(self, slot: int) -> float:
        """When a slot is due: within the jitter behind it, always the same for this policy."""
        drawn = hashlib.sha256(f"{self.seed}:{slot}".encode()).digest()[:8]
        return slot + int.from_bytes(drawn, "big") % (self.jitter_s + 1)

    def latest(self, now: float, after: float) -> int | None:
        """The last slot behind `after` that is due by now; None when there is none."""
        for window in _WINDOWS_S:
            begin = max(after, now - window)
            found = None
            for slot in self.slots(begin):
                if slot > now:
                    break
                if self.due(slot) <= now:
                    found = slot
            if found is not None or begin == after:
                return found
        return None

    def coming(self, now: float, count: int) -> list[float]:
        """The next moments at which something is due."""
        due = (self.due(slot) for slot in self.slots(now - self.jitter_s))
        return list(islice((moment for moment in due if moment > now), count))


class Kept(NamedTuple):
    """A backup that a policy made: when it was taken (seconds since 1970), and whether it was completed."""

    id: str
    at: float
    good: bool


def expired(backups: Sequence[Kept], now: float, keep_count: int, keep_days: int) -> list[str]:
    """The ids of those that are to go, oldest first; 0 means without limit. The last good one never is.

    Only completed ones count; those that failed go once they are older than all of these.
    """
    ordered = sorted(backups, key=lambda backup: (backup.at, backup.id), reverse=True)
    good = [backup for backup in ordered if backup.good]
    kept = good[:keep_count] if keep_count else good
    if keep_days:
        kept = [backup for backup in kept if now - backup.at <= keep_days * DAY_S]
    kept = kept or good[:1]
    if not kept:
        return [b.id for b in reversed(ordered) if keep_days and now - b.at > keep_days * DAY_S]
    ids, oldest = {backup.id for backup in kept}, kept[-1].at
    return [b.id for b in reversed(ordered) if b.id not in ids and (b.good or b.at < oldest)]


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
