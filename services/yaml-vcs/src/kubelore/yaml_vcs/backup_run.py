"""Making one backup: every list of every cluster, page by page, packed into sealed chunks as it comes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any

from kubelore.common.backups import About, BackupWriter, Manifest, Packer, Record, Scope, Shortfall
from kubelore.common.backups.folder import Sink
from kubelore.common.bus import Bus, Leases
from kubelore.common.callers import current_caller
from kubelore.common.contracts import resources
from kubelore.common.contracts.backups import MAX_SHORTFALLS, ClusterProgress, Missing
from kubelore.common.contracts.exports import EXPORT, Export, Exported, ExportPage
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.resources import ListTypes, TypeInfo
from kubelore.common.crypto import Keyring, recipient
from kubelore.common.errors import (
    DeadlineExceeded,
    Forbidden,
    Gone,
    IntegrityError,
    KubeloreError,
    Unauthenticated,
    Unavailable,
)
from kubelore.yaml_vcs.backup_repository import Job, now
from kubelore.yaml_vcs.backup_rules import SECRETS, Listing, listings, may_see_values

CLUSTERS_AT_ONCE = 3
LISTS_AT_ONCE = 2
"""Of one cluster; what a page takes is mostly the API server's time."""
PAGES_AT_ONCE = 4
"""Of one backup, under way or waiting to be packed: about 5 MB each."""
PAGE = 500
TRIES = 4
_PAUSE_S = 1.0
_RESTARTS = 3
"""How often a list is begun again whose state the API server has forgotten."""

_PASSING = (Unavailable, DeadlineExceeded)
_OWNER_S = 10.0


