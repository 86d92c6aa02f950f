"""One resource type of one cluster (or of one of its namespaces): listed once, then watched from its checkpoint.

A (re)started watch lists to fill the read model, but follows the changes from
the checkpoint, so that what happened while nobody looked is published too.
Where the API server has compacted that away, a gap is published, then every
object as observed, then `synced`. See the change contract in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass

from kubelore.common.bus import LeaseLost
from kubelore.common.contracts.changes import UNPUBLISHED, Kind
from kubelore.common.contracts.resources import TypeState
from kubelore.common.errors import (
    BadRequest,
    DeadlineExceeded,
    Forbidden,
    Gone,
    Invalid,
    KubeloreError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    UpstreamError,
)
from kubelore.common.kube import KubeClient, ListPage, ResourceType, WatchEvent
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.change_log import ChangeLog
from kubelore.resource_ops.contact import Contact
from kubelore.resource_ops.namespace_watch import Status
from kubelore.resource_ops.positions import position_key
from kubelore.resource_ops.read_model import ClusterModel, Listing
from kubelore.resource_ops.records import Manifest, RecordMaker
from kubelore.resource_ops.replay import Replay
from kubelore.resource_ops.rounds import Pause
from kubelore.resource_ops.rows import older, version

log = get_logger(__name__)

PAGE = 500
BREATH = 25
"""Objects of a page, or events of a watch, after which others get their turn; each may have a megabyte."""
LEAST_PAGE = 20
SKIPPED_RETRY_S = 60.0
REOPEN_LIMIT_S = 10.0
RELIST_LIMIT_S = 60.0
_DEFINITIONS = ("customresourcedefinitions.apiextensions.k8s.io", "apiservices.apiregistration.k8s.io")
UNREADABLE = (Invalid, UpstreamError, TooLarge, BadRequest)
"""What is wrong with one object for good; anything else may pass."""
_KINDS: dict[str, Kind] = {"ADDED": "created", "MODIFIED": "updated", "DELETED": "deleted"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the watches of one cluster share."""

    client: KubeClient
    contact: Contact
    model: ClusterModel
    changes: ChangeLog
    records: RecordMaker
    first_lists: asyncio.Semaphore
    definitions_changed: asyncio.Event


def published(type_name: str) -> bool:
    """Whether changes of a type are published, or only its read model is kept."""
    return type_name not in UNPUBLISHED


