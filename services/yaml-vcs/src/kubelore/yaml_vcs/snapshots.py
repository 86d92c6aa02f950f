"""Whole namespaces at other times: what differs between two, and going back to one as a single plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import check_cluster_name, check_namespaces
from kubelore.common.contracts.rollbacks import (
    MAX_PLAN,
    DiffSnapshots,
    PlanItem,
    RollBackSnapshot,
    SnapshotChange,
    SnapshotDiff,
    SnapshotPlan,
)
from kubelore.common.errors import BadRequest, Conflict, KubeloreError, NotFound, TooLarge
from kubelore.common.mandates import Mandate, acting_under
from kubelore.yaml_vcs import rendering
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.history import GONE, Entry
from kubelore.yaml_vcs.repository import MAX_CHUNK, Resource, VersionRepository, resource_key
from kubelore.yaml_vcs.restore_rules import REASONS
from kubelore.yaml_vcs.reverting import Intent, refusal, with_remedy
from kubelore.yaml_vcs.snapshot_plans import NAMESPACES, Planned, name_of, plan, shown, waves
from kubelore.yaml_vcs.writing_back import ITEMS_EACH, Wish, WritingBack

MAX_OBJECTS = 10_000
"""Of one namespace, those included that are gone: reading them takes 0.3 ms each."""
LOOKED_AT = 1000
"""Objects that one page of differences goes through."""
MAX_PAGE = 200
PAGE_BYTES = 4 * 1024 * 1024
"""A page of differences ends behind the one that goes over it."""
REDACTED = "redacted: what it held then was taken out of its history"
NOT_KNOWN = "not-known: its history begins later, so nobody can say whether it was there"
AT_ONCE = 4
"""Writes at once, as of a batch to one cluster."""


class Snapshots:
    """The endpoints about namespaces."""

    def __init__(
        self, bus: Bus, repository: VersionRepository, histories: Histories, writing: WritingBack
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._histories = histories
        self._writing = writing

    async def diff(self, request: DiffSnapshots) -> SnapshotDiff:
        """A page of the objects that came, went or changed between two times, in no order that means anything."""
        current_caller().check_cluster(check_cluster_name(request.cluster))
        if not 1 <= request.limit <= MAX_PAGE:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_PAGE}")
        items: list[SnapshotChange] = []
        after, looked_at, size = _position(request.after), 0, 0
        async for key, resource in self._resources(request.cluster, request.namespace, after):
            if len(items) >= request.limit or looked_at >= LOOKED_AT or size > PAGE_BYTES:
                return SnapshotDiff(items, next=after.hex() if after else "")
            after, looked_at = key, looked_at + 1
            old = await self._then(key, request.since)
            new = await self._then(key, request.until)
            if old is None and new is None:
                continue
            if old is not None and new is not None and (old.number == new.number or old.hash == new.hash):
                continue
            items.append(await self._difference(resource, old, new))
            size += len(items[-1].diff_content)
        return SnapshotDiff(items)

    async def roll_back(self, request: RollBackSnapshot) -> SnapshotPlan:
        """Show the plan, or carry it out.

        Raises NotFound where nothing was recorded, Conflict when objects changed since
        the plan that is expected, TooLarge for more than 500 steps. What becomes of
        each object stands in its item.
        """
        caller = current_caller()
        caller.check_cluster(check_cluster_name(request.cluster))
        check_namespaces([request.namespace])
        if caller.namespaces(request.cluster, "operator").nothing:
            caller.check_write(request.cluster, "configmaps", request.namespace)
        async with acting_under(self._bus, Mandate.of_request()):
            planned, uids, unchanged = await self._plan(request)
            name = name_of(planned)
            if request.expected and request.expected != name and not request.force:
                raise Conflict(
                    f"objects in {request.cluster}/{request.namespace} changed since the plan was made",
                    remedy="Look at the plan again, or say `force` to carry out the one of now.",
                    code="changed-since-preview",
                    plan=name,
                )
            carrying = _Carrying(self._writing, request, uids)
            items = await carrying.run(planned)
        return SnapshotPlan(
            cluster=request.cluster,
            namespace=request.namespace,
            at=request.at,
            dry_run=request.dry_run,
            plan=name,
            items=items,
            unchanged=unchanged,
        )

    async def _plan(self, request: RollBackSnapshot) -> tuple[list[Planned], dict[str, str], int]:
        """The steps, the uids that owners have now by what they were, and how many objects stay as they are."""
        moved: list[_Moved] = []
        names: dict[str, str] = {}
        there: dict[str, str] = {}
        unchanged = seen = 0
        async for key, resource in self._resources(request.cluster, request.namespace, None):
            seen += 1
            if seen > MAX_OBJECTS:
                raise TooLarge(
                    f"{request.namespace} had more than {MAX_OBJECTS} objects",
                    remedy="Roll back its objects one by one.",
                )
            now = await self._repository.last(key)
            then = await self._then(key, request.at)
            here = None if now is None or now.kind in GONE else now
            names |= {one.uid: resource.id for one in (then, here) if one is not None}
            there |= {here.uid: here.uid} if here is not None else {}
            if then is not None and here is not None and then.number == here.number:
                unchanged += 1
            elif then is not None or here is not None:
                moved.append(_Moved(resource, then, await self._unknown(key, then, request.at)))
        intents = [*await self._home(request), *await self._intents(request.cluster, moved)]
        if not intents and not unchanged:
            raise NotFound(
                f"nothing is known of {request.cluster}/{request.namespace} at that time",
                remedy="`kubelore snapshot` shows what was recorded when.",
            )
        if len(intents) > MAX_PLAN:
            raise TooLarge(
                f"the plan has {len(intents)} steps, at most {MAX_PLAN} are taken at once",
                remedy="Roll back its objects one by one, or restore a backup.",
            )
        planned = plan(intents, names)
        return planned, there, unchanged + sum(one.step == "none" for one in intents)

    async def _home(self, request: RollBackSnapshot) -> list[Intent]:
        """The namespace itself, where it is gone. Raises Conflict while it is ending, and when nobody knows it."""
        resource = Resource.of(f"{request.cluster}:{NAMESPACES}::{request.namespace}")
        live = (await self._writing.live(request.cluster, [resource.id]))[resource.id]
        if live.object.get("metadata", {}).get("deletionTimestamp"):
            raise Conflict(
                f"the namespace {request.namespace} is being deleted",
                remedy="Wait until it is gone; the rollback then makes it anew.",
            )
        if live.there:
            return []
        then = await self._then(resource_key(resource.id), request.at)
        if then is None:
            raise NotFound(f"there was no namespace {request.namespace} in {request.cluster} at that time")
        content = await self._histories.content(then, resource.id)
        return [Intent(resource=resource, entry=then, content=content, live=live)]

    async def _intents(self, cluster: str, moved: list[_Moved]) -> list[Intent]:
        live = await self._writing.live(cluster, [resource.id for resource, _, _ in moved])
        intents: list[Intent] = []
        for resource, then, unknown in moved:
            here = live[resource.id]
            if unknown:
                intents.append(
                    Intent(resource=resource, entry=then, content=here.content, live=here, unknown=unknown)
                )
                continue
            content = self._writing.by_rules(resource, await self._content(then, resource.id), here)
            made = Intent(resource=resource, entry=then, content=content, live=here)
            if made.content or made.live.there:
                intents.append(made)
        return intents

    async def _then(self, key: bytes, at: float) -> Entry | None:
        """The version of an object that was in force at a time; None when it was not there."""
        entry = await self._repository.last(key, until=int(at * 1000))
        return None if entry is None or entry.kind in GONE or entry.kind == "missing" else entry

    async def _unknown(self, key: bytes, then: Entry | None, at: float) -> str:
        """Why nobody can say what an object was at a time; empty where its history tells, be it that it was not there.

        What was met as it is, and what retention took, says nothing of the time before.
        """
        if then is not None:
            return REDACTED if then.redaction is not None else ""
        last = await self._repository.last(key, until=int(at * 1000))
        if last is not None:
            return "" if last.kind in GONE else NOT_KNOWN
        first = await self._repository.all_of(key, limit=1)
        begins = bool(first) and first[0].number == 1 and first[0].kind == "created"
        return "" if begins else NOT_KNOWN

    async def _content(self, entry: Entry | None, id_: str) -> bytes:
        """What an object was; nothing where it was not there, or where that was taken out of its history."""
        if entry is None or entry.redaction is not None:
            return b""
        return await self._histories.content(entry, id_)

    async def _difference(self, resource: Resource, old: Entry | None, new: Entry | None) -> SnapshotChange:
        before, after = await self._content(old, resource.id), await self._content(new, resource.id)
        numbers = (old.number if old is not None else 0, new.number if new is not None else 0)
        names = tuple(f"{resource.id} version {number}" for number in numbers)
        return SnapshotChange(
            id=resource.id,
            change="added" if old is None else "removed" if new is None else "changed",
            from_version=numbers[0],
            to_version=numbers[1],
            diff_content=rendering.unified(
                rendering.yaml_of(before), rendering.yaml_of(after), (names[0], names[1])
            ),
            changes=rendering.changes(before, after),
        )

    async def _resources(
        self, cluster: str, namespace: str, after: bytes | None
    ) -> AsyncIterator[tuple[bytes, Resource]]:
        """The objects of a namespace that have a history and are the caller's to read, by key."""
        caller = current_caller()
        while True:
            found = await self._repository.resources(cluster, namespace=namespace, after=after)
            for key, resource in found:
                if caller.may_read(resource.cluster, resource.type, resource.namespace, resource.name):
                    yield key, resource
            if len(found) < MAX_CHUNK:
                return
            after = found[-1][0]


