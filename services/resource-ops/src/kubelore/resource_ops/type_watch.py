"""One resource type of one cluster: listed once, then watched from its checkpoint.

A (re)started watch lists to fill the read model, but follows the changes from
the checkpoint, so that what happened while nobody looked is published too.
Where the API server has compacted that away, a gap is published, then every
object as observed, then `synced`. See the change contract in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from kubelore.common.bus import LeaseLost
from kubelore.common.contracts.changes import Gap, Kind, Synced
from kubelore.common.contracts.resources import TypeState
from kubelore.common.errors import Forbidden, Gone, KubeloreError, NotFound, Unauthenticated, Unsupported
from kubelore.common.kube import KubeClient, ResourceType, WatchEvent
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.change_log import ChangeLog
from kubelore.resource_ops.contact import Contact
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.records import Manifest, RecordMaker

log = get_logger(__name__)

UNPUBLISHED = frozenset(
    {
        "leases.coordination.k8s.io",
        "events",
        "events.events.k8s.io",
        "endpoints",
        "endpointslices.discovery.k8s.io",
    }
)
"""Types that are read but not published: they change all the time and tell nothing a person would restore."""

PAGE = 500
SKIPPED_RETRY_S = 60.0
REOPEN_LIMIT_S = 10.0
_KINDS: dict[str, Kind] = {"ADDED": "created", "MODIFIED": "updated", "DELETED": "deleted"}

Status = Literal["syncing", "live", "stale", "skipped", "error"]


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


class TypeWatch:
    """Keeps the read model and the change log of one type in step with the API server."""

    def __init__(self, resource_type: ResourceType, around: Surroundings) -> None:
        self.type = resource_type
        self.status: Status = "syncing"
        self.detail = ""
        self.rv = ""
        self._around = around
        self._publishes = resource_type.name not in UNPUBLISHED
        self._checkpoint = around.changes.positions.get(resource_type.name, "") if self._publishes else ""
        self._lost = False
        self._quick_ends = 0

    def state(self) -> TypeState:
        """How this type stands, for the observer's report."""
        count = self._around.model.count(self.type.name)
        return TypeState(type=self.type.name, status=self.status, count=count, rv=self.rv, detail=self.detail)

    async def run(self) -> None:
        """List and watch until cancelled; raises only what ends the whole observer (LeaseLost)."""
        while True:
            try:
                await self._follow()
            except LeaseLost:
                raise
            except Gone as error:
                self._compacted(error)
            except (Forbidden, NotFound, Unsupported) as error:
                self._report("skipped", error.detail)
                await asyncio.sleep(SKIPPED_RETRY_S)
            except KubeloreError as error:
                await self._wait_out(error)

    async def withdraw(self) -> None:
        """The type is no longer served: to consumers that is a gap and an empty list."""
        around = self._around
        around.model.drop_type(self.type.name)
        if self._publishes and self.type.name in around.changes.positions:
            await self._announce_gap(around.changes.positions[self.type.name])
            await self._announce_synced(self.rv, 0)
            around.changes.forget(self.type.name)

    def _compacted(self, error: Gone) -> None:
        """A watch's position is gone: list again, as lost. A list whose pages expired only starts over."""
        if self.rv:
            self._lost, self._checkpoint, self.rv = True, self.rv, ""
            log.info(
                "history compacted away", type=self.type.name, after=self._checkpoint, detail=error.detail
            )

    def _report(self, status: Status, detail: str = "") -> None:
        self.status, self.detail = status, detail

    async def _wait_out(self, error: KubeloreError) -> None:
        contact = self._around.contact
        self._report("error" if isinstance(error, Unauthenticated) else "stale", error.detail)
        contact.suspect()
        retry_after = float(error.extra.get("retry_after_s", 0) or 0)
        self._quick_ends = min(self._quick_ends + 1, 6)
        backoff = max(retry_after, min(0.1 * 2**self._quick_ends, REOPEN_LIMIT_S) * random.uniform(0.5, 1.0))  # noqa: S311
        await asyncio.sleep(min(backoff, 60.0))
        await contact.reachable.wait()

    async def _follow(self) -> None:
        if not self.rv:
            await self._list()
        opened = time.monotonic()
        watch = self._around.client.watch(self.type, rv=self.rv)
        # Said before the first event, since a quiet type may have none for a minute; a refusal comes at once.
        self._report("live")
        async with aclosing(watch) as events:
            async for event in events:
                self._around.contact.heard()
                self._quick_ends = 0
                await self._take(event)
        if time.monotonic() - opened < 1.0:
            await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311

    async def _list(self) -> None:
        around, name = self._around, self.type.name
        async with around.first_lists:
            if self.status != "stale":
                self._report("syncing")
            first_sight = self._publishes and not self._checkpoint
            publish = self._publishes and (first_sight or self._lost)
            if publish and self._lost:
                await self._announce_gap(self._checkpoint)
            listed_rv = await self._list_pages(publish)
        if publish:
            await self._announce_synced(listed_rv, around.model.count(name))
        catch_up = self._checkpoint if self._publishes and not publish else ""
        self.rv = catch_up or listed_rv
        self._lost = False
        self._report("live")

    async def _list_pages(self, publish: bool) -> str:
        """Read every page into the model; returns the list's resourceVersion."""
        around, token = self._around, ""
        held = around.model.begin_list(self.type)
        while True:
            page = await around.client.list(self.type, limit=PAGE, continue_=token)
            around.contact.heard()
            for raw in page.items:
                manifest = around.records.admit(self.type, raw)
                held.add(manifest.raw)
                if publish:
                    await around.changes.append(await around.records.change(self.type, manifest, "observed"))
            token = page.continue_
            if not token:
                held.finish(page.rv)
                return page.rv

    async def _take(self, event: WatchEvent) -> None:
        around = self._around
        if event.kind == "BOOKMARK":
            self.rv = event.rv
            if self._publishes:
                around.changes.bookmark(self.type.name, event.rv)
            return
        manifest = around.records.admit(self.type, event.object)
        kind = _KINDS[event.kind]
        await self._record(manifest, kind)
        self.rv = event.rv
        if self.type.name in (
            "customresourcedefinitions.apiextensions.k8s.io",
            "apiservices.apiregistration.k8s.io",
        ):
            around.definitions_changed.set()

    async def _record(self, manifest: Manifest, kind: Kind) -> None:
        around = self._around
        if kind == "deleted":
            old_rv, was = around.model.delete(self.type, manifest.meta), None
        else:
            upserted = around.model.upsert(self.type, manifest.raw)
            old_rv, was = upserted.old_rv, upserted.was
        if self._publishes:
            change = await around.records.change(self.type, manifest, kind, old_rv=old_rv, was=was)
            await around.changes.append(change)

    async def _announce_gap(self, after_rv: str) -> None:
        records = self._around.records
        await self._around.changes.append(
            Gap(
                cluster=records.cluster,
                incarnation=records.incarnation,
                type=self.type.name,
                after_rv=after_rv,
                at=time.time(),
            )
        )

    async def _announce_synced(self, rv: str, count: int) -> None:
        records = self._around.records
        await self._around.changes.append(
            Synced(
                cluster=records.cluster,
                incarnation=records.incarnation,
                type=self.type.name,
                rv=rv,
                count=count,
                at=time.time(),
            )
        )
