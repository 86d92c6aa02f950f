"""One restore being carried out: verified whole, planned, then written wave by wave, each object on record.

Whatever interrupts it, it can begin again from the start: the plan comes out the
same, what is on record is passed over, and what was written but is not on record
is answered by resource-ops from its own records (the operation and the number of
the item are its key), so that nothing is done twice.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.backups import BackupReader, Record, with_values
from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts.exports import EXPORT, Export
from kubelore.common.contracts.restores import Existing
from kubelore.common.contracts.writes import (
    NOT_BEGUN,
    REPLACE_MANY,
    ManyResult,
    Replace,
    ReplaceMany,
    replace_context,
)
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.errors import (
    DeadlineExceeded,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.normalising import decoded
from kubelore.yaml_vcs.restore_repository import Job, Outcome, RestoreRepository
from kubelore.yaml_vcs.restore_rules import CRDS, NAMESPACES, SECRETS
from kubelore.yaml_vcs.restoring import (
    Card,
    Item,
    Plan,
    Selection,
    card_of,
    existing_of,
    plan,
    prepare,
)

log = get_logger(__name__)

BATCH_ITEMS = 100
BATCH_BYTES = 2 * 1024 * 1024
BATCHES_AT_ONCE = 4
TOLD_EVERY_S = 0.5
PATIENCE_S = 120.0
"""How long one batch is tried again while nobody answers it; then the restore is left for later."""
_RETRY_S = 0.5
_SERVED_S = 30.0
"""How long a new CRD is waited for; after that its resources fail, and say why."""
AWAY = (Unavailable, DeadlineExceeded, TooManyRequests)
NOTHING_THERE = "nothing in the backup matches"


class Cancelled(Exception):
    """Somebody asked for the restore to end."""


@dataclass(slots=True)
class _Ready:
    """One manifest to be sent, and the rules by which it differs from the backup's."""

    item: Item
    write: Replace
    rules: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.write.manifest) + len(self.write.sealed)


@dataclass(slots=True)
class _Batch:
    """What is sent at once: to one cluster, under one rule for what exists."""

    cluster: str
    existing: Existing
    ready: list[_Ready] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.ready) >= BATCH_ITEMS or sum(one.size for one in self.ready) >= BATCH_BYTES


class Keys(msgspec.Struct, frozen=True):
    """What opens the values of Secrets in a backup, and to whom they are sealed on their way."""

    versions: Keyring
    clusters: Recipient


