"""Many writes as one: in parallel, but in order where that matters, and each with its own result.

At most 16 at once, four of them to one cluster. Within a cluster what concerns
one name keeps its order, and what others are made in or with (namespaces,
definitions of types, quotas, service accounts) is finished before the next
begins. What was not begun when the batch stopped, or its time was over, is told
as skipped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from kubelore.common.bus import Bus
from kubelore.common.contracts.writes import BY_ACTION, DEADLINE_S, Action, Write, Written
from kubelore.common.errors import DeadlineExceeded, KubeloreError
from kubelore.common.operations import current_operation

PARALLEL = 16
PER_CLUSTER = 4
BATCH_DEADLINE_S = 120.0
_ANSWER_S = 2.0
"""How much longer we wait than the service works, so that it is the service which says what it does not know."""

FOUNDATIONS = frozenset(
    {
        "Namespace",
        "CustomResourceDefinition",
        "APIService",
        "ServiceAccount",
        "ResourceQuota",
        "LimitRange",
        "PriorityClass",
        "StorageClass",
        "RuntimeClass",
    }
)
"""Kinds that objects made after them need."""


@dataclass(frozen=True, slots=True)
class Item:
    """One write to one cluster; `write` is the error instead where it was refused before it could be sent."""

    index: int
    cluster: str
    id: str
    action: Action
    write: Write | KubeloreError
    name: str = ""
    kind: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of an item: exactly one of a result and an error."""

    item: Item
    written: Written | None = None
    error: KubeloreError | None = None
    skipped: bool = False


class Skipped(DeadlineExceeded):
    """Not begun: an earlier item failed, or the time was over."""

    reason = "Skipped"


@dataclass(slots=True)
class Batch:
    """One batch under way over the bus."""

    bus: Bus
    stop_on_error: bool = False
    deadline_s: float = BATCH_DEADLINE_S
    _stopped: str = ""
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL))
    _rooms: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(PER_CLUSTER))
    )
    _until: float = 0.0

    def stop(self, why: str) -> None:
        """Begin nothing more; what is under way is finished, so that its outcome is known."""
        self._stopped = self._stopped or why

    async def run(self, items: Sequence[Item]) -> list[Outcome]:
        """Carry them out; their outcomes in the order of the items."""
        self._until = asyncio.get_running_loop().time() + self.deadline_s
        finished = [asyncio.Event() for _ in items]
        outcomes = [Outcome(item) for item in items]
        async with asyncio.TaskGroup() as group:
            for number, earlier in enumerate(predecessors(items)):
                awaited = [finished[one] for one in earlier]
                group.create_task(self._one(outcomes[number], awaited, finished[number]))
        return outcomes

    async def _one(self, outcome: Outcome, awaited: Sequence[asyncio.Event], finished: asyncio.Event) -> None:
        try:
            for earlier in awaited:
                await earlier.wait()
            async with self._rooms[outcome.item.cluster], self._room:
                outcome.written = await self._carry_out(outcome.item)
        except KubeloreError as error:
            outcome.error, outcome.skipped = error, isinstance(error, Skipped)
            if self.stop_on_error and not outcome.skipped:
                self.stop("an earlier item failed")
        finally:
            finished.set()

    async def _carry_out(self, item: Item) -> Written:
        left = self._until - asyncio.get_running_loop().time()
        if self._stopped or left <= _ANSWER_S:
            why = self._stopped or f"the batch took longer than {self.deadline_s:g} s"
            raise Skipped(f"not begun: {why}", remedy="Send what was skipped again.")
        if isinstance(item.write, KubeloreError):
            raise item.write
        return await send(self.bus, item.action, item.write, left)


async def send(bus: Bus, action: Action, write: Write, within_s: float = DEADLINE_S + _ANSWER_S) -> Written:
    """One write over the bus. An answer that got lost leaves open whether it happened, and the error says so."""
    try:
        return await bus.request(BY_ACTION[action], write, deadline_s=min(DEADLINE_S + _ANSWER_S, within_s))
    except DeadlineExceeded as error:
        # An error that names its operation comes from whoever worked on it, and says itself what is not known.
        if "operation" not in error.extra:
            error.extra |= {"outcome": "unknown", "operation": f"{current_operation()}.{write.item}"}
        raise


def predecessors(items: Sequence[Item]) -> list[set[int]]:
    """For each item, those that must be finished before: of its name in its cluster, and the last foundation there."""
    by_name: dict[tuple[str, str], int] = {}
    foundation: dict[str, int] = {}
    found: list[set[int]] = []
    for number, item in enumerate(items):
        key = item.cluster, item.name
        earlier = {by_name[key]} if key in by_name else set[int]()
        if item.cluster in foundation:
            earlier.add(foundation[item.cluster])
        found.append(earlier)
        by_name[key] = number
        if item.kind in FOUNDATIONS:
            foundation[item.cluster] = number
    return found
