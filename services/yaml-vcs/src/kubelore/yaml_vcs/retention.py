"""Which versions of an object are kept: a pure function of their times, and what stands on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kubelore.common.contracts.keeping import Retention
from kubelore.yaml_vcs.repository import Outline

DAY_MS = 86_400_000
SETTLED_MS = 2 * 3_600_000
"""Nothing younger is pruned, whatever the bounds: a replica may still pack upon it."""


def kept(versions: Sequence[Outline], now_ms: int, rules: Retention, needed: Collection[int]) -> set[int]:
    """The numbers that stay, of versions that come oldest first."""
    fixed = _always(versions, now_ms, needed)
    stay = {one.number for one in _by_age(versions, now_ms, rules)} | fixed
    return _bounded([one for one in versions if one.number in stay], rules, fixed)


def _always(versions: Sequence[Outline], now_ms: int, needed: Collection[int]) -> set[int]:
    fixed = {one.number for one in versions if one.number in needed or now_ms - one.at < SETTLED_MS}
    fixed |= {one.number for one in versions[-1:]}
    whole = next((one.number for one in reversed(versions) if not one.gone), None)
    return fixed if whole is None else fixed | {whole}


def _by_age(versions: Sequence[Outline], now_ms: int, rules: Retention) -> list[Outline]:
    last_of_day = {one.at // DAY_MS: one.number for one in versions}
    return [
        one
        for one in versions
        if (now_ms - one.at <= rules.days * DAY_MS or last_of_day[one.at // DAY_MS] == one.number)
        and not (rules.max_days and now_ms - one.at > rules.max_days * DAY_MS)
    ]


def _bounded(versions: Sequence[Outline], rules: Retention, fixed: set[int]) -> set[int]:
    """Drop the oldest until the bounds are met, or only what must stay is left."""
    stay = {one.number for one in versions}
    count, size = len(versions), sum(one.size for one in versions)
    for one in versions:
        over = (rules.max_versions and count > rules.max_versions) or (
            rules.max_bytes and size > rules.max_bytes
        )
        if not over:
            break
        if one.number not in fixed:
            stay.discard(one.number)
            count, size = count - 1, size - one.size
    return stay
