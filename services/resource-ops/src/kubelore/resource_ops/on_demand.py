"""What is not held whole, fetched when somebody asks for it: bounded in number and in time, forgotten soon after."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

from kubelore.common.contracts.resources import TypeState
from kubelore.common.errors import Forbidden, KubeloreError, NotFound
from kubelore.common.kube import ResourceType
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.namespace_watch import Status
from kubelore.resource_ops.rows import Row
from kubelore.resource_ops.type_watch import BREATH, PAGE, UNREADABLE, Surroundings

log = get_logger(__name__)

DEMAND_S = 0.4
"""The longest that an answer waits, so that it still is one within its second."""
FRESH_S = 5.0
FORGET_S = 30.0
MAX_LISTED = 10_000
MAX_OBJECTS = 500
AT_ONCE = 32
LENT_S = 5.0


class OnDemand:
    """A type that is not watched: listed when it is asked for, at most 10,000 objects, and forgotten 30 s later.

    Nothing of it is published. Its position stays where it was, so that a watch
    goes on from there when there is room again.
    """

    def __init__(
        self, resource_type: ResourceType, around: Surroundings, namespaces: Sequence[str], why: str
    ) -> None:
        self.type = resource_type
        self.status: Status = "live"
        self.why = why
        self.detail = why
        self.listed = False
        self._around = around
        self._namespaces = namespaces
        self._filled_at = 0.0
        self._asked_at = 0.0
        self._filling: asyncio.Task[None] | None = None

    def state(self) -> TypeState:
        """How it stands, for the observer's report."""
        status = "on-demand" if self.status == "live" else self.status
        return TypeState(
            type=self.type.name,
            status=status,
            count=self._around.model.count(self.type.name),
            detail=self.detail,
        )

    async def fill(self) -> None:
        """Have it listed a moment ago at most; waits 0.4 s, and says `syncing` when that was not enough."""
        self._asked_at = time.monotonic()
        if self._filling is None and self._asked_at - self._filled_at > FRESH_S:
            if not self.listed:
                self.status = "syncing"
            self._filling = asyncio.create_task(self._list(), name=f"list {self.type.name}")
            self._filling.add_done_callback(self._filled)
        if self._filling is not None:
            await asyncio.wait({self._filling}, timeout=DEMAND_S)

    def forget(self) -> None:
        """Let go of what was listed, when nobody has asked for it for a while."""
        if self.listed and self._filling is None and time.monotonic() - self._asked_at > FORGET_S:
            self._around.model.empty(self.type.name)
            self.listed, self._filled_at = False, 0.0

    def stop(self) -> None:
        """Give up a list that is under way."""
        if self._filling is not None:
            self._filling.cancel()

    def _filled(self, _: asyncio.Task[None]) -> None:
        self._filling = None

    async def _list(self) -> None:
        try:
            for namespace in self._namespaces:
                await self._list_pages(namespace)
        except KubeloreError as error:
            refused = isinstance(error, Forbidden | NotFound)
            self.status = "stale" if self.listed else "skipped" if refused else "error"
            self.detail = error.detail
        else:
            self.status, self.listed, self._filled_at = "live", True, time.monotonic()

    async def _list_pages(self, namespace: str) -> None:
        around, token, count = self._around, "", 0
        held = around.model.begin_list(self.type, namespace=namespace)
        async with around.first_lists:
            while True:
                page = await around.client.list(
                    self.type, namespace=namespace, limit=PAGE, continue_=token, timeout_s=10.0
                )
                for number, raw in enumerate(page.items):
                    try:
                        manifest = around.records.admit(self.type, raw)
                        held.add(manifest.raw, facts=manifest.facts)
                    except UNREADABLE as error:
                        log.warning("object passed over", type=self.type.name, detail=error.detail)
                    if number % BREATH == 0:
                        await asyncio.sleep(0)
                count, token = count + len(page.items), page.continue_
                if not token or count >= MAX_LISTED:
                    break
        held.finish(page.rv)
        self.detail = f"{self.why}; only the first {MAX_LISTED} are shown" if token else self.why


class Completion:
    """Makes rows that are held as metadata only whole for a moment, by fetching their objects.

    At most 500 for one answer, 32 at a time, within 0.4 s; a row whose object did
    not come in time, or has changed meanwhile, stays as it is.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._lent: deque[tuple[float, Row]] = deque()

    async def complete(self, rows: Iterable[Row]) -> None:
        """Fetch the objects of rows of this cluster that are not whole."""
        wanted = [row for row in rows if row.number in row.home.partial][:MAX_OBJECTS]
        tasks = [asyncio.create_task(self._fetch(row)) for row in wanted]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DEMAND_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def take_back(self) -> None:
        """Keep only the metadata again of what was fetched a while ago."""
        while self._lent and time.monotonic() - self._lent[0][0] > LENT_S:
            _, row = self._lent.popleft()
            self._around.model.shrink(row)

    async def _fetch(self, row: Row) -> None:
        model, home = self._around.model, row.home
        resource_type = model.types[home.type]
        try:
            async with self._slots:
                raw = await self._around.client.get(
                    resource_type, row.namespace or None, row.name, timeout_s=DEMAND_S
                )
            if model.complete(resource_type, self._around.records.admit(resource_type, raw).raw):
                self._lent.append((time.monotonic(), row))
        except KubeloreError as error:
            log.info("object not fetched", type=home.type, detail=error.detail)
