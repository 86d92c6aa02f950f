"""What was measured, as values that can be compared and printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Percentiles of one piece of work, in seconds: for each the median over several short runs.

    Another program on the machine spoils one run, seldom all of them.
    """

    p50: float
    p99: float
    samples: int

    @classmethod
    def of(cls, runs: Sequence[Sequence[float]]) -> Latency:
        """From the seconds that each call of each run took."""
        p50s = [percentile(run, 0.50) for run in runs]
        p99s = [percentile(run, 0.99) for run in runs]
        return cls(statistics.median(p50s), statistics.median(p99s), sum(map(len, runs)))

    def __str__(self) -> str:
        return f"{seconds(self.p50)} / {seconds(self.p99)}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(0, -(-len(ordered) * share // 1) - 1)
    return ordered[int(rank)]


def seconds(value: float) -> str:
    """In the unit that reads best."""
    if value < 0.9995:
        milliseconds = value * 1000
        return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def megabytes(value: float) -> str:
    """Bytes as 10^6 bytes."""
    return f"{value / 1e6:.0f} MB"


@dataclass(frozen=True)
class Reach:
    """What the work is allowed to take: p50 and p99, or one figure; in seconds or bytes."""

    text: str
    limits: tuple[float, ...]

    def met_by(self, *figures: float) -> bool:
        """Whether every figure that has a limit keeps it."""
        return all(figure <= limit for figure, limit in zip(figures, self.limits, strict=False))


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `ratio` is how many times as much the alternative takes as Kubelore (over 1:
    Kubelore needs less). `client` is what the measuring itself takes of the result.
    """

    work: str
    reached: str
    reach: str = ""
    met: bool | None = None
    instead: str = ""
    that: str = ""
    ratio: float | None = None
    client: str = ""

    def with_rival(self, instead: str, that: str, ratio: float) -> Row:
        """The same work beside another alternative."""
        return Row(self.work, self.reached, self.reach, self.met, instead, that, ratio, self.client)


def ratio_text(ratio: float | None) -> str:
    """As a factor."""
    if ratio is None:
        return ""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"
