"""Changes that could not be taken: listed for administrators, and replayed where they belong.

A change that nothing newer was recorded behind becomes a version like any other.
One that comes behind newer versions cannot: the chain is made. What it held is
kept beside the chain, in place of its mark, and shown there as `late`.
"""

from __future__ import annotations

from kubelore.common.bus import ChangeConsumer, Parked
from kubelore.common.callers import current_caller
from kubelore.common.contracts.changes import Applied, Change
from kubelore.common.contracts.keeping import (
    ListParked,
    Outcome,
    ParkedChange,
    ParkedPage,
    Replayed,
    ReplayParked,
)
from kubelore.common.errors import BadRequest, Conflict
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.recorder import Recorder
from kubelore.yaml_vcs.rendering import iso

log = get_logger(__name__)

MAX_PAGE = 200


class ParkedChanges:
    """The endpoints about parked changes; for administrators of everything."""

    def __init__(self, consumer: ChangeConsumer, recorder: Recorder) -> None:
        self._consumer = consumer
        self._recorder = recorder

    async def list(self, request: ListParked) -> ParkedPage:
        """A page of what is parked, oldest first. Raises Forbidden."""
        current_caller().check_admin("see parked changes")
        if not 1 <= request.limit <= MAX_PAGE:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_PAGE}")
        found = await self._consumer.list_parked(after=request.after, limit=request.limit + 1)
        items = [_shown(one) for one in found[: request.limit]]
        return ParkedPage(items, next=items[-1].number if len(found) > request.limit else None)

    async def replay(self, request: ReplayParked) -> Replayed:
        """Take a parked change again, and forget it when that succeeds.

        Raises Forbidden, NotFound, Conflict for what cannot be replayed any more, and
        Invalid when it still cannot be read; it then stays parked.
        """
        caller = current_caller()
        caller.check_admin("replay parked changes")
        outcomes: list[Outcome] = []

        async def take(parked: Parked) -> None:
            outcomes.append(await self._taken(parked))

        await self._consumer.replay_parked(request.number, take)
        log.info("parked change replayed", subject=caller.subject, number=request.number, outcome=outcomes[0])
        return Replayed(number=request.number, outcome=outcomes[0])

    async def _taken(self, parked: Parked) -> Outcome:
        record = parked.record
        if isinstance(record, Change):
            return await self._recorder.replay(record, parked.id)
        if isinstance(record, Applied):
            await self._recorder.take([record])
            return "recorded"
        raise Conflict(
            f"{parked.id} tells how the stream stood then, which is over",
            remedy="Nothing needs to be done: the next list of the type says it anew.",
        )


def _shown(parked: Parked) -> ParkedChange:
    record = parked.record
    change = record if isinstance(record, Change) else None
    return ParkedChange(
        number=parked.id,
        reason=parked.reason,
        error_id=parked.error_id,
        parked_at=iso(int(parked.at * 1000)),
        cluster=record.cluster if record is not None else "",
        resource_id=change.id if change is not None else "",
        happened=change.kind if change is not None else "",
        resource_version=change.rv if change is not None else "",
        changed_at=iso(int(change.at * 1000)) if change is not None else None,
    )
