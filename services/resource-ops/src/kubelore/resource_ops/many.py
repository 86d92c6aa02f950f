"""Carries out many replacements of one request, for restores: recorded together, written in parallel.

An item is created without looking first, since the API server tells of one that
is there already. Intents are one insert, outcomes one update. Items whose
outcome is recorded from before are not written again; those of which nobody
knows are looked for in the cluster first (`write_outcomes.evidence`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import (
    MAX_MANY,
    MAX_MANY_BYTES,
    NOT_BEGUN,
    ManyOutcome,
    ManyResult,
    OnExisting,
    Replace,
    ReplacedMany,
    ReplaceMany,
)
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    TooLarge,
)
from kubelore.common.kube import ObjectMeta, decode_meta
from kubelore.common.kube.type_names import one_type
from kubelore.common.operations import current_operation
from kubelore.common.reach import Reach, Reached
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.outbox import judged
from kubelore.resource_ops.replacing import REPLACE_TRIES, Replacement, check_there, goes_over, refused
from kubelore.resource_ops.repository import Conclusion, Operation, OperationRepository
from kubelore.resource_ops.write_outcomes import Evidence
from kubelore.resource_ops.write_plans import check_words, opened, writable

log = get_logger(__name__)

PARALLEL = 16
"""Writes at once, as many as there are connections to a cluster."""
BEGIN_WITHIN_S = 8.0
"""Nothing is begun later, so that the slowest write ends before the request's deadline."""
MAX_DETAIL = 1000
CONCLUDE_TRIES = 3
_CONCLUDE_PAUSE_S = 0.5
_CONCLUDED = ("done", "failed", "probable")


@dataclass(slots=True)
class _Job:
    """One item that may be written.

    `earlier` is the record of its first sending, of which nobody saw the end;
    `intended_at` is when this one was recorded as the first.
    """

    key: str
    write: Replace
    id: ResourceId
    replacement: Replacement
    earlier: Operation | None = None
    intended_at: datetime | None = None

    @property
    def namespace(self) -> str | None:
        return self.id.namespace or None