class BackupRun:
    """One backup being made; `progress` and `missing` are read by others while it runs."""

    def __init__(self, bus: Bus, leases: Leases, keyring: Keyring, job: Job) -> None:
        self._bus = bus
        self._leases = leases
        self._keyring = keyring
        self._job = job
        self._pages = asyncio.Semaphore(PAGES_AT_ONCE)
        self._clusters = asyncio.Semaphore(CLUSTERS_AT_ONCE)
        self.progress = {name: ClusterProgress(cluster=name) for name in job.clusters}
        self.missing: list[Missing] = []

    @property
    def objects(self) -> int:
        """How many objects are packed."""
        return sum(one.objects for one in self.progress.values())

    @property
    def bytes(self) -> int:
        """Bytes of their JSON."""
        return sum(one.bytes for one in self.progress.values())

    async def make(self, sink: Sink, before_manifest: Callable[[], Awaitable[None]]) -> Manifest:
        """Write all of it. `before_manifest` is awaited when only that is left; what it raises, ends it.

        Raises Unavailable when no cluster could be read, and what the sink raises.
        """
        async with BackupWriter(sink, self._keyring, self._job.id) as writer:
            await _all([self._cluster(name, writer) for name in self._job.clusters])
            if all(one.status == "failed" for one in self.progress.values()):
                raise Unavailable(
                    f"Nothing could be read: {self.missing[0].error}" if self.missing else "Nothing was read."
                )
            await before_manifest()
            return await writer.finish(self._about())

    def _about(self) -> About:
        job = self._job
        return About(
            name=job.name,
            created_at=job.created_at.isoformat(timespec="seconds"),
            completed_at=now().isoformat(timespec="seconds"),
            created_by=job.created_by,
            reason=job.reason,
            scope=Scope(clusters=job.clusters, namespaces=job.namespaces, types=job.types, labels=job.labels),
            shortfalls=[
                Shortfall(cluster=one.cluster, type=one.type, namespace=one.namespace, error=one.error)
                for one in self.missing
            ],
        )

    async def _cluster(self, cluster: str, writer: BackupWriter) -> None:
        progress = self.progress[cluster]
        async with self._clusters:
            progress.status = "running"
            try:
                wanted = await self._plan(cluster, progress)
                read = await self._lists(cluster, wanted, writer, progress)
            except (*_PASSING, Forbidden, Gone) as error:
                self._miss(cluster, error)
                read = False
            progress.status = "completed" if read else "failed"

    async def _plan(self, cluster: str, progress: ClusterProgress) -> dict[str, list[Listing]]:
        served = await self._served(cluster)
        job = self._job
        for name in sorted(set(job.types) - {found.name for found in served}):
            self._note(Missing(cluster=cluster, type=name, error="The cluster does not serve this type."))
        wanted: dict[str, list[Listing]] = defaultdict(list)
        for one in listings(served, types=job.types, namespaces=job.namespaces, labels=job.labels):
            wanted[one.type].append(one)
        progress.types = len(wanted)
        if not job.namespaces and not job.labels:
            progress.expected = sum(found.count for found in served if found.name in wanted)
        return wanted

    async def _served(self, cluster: str) -> list[TypeInfo]:
        """What the cluster serves, as its observer knows; waits a little for one."""
        until = asyncio.get_running_loop().time() + _OWNER_S
        while True:
            try:
                owner = (await self._leases.holders("observer.")).get(f"observer.{cluster}")
                if owner is None:
                    raise Unavailable(f"no observer holds {cluster}", remedy="Try again in a few seconds.")
                answer = await self._bus.request(
                    resources.TYPES, ListTypes([cluster]), target=owner, deadline_s=5.0
                )
                return answer.items
            except _PASSING:
                if asyncio.get_running_loop().time() + _PAUSE_S > until:
                    raise
                await asyncio.sleep(_PAUSE_S)

    async def _lists(
        self,
        cluster: str,
        wanted: dict[str, list[Listing]],
        writer: BackupWriter,
        progress: ClusterProgress,
    ) -> bool:
        """Whether anything could be listed, or there was nothing to list."""
        slots, packer = asyncio.Semaphore(LISTS_AT_ONCE), writer.packer(cluster)
        tried = read = 0

        async def one_type(of_type: list[Listing]) -> None:
            nonlocal tried, read
            async with slots:
                for listing in of_type:
                    whole = await self._listing(cluster, listing, packer, progress)
                    tried, read = tried + 1, read + whole
                progress.types_done += 1

        await _all([one_type(of_type) for of_type in wanted.values()])
        await packer.close()
        return read > 0 or tried == 0

    async def _listing(
        self, cluster: str, listing: Listing, packer: Packer, progress: ClusterProgress
    ) -> bool:
        """Pack one list whole, or note why it is not; whether it is."""
        seen: set[str] = set()
        async with aclosing(self._pages_of(cluster, listing)) as pages:
            while True:
                try:
                    items = await anext(pages, None)
                except (Unauthenticated, IntegrityError):
                    raise
                except KubeloreError as error:
                    self._miss(cluster, error, listing)
                    return False
                if items is None:
                    return True
                # A list that was begun again shows most objects a second time.
                records = [self._record(cluster, listing.type, one) for one in items if one.uid not in seen]
                seen.update(record.uid for record in records)
                if listing.only:
                    records = [record for record in records if record.name in listing.only]
                await packer.add(records)
                progress.objects += len(records)
                progress.bytes += sum(len(record.object) for record in records)

    async def _pages_of(self, cluster: str, listing: Listing) -> AsyncGenerator[list[Exported]]:
        secrets = listing.type == SECRETS and self._with_values(cluster, listing)
        asked = Export(
            cluster=cluster,
            type=listing.type,
            namespace=listing.namespace,
            labels=listing.labels,
            limit=PAGE,
            secrets=secrets,
        )
        restarts = 0
        while True:
            async with self._pages:
                try:
                    page = await self._page(asked)
                except Gone:
                    restarts += 1
                    if restarts > _RESTARTS:
                        raise
                    asked.continue_token = ""
                    continue
                yield page.items
            if not page.next:
                return
            asked.continue_token = page.next

    async def _page(self, asked: Export) -> ExportPage:
        for attempt in range(1, TRIES):
            try:
                return await self._bus.request(EXPORT, asked)
            except _PASSING:
                await asyncio.sleep(_PAUSE_S * attempt)
        return await self._bus.request(EXPORT, asked)

    def _with_values(self, cluster: str, listing: Listing) -> bool:
        caller = current_caller()
        may = may_see_values(caller, cluster, self._job.namespaces)
        if not may:
            error = f"Without their values: {caller.subject} does not have the right 'secrets' there."
            self._note(Missing(cluster=cluster, type=SECRETS, namespace=listing.namespace, error=error))
        return may

    def _record(self, cluster: str, type_name: str, item: Exported) -> Record:
        identity = ResourceId.parse(item.id)
        if item.sealed and item.sealed[4:12] != self._recipient_id():
            raise IntegrityError(
                f"The values of {item.id} are sealed to another keyring than the one that is to open them.",
                remedy="Give resource-ops the versions.pub that lies beside this service's keyring.",
            )
        return Record(
            cluster=cluster,
            type=type_name,
            namespace=identity.namespace,
            name=identity.name,
            uid=item.uid,
            rv=item.rv,
            object=item.object,
            sealed=item.sealed,
        )

    def _recipient_id(self) -> bytes:
        return recipient.recipient_id(self._keyring.recipient().public_key)

    def _miss(self, cluster: str, error: KubeloreError, listing: Listing | None = None) -> None:
        self._note(
            Missing(
                cluster=cluster,
                type=listing.type if listing else "",
                namespace=listing.namespace if listing else "",
                error=error.detail,
            )
        )

    def _note(self, missing: Missing) -> None:
        if missing in self.missing:
            return
        if len(self.missing) < MAX_SHORTFALLS:
            self.missing.append(missing)
        elif len(self.missing) == MAX_SHORTFALLS:
            self.missing.append(Missing(cluster=missing.cluster, error="And more that is not listed here."))


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run side by side; the first error ends all, and is raised as it is."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