class _Moved(NamedTuple):
    """An object that is not what it was: its version of that time, or why that is not known."""

    resource: Resource
    then: Entry | None
    unknown: str


class _Carrying:
    """One plan under way: tried or carried out, wave by wave."""

    def __init__(self, writing: WritingBack, request: RollBackSnapshot, uids: dict[str, str]) -> None:
        self._writing = writing
        self._request = request
        self._uids = uids
        self._wish = Wish(dry_run=request.dry_run, reason=request.reason, change_log=request.change_log)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._stopped = False
        self._homeless = False
        """Whether the namespace is only about to be made, so that nothing in it can be tried."""

    async def run(self, planned: list[Planned]) -> list[PlanItem]:
        """What becomes of each step, in their order."""
        at = _iso(self._request.at)
        items = [shown(one, at) for one in planned]
        places = {one.intent.resource.id: number for number, one in enumerate(planned)}
        self._homeless = self._request.dry_run and any(
            one.intent.resource.type == NAMESPACES for one in planned
        )
        for wave in waves(planned):
            numbers = [places[one.intent.resource.id] for one in wave]
            await asyncio.gather(
                *(self._one(one, items[number], number) for one, number in zip(wave, numbers, strict=True))
            )
        return items

    async def _one(self, one: Planned, item: PlanItem, number: int) -> None:
        intent = one.intent
        if self._homeless and intent.resource.type != NAMESPACES:
            item.notes = [f"namespace-to-come: {REASONS['namespace-to-come']}"]
            return
        async with self._room:
            if self._stopped:
                item.skipped = True
                return
            try:
                written, notes = await self._writing.write(
                    intent, self._wish, item=number * ITEMS_EACH, uids=self._uids
                )
            except KubeloreError as error:
                self._failed(item, with_remedy(error, intent))
                return
        item.notes = list(notes)
        if self._request.dry_run:
            return
        item.result, item.operation, item.new_resource_version = written.result, written.operation, written.rv
        if intent.entry is not None and written.uid:
            self._uids[intent.entry.uid] = written.uid

    def _failed(self, item: PlanItem, error: KubeloreError) -> None:
        if self._request.dry_run:
            item.refusal = refusal(error)
        else:
            item.error = refusal(error)
            self._stopped = self._stopped or self._request.stop_on_error


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _position(text: str) -> bytes | None:
    if not text:
        return None
    if len(text) != 20 or any(character not in "0123456789abcdef" for character in text):
        raise BadRequest("`after` is no position in a snapshot")
    return bytes.fromhex(text)