class Run:
    """Carries out one restore under the caller and the operation that are current. `told` hears of progress."""

    def __init__(
        self,
        job: Job,
        reader: BackupReader,
        repository: RestoreRepository,
        bus: Bus,
        keys: Keys,
        told: Callable[[Job], Awaitable[None]],
    ) -> None:
        self._job = job
        self._reader = reader
        self._repository = repository
        self._bus = bus
        self._keys = keys
        self._told = told
        self._counts: dict[str, int] = {}
        self._uids: dict[str, str] = {}
        self._owners: frozenset[str] = frozenset()
        self._to_come: set[tuple[str, str]] = set()
        """In a dry run: (cluster, namespace or type) that it would make."""
        self._new_types: list[tuple[str, str]] = []
        """(cluster, type) of CRDs that were made and may not be served yet."""
        self._last_told = 0.0
        self._cancelling = False
        sizes = (entry.objects for entry in reader.manifest.chunks)
        self._starts = [0, *itertools.accumulate(sizes)]
        """The number of the first record of each chunk."""

    async def carry_out(self) -> None:
        """Do what is left of it.

        Raises Cancelled, BackupFault for a backup that does not verify (nothing is
        written then), Invalid and NotFound for a plan that cannot be, and Unavailable
        or DeadlineExceeded for what can go on later.
        """
        asked = self._job.asked
        await self._tell(state="verifying")
        await self._reader.verify()
        made = await self._plan(Selection.of(asked))
        if not made.items:
            raise NotFound(NOTHING_THERE, remedy="Look at what it holds: kubelore backup get.")
        self._owners = made.owners
        done = await self._known()
        await self._tell(state="running", total=len(made.items))
        await self._record([_left_out(item) for item in made.items if item.rule and item.number not in done])
        for wave in made.waves():
            # What would be made in a dry run is known only from its answers, which come from dry runs again.
            left = wave if asked.dry_run else [item for item in wave if item.number not in done]
            if left:
                await self._wave(left)
            if self._cancelling:
                raise Cancelled
        self._counts = await self._repository.counts(self._job.id)
        await self._tell(force=True)

    def cancel(self) -> None:
        """Begin nothing more; what is under way is finished, so that its outcome is known."""
        self._cancelling = True

    async def _plan(self, selection: Selection) -> Plan:
        caller = current_caller()
        cards: list[Card] = []
        async for records in self._reader.chunks():
            cards += await asyncio.to_thread(_cards, len(cards), records)
        return await asyncio.to_thread(plan, cards, selection, lambda card: _may_have(caller, card))

    async def _known(self) -> set[int]:
        """The numbers on record from an earlier start, and what came of them."""
        known: set[int] = set()
        async for number, source_uid, uid in self._repository.done(self._job.id):
            known.add(number)
            if source_uid and uid:
                self._uids[source_uid] = uid
        if not self._job.asked.dry_run:
            self._counts = await self._repository.counts(self._job.id)
        return known

    async def _wave(self, items: Sequence[Item]) -> None:
        room = asyncio.Semaphore(BATCHES_AT_ONCE)

        async def send(batch: _Batch) -> None:
            try:
                await self._send(batch)
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as group, aclosing(self._batches(items)) as batches:
                async for batch in batches:
                    await room.acquire()
                    if self._cancelling:
                        break
                    group.create_task(send(batch))
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        await self._until_served()

    async def _batches(self, items: Sequence[Item]) -> AsyncGenerator[_Batch]:
        wanted = {item.number: item for item in items}
        chunks = {bisect.bisect_right(self._starts, number) - 1 for number in wanted}
        entries = [entry for entry in self._reader.manifest.chunks if entry.number in chunks]
        open_: dict[tuple[str, Existing], _Batch] = {}
        async for records in self._reader.chunks(lambda entry: entry.number in chunks):
            start = self._starts[entries.pop(0).number]
            numbered = [(wanted.get(number), one) for number, one in enumerate(records, start)]
            chosen = [(item, one) for item, one in numbered if item is not None]
            ready, failed = await asyncio.to_thread(self._prepared, chosen)
            await self._record(failed)
            for one in ready:
                key = one.item.target.cluster, existing_of(one.item.card.type, self._job.asked.existing)
                batch = open_.setdefault(key, _Batch(*key))
                batch.ready.append(one)
                if batch.full:
                    yield open_.pop(key)
        for batch in open_.values():
            yield batch

    def _prepared(self, chosen: Iterable[tuple[Item, Record]]) -> tuple[list[_Ready], list[Outcome]]:
        ready: list[_Ready] = []
        failed: list[Outcome] = []
        for item, record in chosen:
            try:
                ready.append(self._ready(item, record))
            except KubeloreError as error:
                failed.append(_failure(item, error))
        return ready, failed

    def _ready(self, item: Item, record: Record) -> _Ready:
        secret = item.card.type == SECRETS
        raw = with_values(record, self._keys.versions) if secret else record.object
        made = prepare(item, decoded(raw), self._job.asked.namespace_map, self._uids)
        manifest, id_ = msgspec.json.encode(made.object), str(item.target)
        if secret:
            sealed = self._keys.clusters.seal(manifest, context=replace_context(id_))
            write = Replace(id=id_, item=item.number, sealed=sealed, mode="either")
        else:
            write = Replace(id=id_, item=item.number, manifest=manifest, mode="either")
        return _Ready(item, write, made.rules)

    async def _send(self, batch: _Batch) -> None:
        told, asked = self._told_only(batch)
        results = await self._asked(batch, asked)
        rules = {one.item.number: one for one in batch.ready}
        outcomes = [_outcome(rules[result.item], result, self._job.asked.existing) for result in results]
        for one in outcomes:
            item = rules[one.number].item
            if one.uid and item.card.uid in self._owners:
                self._uids[item.card.uid] = one.uid
            place = item.target.cluster, item.target.name
            if self._job.asked.dry_run and one.result == "created" and item.card.type in (CRDS, NAMESPACES):
                self._to_come.add(place)
            elif item.card.type == CRDS and one.result in ("created", "changed"):
                self._new_types.append(place)
        await self._record([*told, *outcomes])

    def _told_only(self, batch: _Batch) -> tuple[list[Outcome], list[_Ready]]:
        """In a dry run: what the API server cannot be asked about yet, and the rest."""
        told: list[Outcome] = []
        asked: list[_Ready] = []
        for one in batch.ready:
            rule = self._comes_later(one.item)
            if not rule:
                asked.append(one)
                continue
            try:
                target = one.item.target
                current_caller().check_write(target.cluster, target.type, target.namespace)
                told.append(_about(one.item, "created", rules=[*one.rules, rule]))
            except KubeloreError as error:
                told.append(_failure(one.item, error))
        return told, asked

    def _comes_later(self, item: Item) -> str:
        if (item.target.cluster, item.target.namespace) in self._to_come:
            return "namespace-to-come"
        return "type-to-come" if (item.target.cluster, item.target.type) in self._to_come else ""

    async def _asked(self, batch: _Batch, ready: Sequence[_Ready]) -> list[ManyResult]:
        """What resource-ops made of it. What it did not begin, or does not know the end of, is sent again."""
        left = {one.item.number: one.write for one in ready}
        results: list[ManyResult] = []
        until = time.monotonic() + PATIENCE_S
        while left:
            request = ReplaceMany(
                cluster=batch.cluster,
                items=list(left.values()),
                on_existing=batch.existing,
                dry_run=self._job.asked.dry_run,
                reason=self._job.asked.reason,
                change_log=f"restored from backup {self._job.asked.backup_id}",
            )
            late = self._cancelling or time.monotonic() > until
            try:
                answered = (await self._bus.request(REPLACE_MANY, request)).results
            except AWAY:
                if late:
                    raise
                answered = []
            except Unauthenticated:
                raise
            except KubeloreError as error:
                answered = [_refused(write, error) for write in left.values()]
            ended = [one for one in answered if late or not (one.error == NOT_BEGUN or one.unknown)]
            results += ended
            for one in ended:
                left.pop(one.item, None)
            if left:
                await self._tell()
                await asyncio.sleep(_RETRY_S)
        return results

    async def _until_served(self) -> None:
        """Wait until the new types answer, so that their resources can follow."""
        until = time.monotonic() + _SERVED_S
        while self._new_types and not self._job.asked.dry_run:
            cluster, type_name = self._new_types.pop()
            probe = Export(cluster=cluster, type=type_name, limit=1)
            while True:
                try:
                    await self._bus.request(EXPORT, probe)
                    break
                except KubeloreError as error:
                    if self._cancelling or time.monotonic() > until:
                        log.warning("type not served", type=type_name, error=error.reason)
                        break
                await self._tell()
                await asyncio.sleep(_RETRY_S)

    async def _record(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        await self._repository.record(self._job.id, outcomes)
        for one in outcomes:
            self._counts[one.result] = self._counts.get(one.result, 0) + 1
        await self._tell()

    async def _tell(self, *, force: bool = False, **changes: object) -> None:
        """Write down how far it is, now and then, and see whether it is to end."""
        now = time.monotonic()
        if not (force or changes) and now - self._last_told < TOLD_EVERY_S:
            return
        self._last_told = now
        counts = dict(self._counts)
        self._job = await self._repository.update(self._job.id, counts=counts, **changes)
        self._cancelling = self._cancelling or self._job.cancelling
        await self._told(self._job)


def _cards(first: int, records: Sequence[Record]) -> list[Card]:
    return [
        card_of(number, one.cluster, one.type, decoded(one.object))
        for number, one in enumerate(records, first)
    ]


def _may_have(caller: Caller, card: Card) -> bool:
    """Whether the caller may have the values of a Secret where it was backed up."""
    return caller.namespaces(card.cluster, right="secrets").matches(card.namespace)


def _source(item: Item) -> str:
    card = item.card
    return f"{card.cluster}:{card.type}:{card.namespace}:{card.name}"


def _about(item: Item, result: str, **more: object) -> Outcome:
    known: Mapping[str, object] = {
        "number": item.number,
        "source": _source(item),
        "place": str(item.target),
        "source_uid": item.card.uid,
    }
    return msgspec.convert({**known, "result": result, **more}, Outcome)


def _left_out(item: Item) -> Outcome:
    return _about(item, "failed" if item.clash else "skipped", rules=[item.rule])


def _failure(item: Item, error: KubeloreError) -> Outcome:
    return _about(item, "failed", error=error.reason, detail=error.detail)


def _refused(write: Replace, error: KubeloreError) -> ManyResult:
    return ManyResult(id=write.id, item=write.item, result="failed", error=error.reason, detail=error.detail)


def _outcome(ready: _Ready, result: ManyResult, asked: Existing) -> Outcome:
    rules = list(ready.rules)
    if result.result == "skipped" and existing_of(ready.item.card.type, asked) != asked:
        rules.append("kept-as-is")
    detail = result.detail
    if result.fields:
        detail = f"{detail} (cannot be changed: {', '.join(result.fields)})"
    return _about(
        ready.item, result.result, rules=rules, uid=result.uid, error=result.error, detail=detail[:2000]
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group that says most: what cannot go on later before what can."""
    found = list(_flat(errors))
    return next((one for one in found if not isinstance(one, AWAY)), found[0])


def _flat(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in errors.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _flat(one)
        else:
            yield one