class ManyWriter:
    """Answers REPLACE_MANY. `hurry` is told when there is something to publish; `clock` tells the time in UTC."""

    def __init__(
        self,
        reach: Reach,
        repository: OperationRepository,
        keyring: Keyring,
        *,
        replica: str,
        hurry: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reach = reach
        self._repository = repository
        self._keyring = keyring
        self._replica = replica
        self._hurry = hurry
        self._clock = clock

    async def replace_many(self, request: ReplaceMany) -> ReplacedMany:
        """Carry them out, each at most once; a result for each, in their order.

        Raises for what concerns the request as a whole: BadRequest and TooLarge for
        its form, NotFound for a cluster that is not the caller's, Unavailable when
        it cannot be recorded. What befalls one item is its own result.
        """
        _check(request)
        current_caller().check_cluster(request.cluster)
        async with self._reach.using(request.cluster) as reached:
            results: dict[int, ManyResult] = {}
            jobs = await self._jobs(request, reached, results)
            if request.dry_run:
                await self._write_all(request, reached, jobs, results)
            else:
                await self._recorded(request, reached, jobs, results)
        return ReplacedMany([results[one.item] for one in request.items])

    async def _jobs(
        self, request: ReplaceMany, reached: Reached, results: dict[int, ManyResult]
    ) -> list[_Job]:
        """What may be written; the others have their results."""
        jobs: list[_Job] = []
        for write in request.items:
            try:
                jobs.append(await self._job(request.cluster, write, reached))
            except KubeloreError as error:
                results[write.item] = _failed(write, error)
        return jobs

    async def _job(self, cluster: str, write: Replace, reached: Reached) -> _Job:
        wanted = ResourceId.parse(write.id)
        if wanted.cluster != cluster:
            raise BadRequest(f"{wanted} is not in {cluster}")
        found = await reached.find(lambda types: one_type(wanted.type, types))
        identity = writable(ResourceId(cluster, found.name, wanted.namespace, wanted.name), found)
        current_caller().check_write(cluster, found.name, identity.namespace)
        key = f"{current_operation()}.{write.item}"
        return _Job(key, write, identity, opened(write, identity, found, self._keyring))

    async def _recorded(
        self, request: ReplaceMany, reached: Reached, jobs: Sequence[_Job], results: dict[int, ManyResult]
    ) -> None:
        """Record what is intended, carry it out, and record what became of it."""
        known = await self._repository.known([job.key for job in jobs]) if jobs else {}
        left: list[_Job] = []
        for job in jobs:
            before = known.get(job.key)
            if before is not None and before.state in _CONCLUDED:
                results[job.write.item] = _answered(job, before)
            else:
                job.earlier = before
                left.append(job)
        intents = {job.key: self._intent(request, job) for job in left}
        for job in left:
            job.intended_at = None if job.earlier else intents[job.key].at
        await self._repository.intend_all([intents[job.key] for job in left if job.earlier is None])
        await self._repository.intend_again([intents[job.key] for job in left if job.earlier is not None])
        await self._write_all(request, reached, left, results)
        begun = [job for job in left if results[job.write.item].error != NOT_BEGUN]
        await self._write_down({job.key: _conclusion(results[job.write.item]) for job in begun})
        with suppress(KubeloreError):
            # One that is left is found to have had no effect.
            await self._repository.withdraw([job.key for job in left if job not in begun])
        self._hurry()

    async def _write_all(
        self, request: ReplaceMany, reached: Reached, jobs: Sequence[_Job], results: dict[int, ManyResult]
    ) -> None:
        until = asyncio.get_running_loop().time() + BEGIN_WITHIN_S
        queue = iter(jobs)

        async def work() -> None:
            for job in queue:
                if asyncio.get_running_loop().time() > until:
                    results[job.write.item] = _not_begun(job.write)
                else:
                    results[job.write.item] = await self._one(request, reached, job)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARALLEL, len(jobs))):
                group.create_task(work())

    async def _one(self, request: ReplaceMany, reached: Reached, job: _Job) -> ManyResult:
        try:
            if job.earlier is not None and (found := await self._found(reached, job, job.earlier)):
                return found
            result, meta = await _send(reached, job, request.on_existing, request.dry_run)
        except (AlreadyExists, Conflict) as error:
            # The first sending may have arrived between the look and the second, and the second before the first.
            with suppress(KubeloreError):
                other = job.earlier or await self._sent_again(job)
                if other is not None and (found := await self._found(reached, job, other)):
                    return found
            return _failed(job.write, error)
        except KubeloreError as error:
            return _failed(job.write, refused(error, job.id, rv="", live=None, replacement=job.replacement))
        uid, rv = (meta.uid, meta.resource_version) if meta else ("", "")
        return ManyResult(id=str(job.id), item=job.write.item, result=result, uid=uid, rv=rv)

    async def _found(self, reached: Reached, job: _Job, earlier: Operation) -> ManyResult | None:
        """What became of an earlier sending, where the cluster shows that it was carried out."""
        raw = await _partial(reached, job)
        found = judged(earlier, msgspec.json.decode(raw, type=dict[str, Any]) if raw else None)
        if found.state != "probable" or await self._repository.others_after(earlier):
            return None
        return _probable(job, found)

    async def _sent_again(self, job: _Job) -> Operation | None:
        """The record of an item that was taken up by another sending since this one recorded it."""
        if job.intended_at is None:
            return None
        now = (await self._repository.known([job.key])).get(job.key)
        # As the database keeps it, in whole milliseconds. Not whether it is later: the other's clock may be behind.
        kept = job.intended_at.replace(microsecond=job.intended_at.microsecond // 1000 * 1000)
        return now if now is not None and now.at != kept else None

    def _intent(self, request: ReplaceMany, job: _Job) -> Operation:
        return Operation(
            key=job.key,
            operation=current_operation(),
            cluster=job.id.cluster,
            id=str(job.id),
            type=job.id.type,
            action="replace",
            actor=current_caller().subject,
            reason=request.reason,
            change_log=request.change_log,
            at=self._clock(),
            replica=self._replica,
        )

    async def _write_down(self, outcomes: Mapping[str, Conclusion]) -> None:
        """Record outcomes. When that fails, they are found out from the cluster later, and the answer stands."""
        for attempt in range(CONCLUDE_TRIES):
            try:
                await self._repository.conclude_all(outcomes)
                return
            except KubeloreError as error:
                log.warning("outcomes not recorded", operations=len(outcomes), detail=error.detail)
                if attempt + 1 < CONCLUDE_TRIES:
                    await asyncio.sleep(_CONCLUDE_PAUSE_S)


async def _send(
    reached: Reached, job: _Job, on_existing: OnExisting, dry_run: bool
) -> tuple[ManyOutcome, ObjectMeta | None]:
    """Create the object, or do with the one that is there as was asked; the metadata it has then."""
    if not (job.write.uid or job.write.rv):
        try:
            body = job.replacement.body()
            raw = await reached.client.create(job.replacement.type, job.namespace, body, dry_run=dry_run)
            return "created", decode_meta(raw)
        except (AlreadyExists, Invalid, Forbidden) as error:
            # A taken address or a full quota is told before that the object is there.
            live = None if on_existing == "fail" else await _metadata(reached, job)
            if live is None:
                raise error
            if on_existing == "skip":
                return "skipped", live
    for _ in range(REPLACE_TRIES - 1):
        try:
            return await _write_over(reached, job, dry_run)
        except Conflict as error:
            if not goes_over(job.write, error):
                raise
    return await _write_over(reached, job, dry_run)


async def _write_over(reached: Reached, job: _Job, dry_run: bool) -> tuple[ManyOutcome, ObjectMeta]:
    live, write = await _metadata(reached, job), msgspec.structs.replace(job.write, mode="replace")
    check_there(write, job.id, live and {"uid": live.uid, "resourceVersion": live.resource_version})
    rv = write.rv or (live.resource_version if live else "")
    body = job.replacement.body(uid=write.uid, rv=rv)
    place = job.replacement.type, job.namespace, job.id.name
    stored = _content(await reached.client.get(*place)) if dry_run else {}
    raw = await reached.client.replace(*place, body, dry_run=dry_run)
    after = decode_meta(raw)
    # What only tries leaves the resourceVersion as it was, whatever it would change.
    same = _content(raw) == stored if dry_run else after.resource_version == rv
    return "unchanged" if same else "changed", after


def _content(raw: bytes) -> dict[str, Any]:
    """An object without who owns its fields, which a write that changes nothing may change."""
    found = msgspec.json.decode(raw, type=dict[str, Any])
    found.get("metadata", {}).pop("managedFields", None)
    return found


async def _metadata(reached: Reached, job: _Job) -> ObjectMeta | None:
    """The object's metadata as they are now, and nothing else of it: it may be a Secret. None when there is none."""
    raw = await _partial(reached, job)
    return decode_meta(raw) if raw else None


async def _partial(reached: Reached, job: _Job) -> bytes:
    try:
        return await reached.client.get(job.replacement.type, job.namespace, job.id.name, metadata=True)
    except NotFound:
        return b""


def _check(request: ReplaceMany) -> None:
    """Raise BadRequest and TooLarge for a request that cannot be carried out as a whole."""
    check_words(request)
    if not current_operation():
        raise BadRequest("a write belongs to an operation", remedy="Ask within one (`operating`).")
    if len(request.items) > MAX_MANY:
        raise TooLarge(
            f"{len(request.items)} items are more than {MAX_MANY}", remedy="Send several requests."
        )
    if sum(_sizes(request.items)) > MAX_MANY_BYTES:
        raise TooLarge(
            f"the manifests have more than {MAX_MANY_BYTES} bytes", remedy="Send several requests."
        )
    if len({one.item for one in request.items}) < len(request.items):
        raise BadRequest("two items have the same number", remedy="Give each its own `item`.")


def _sizes(items: Sequence[Replace]) -> Iterator[int]:
    return (len(one.manifest) + len(one.sealed) for one in items)


def _failed(write: Replace, error: KubeloreError) -> ManyResult:
    return ManyResult(
        id=write.id,
        item=write.item,
        result="failed",
        error=error.reason,
        detail=" ".join(filter(None, (error.detail, error.remedy)))[:MAX_DETAIL],
        fields=error.extra.get("fields", []),
        unknown=error.extra.get("outcome") == "unknown",
    )


def _not_begun(write: Replace) -> ManyResult:
    detail = f"not begun within {BEGIN_WITHIN_S:g} s; send it again"
    return ManyResult(id=write.id, item=write.item, result="failed", error=NOT_BEGUN, detail=detail)


def _probable(job: _Job, found: Evidence) -> ManyResult:
    return ManyResult(
        id=str(job.id), item=job.write.item, result="changed", uid=found.uid, rv=found.rv, probable=True
    )


def _answered(job: _Job, before: Operation) -> ManyResult:
    """What a concluded item answered."""
    probable = before.state == "probable"
    result = before.result or ("changed" if probable else "failed")
    return ManyResult(
        id=before.id,
        item=job.write.item,
        result=msgspec.convert(result, ManyOutcome),
        uid=before.uid,
        rv=before.rv,
        error=before.error,
        detail=before.detail,
        fields=before.fields,
        probable=probable,
    )


def _conclusion(result: ManyResult) -> Conclusion:
    if result.unknown:
        return Conclusion(state="unknown", due="resolve", error=result.error)
    # What stayed as it was has no version of this write: whoever made it did.
    written = result.result in ("created", "changed") and result.rv
    return Conclusion(
        state="failed" if result.result == "failed" else "probable" if result.probable else "done",
        due="publish" if written else "",
        uid=result.uid,
        rv=result.rv,
        result=result.result,
        error=result.error,
        detail=result.detail,
        fields=result.fields,
    )
