"""What a replica holds of each type when it may not hold everything. Pure: figures in, decisions out.

Over the memory budget a type is held as metadata only, the largest first and
what people look at last; when that is not enough, types are listed on demand,
in the same order. Over the watch budget the least important types are listed
on demand. A type comes back only when it fits into four fifths of the budget:
what leaves at the brim and returns below it cannot go to and fro.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from kubelore.common.contracts.changes import UNPUBLISHED

Hold = Literal["whole", "metadata", "on-demand"]
Key = tuple[str, str]
"""A cluster and a type."""

ROW_BYTES = 1_400
"""What an object takes besides its packed bytes: its row and its places in the indexes (187 MB for 100,000 pods)."""
LOW = 0.8
LEAST_SAVING = 64 * 1024
"""Types that would save less are left alone: giving them up costs more than it brings."""

NEEDED = frozenset(
    {
        "namespaces",
        "customresourcedefinitions.apiextensions.k8s.io",
        "apiservices.apiregistration.k8s.io",
    }
)
"""Always held and watched: the observer itself lives by them."""
PEOPLES = frozenset(
    {
        "configmaps",
        "cronjobs.batch",
        "daemonsets.apps",
        "deployments.apps",
        "events",
        "ingresses.networking.k8s.io",
        "jobs.batch",
        "nodes",
        "persistentvolumeclaims",
        "pods",
        "secrets",
        "services",
        "statefulsets.apps",
    }
)
"""What people look at."""


class Budget(msgspec.Struct, frozen=True):
    """What one replica may use; 0 is no limit."""

    memory_bytes: int = 0
    watches: int = 0


class Holding(msgspec.Struct, frozen=True):
    """How one type of one cluster is held, and what it takes, or would take, in packed bytes."""

    cluster: str
    type: str
    hold: Hold
    count: int
    whole_bytes: int
    metadata_bytes: int

    @property
    def key(self) -> Key:
        """Its cluster and type."""
        return (self.cluster, self.type)

    def cost(self, hold: Hold) -> int:
        """Estimated bytes of memory when it is held so."""
        if hold == "on-demand":
            return 0
        packed = self.whole_bytes if hold == "whole" else self.metadata_bytes
        return packed + ROW_BYTES * self.count


def importance(type_name: str) -> int:
    """0 for what is always held, then what people look at, what is published, and the rest."""
    if type_name in NEEDED:
        return 0
    if type_name in PEOPLES:
        return 1
    return 3 if type_name in UNPUBLISHED else 2


def beyond_watches(wanted: Mapping[Key, int], budget: Budget) -> set[Key]:
    """The types that are not watched, given how many watches each takes: the least important, in all clusters alike."""
    if not budget.watches:
        return set()
    beyond: set[Key] = set()
    left = budget.watches
    for key in sorted(wanted, key=lambda key: (importance(key[1]), key[1], key[0])):
        if wanted[key] <= left or key[1] in NEEDED:
            left -= wanted[key]
        else:
            beyond.add(key)
    return beyond


def plan(holdings: Collection[Holding], budget: Budget) -> dict[Key, Hold]:
    """What is to be held otherwise than it is: as much less as is needed at once, or one type more."""
    if not budget.memory_bytes:
        return {one.key: "whole" for one in holdings if one.hold != "whole"}
    total = sum(one.cost(one.hold) for one in holdings)
    if total > budget.memory_bytes:
        return _reduce(holdings, total, budget.memory_bytes)
    return _restore(holdings, total, budget.memory_bytes * LOW)


def _reduce(holdings: Collection[Holding], total: int, limit: int) -> dict[Key, Hold]:
    changes: dict[Key, Hold] = {}
    steps: tuple[tuple[Hold, bool], ...] = (
        ("metadata", False),
        ("metadata", True),
        ("on-demand", False),
        ("on-demand", True),
    )
    for hold, peoples in steps:
        for one in sorted(holdings, key=lambda one: (-one.cost("whole"), one.key)):
            if total <= limit:
                return changes
            now = changes.get(one.key, one.hold)
            saving = one.cost(now) - one.cost(hold)
            if one.type in NEEDED or (one.type in PEOPLES) is not peoples or saving < LEAST_SAVING:
                continue
            changes[one.key] = hold
            total -= saving
    return changes


def _restore(holdings: Collection[Holding], total: int, limit: float) -> dict[Key, Hold]:
    """One at a time, since each is listed anew; what was given up last, and people's types, come first."""
    reduced = [one for one in holdings if one.hold != "whole"]
    for one in sorted(
        reduced, key=lambda one: (one.hold != "on-demand", importance(one.type), one.cost("whole"), one.key)
    ):
        better: tuple[Hold, ...] = ("whole", "metadata") if one.hold == "on-demand" else ("whole",)
        for hold in better:
            if total - one.cost(one.hold) + one.cost(hold) <= limit:
                return {one.key: hold}
    return {}