class TypeWatch:
    """Keeps the read model and the change log of one type in step with the API server.

    `namespace` limits it to one; empty means all, and cluster-scoped types.
    `interrupted`: an earlier first list of the type was published in part.
    `refill`: what the model holds of it came another way (in another version),
    so the list replaces it.
    """

    def __init__(
        self,
        resource_type: ResourceType,
        around: Surroundings,
        *,
        namespace: str = "",
        interrupted: bool = False,
        refill: bool = False,
    ) -> None:
        self.type = resource_type
        self.namespace = namespace
        self.key = position_key(resource_type.name, namespace)
        self.status: Status = "syncing"
        self.detail = ""
        self.rv = ""
        self._around = around
        self._publishes = published(resource_type.name)
        self._checkpoint = around.changes.positions.get(self.key, "") if self._publishes else ""
        self._lost = interrupted
        self._refill = refill
        self.listed = False
        """Whether the model has held the whole type once."""
        self._page = PAGE
        self._replay = Replay()
        self._setbacks = 0
        self._relists = 0
        self._unreadable = 0
        self._pausing = Pause()
        self._stuck = False
        """Whether an event has arrived that could not be taken yet: it will come again."""

    def state(self) -> TypeState:
        """How this type stands, for the observer's report."""
        count = self._around.model.count(self.type.name, self.namespace)
        return TypeState(type=self.type.name, status=self.status, count=count, rv=self.rv, detail=self.detail)

    @property
    def unsettled(self) -> bool:
        """Whether it is about to find out how it stands: it lists, or was told to try again and has not begun."""
        return self.status == "syncing" or (self._pausing.cut and self.status != "live")

    def hurry(self) -> None:
        """Try again now what could not be read, rather than in a minute."""
        if self.status not in ("live", "syncing"):
            self._pausing.cut_short()

    async def run(self) -> None:
        """List and watch until cancelled; raises only what ends the whole observer (LeaseLost)."""
        while True:
            try:
                await self._follow()
            except LeaseLost:
                raise
            except Gone as error:
                await self._compacted(error)
            except (Forbidden, NotFound, Unsupported) as error:
                await self._refused(error)
            except KubeloreError as error:
                await self._wait_out(error)
            except Exception as error:  # noqa: BLE001 - the task's boundary: one type must not stop the others
                await self._wait_out(_unexpected(self.type.name, error))

    def _report(self, status: Status, detail: str = "") -> None:
        self.status, self.detail = status, detail

    def _report_live(self) -> None:
        self._report("live", f"{self._unreadable} objects could not be read" if self._unreadable else "")

    async def _compacted(self, error: Gone) -> None:
        """A watch's position is gone: list again, as lost. A list whose pages expired only starts over.

        At once the first time, ever later when it does not help: each repetition
        costs the API server a whole list, and consumers a gap.
        """
        if self.rv:
            self._lost, self._checkpoint, self.rv = True, self.rv, ""
            log.info(
                "history compacted away", type=self.type.name, after=self._checkpoint, detail=error.detail
            )
        self._relists = min(self._relists + 1, 10)
        if self._relists > 1:
            self._report("stale" if self.listed else "syncing", error.detail)
            await asyncio.sleep(_jittered(min(0.5 * 2**self._relists, RELIST_LIMIT_S)))

    async def _refused(self, error: KubeloreError) -> None:
        """The type may not be read, or is not there. What is held of it is only as it once was."""
        self._report("stale" if self.listed else "skipped", error.detail)
        if isinstance(error, NotFound):
            self._around.definitions_changed.set()
        await self._pausing.wait(SKIPPED_RETRY_S)

    async def _wait_out(self, error: KubeloreError) -> None:
        contact = self._around.contact
        wrong = isinstance(error, Unauthenticated) or not self.listed
        self._report("error" if wrong else "stale", error.detail)
        if isinstance(error, Unavailable | DeadlineExceeded | Unauthenticated):
            contact.suspect()
        retry_after = float(error.extra.get("retry_after_s", 0) or 0)
        await self._pausing.wait(min(max(retry_after, self._backoff()), 60.0))
        await contact.reachable.wait()

    def _backoff(self) -> float:
        self._setbacks = min(self._setbacks + 1, 7)
        return _jittered(min(0.1 * 2**self._setbacks, REOPEN_LIMIT_S))

    async def _follow(self) -> None:
        if not self.rv:
            await self._list()
        elif self.status != "live":
            # A watch that is refused slowly would look live until then, so something small is asked first.
            await self._around.client.list(self.type, namespace=self.namespace, limit=1)
        # Said before the first event, since a quiet type may have none for a minute.
        if not self._stuck:
            self._report_live()
        opened, taken = time.monotonic(), 0
        stream = self._around.client.watch(self.type, namespace=self.namespace, rv=self.rv)
        async with aclosing(stream) as events:
            async for event in events:
                self._stuck = True
                self._around.contact.heard()
                await self._take(event)
                self._setbacks = self._relists = 0
                self._stuck = False
                if self.status != "live":
                    self._report_live()
                taken += 1
                if taken % BREATH == 0:
                    await asyncio.sleep(0)
        if time.monotonic() - opened < 1.0:
            await asyncio.sleep(random.uniform(0.2, 1.0) if taken else self._backoff())  # noqa: S311

    async def _list(self) -> None:
        around = self._around
        async with around.first_lists:
            if self.status not in ("stale", "error"):
                self._report("syncing")
            publish = self._publishes and (self._lost or not self._checkpoint)
            listed_rv = await self._list_pages(publish)
        if publish:
            count = around.model.count(self.type.name, self.namespace)
            synced = around.records.synced(self.type.name, listed_rv, count, self.namespace)
            await around.changes.append(synced, self.key)
        catch_up = self._checkpoint if self._publishes and not publish else ""
        if catch_up and older(version(listed_rv), version(catch_up)):
            self._lost = self._refill = True
            raise Gone(f"{self.type.name} went back behind what was published of it")
        self.rv = catch_up or listed_rv
        self._replay = Replay(listed_rv if catch_up else "")
        self._lost = self._refill = False
        self.listed = True

    async def _list_pages(self, publish: bool) -> str:
        """Read every page into the model; returns the list's resourceVersion."""
        around, token = self._around, ""
        held = around.model.begin_list(self.type, namespace=self.namespace, regressed=self._refill)
        self._unreadable = 0
        while True:
            page = await self._read_page(token)
            if publish and not token:
                await self._open_publishing()
            for number, raw in enumerate(page.items):
                await self._admit(held, raw, publish)
                if number % BREATH == 0:
                    await asyncio.sleep(0)
            token = page.continue_
            if not token:
                held.finish(page.rv)
                self._page = PAGE
                return page.rv

    async def _read_page(self, token: str) -> ListPage:
        try:
            page = await self._around.client.list(
                self.type, namespace=self.namespace, limit=self._page, continue_=token
            )
        except (TooLarge, DeadlineExceeded):
            self._page = max(self._page // 5, LEAST_PAGE)
            raise
        self._around.contact.heard()
        return page

    async def _open_publishing(self) -> None:
        """Once the first page is there: from now on, and until `synced`, a list that starts over is a gap."""
        around = self._around
        if self._lost:
            gap = around.records.gap(self.type.name, self._checkpoint, self.namespace)
            await around.changes.append(gap, self.key)
        self._lost = True

    async def _admit(self, held: Listing, raw: bytes, publish: bool) -> None:
        around = self._around
        try:
            manifest = around.records.admit(self.type, raw)
            held.add(manifest.raw, manifest.hmacs, manifest.facts)
            if publish:
                record = await around.records.change(self.type, manifest, "observed")
                await around.changes.append(record, self.key)
        except UNREADABLE as error:
            self._pass_over(error)

    def _pass_over(self, error: KubeloreError) -> None:
        """One object that cannot be read or sent must not stop those behind it; it is said instead."""
        self._unreadable += 1
        log.warning(
            "object passed over",
            cluster=self._around.records.cluster,
            type=self.type.name,
            detail=error.detail,
        )
        self._report(self.status, f"an object could not be read: {error.detail}")

    async def _take(self, event: WatchEvent) -> None:
        around = self._around
        if event.kind == "BOOKMARK":
            self.rv = event.rv or self.rv
            if self._publishes and event.rv:
                around.changes.bookmark(self.key, event.rv)
            return
        try:
            manifest = around.records.admit(self.type, event.object)
            await self._record(manifest, _KINDS[event.kind])
        except UNREADABLE as error:
            self._pass_over(error)
        self.rv = event.rv or self.rv
        if self.type.name in _DEFINITIONS:
            around.definitions_changed.set()

    async def _record(self, manifest: Manifest, kind: Kind) -> None:
        around, was = self._around, None
        if kind == "deleted":
            old_rv = around.model.delete(self.type, manifest.meta)
        else:
            upserted = around.model.upsert(self.type, manifest.raw, manifest.hmacs, manifest.facts)
            was = upserted.was
            old_rv = upserted.old_rv if upserted.kind == "updated" else ""
        if self._publishes:
            if (before := self._replay.pass_by(self.type.name, manifest)) is not None:
                old_rv, was = before.rv, before.was
            change = await around.records.change(self.type, manifest, kind, old_rv=old_rv, was=was)
            await around.changes.append(change, self.key)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311


def _unexpected(type_name: str, error: Exception) -> KubeloreError:
    """Log an error nobody expected, and make the one that may be shown."""
    error_id = secrets.token_hex(6)
    log.error("type not followed", type=type_name, error_id=error_id, exc_info=error)
    return KubeloreError(f"unexpected error {error_id}", remedy="Look for this id in the service's log.")
