"""Whole histories, for who wants them all: which objects have one, and their versions from the oldest on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from kubelore.common.callers import current_caller
from kubelore.common.contracts import versions
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.timelines import (
    HistoryPage,
    ListObjects,
    ObjectPage,
    ReadHistory,
    VersionedObject,
    VersionStep,
)
from kubelore.common.contracts.versions import HistoryGap
from kubelore.common.errors import BadRequest
from kubelore.yaml_vcs import rendering
from kubelore.yaml_vcs.gaps import Gaps
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.history import MAIN, Entry
from kubelore.yaml_vcs.readable import readable
from kubelore.yaml_vcs.rendering import iso
from kubelore.yaml_vcs.repository import MAX_CHUNK, Resource, VersionRepository, resource_key

MAX_STEPS = 200
"""Versions of a page: at 1 ms of YAML each a fifth of a second."""
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends behind the version that goes over it."""


class Timelines:
    """The questions as methods; `histories` knows who may read what."""

    def __init__(self, repository: VersionRepository, histories: Histories) -> None:
        self._repository = repository
        self._histories = histories
        self._gaps = Gaps(repository)

    async def objects(self, request: ListObjects) -> ObjectPage:
        """A page of the objects that the caller may read and that have a history."""
        caller = current_caller()
        caller.check_cluster(check_cluster_name(request.cluster))
        if not 1 <= request.limit <= MAX_CHUNK:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_CHUNK}")
        after = _position(request.after) if request.after else None
        page: list[tuple[bytes, Resource]] = []
        found = readable(
            self._repository,
            caller,
            request.cluster,
            namespace=request.namespace,
            type_name=request.type,
            after=after,
        )
        async with aclosing(found):
            async for one in found:
                page.append(one)
                if len(page) > request.limit:
                    break
        shown = page[: request.limit]
        entries = await self._repository.heads([key for key, _ in shown])
        items = [_shown(one, entries[key]) for key, one in shown if key in entries]
        return ObjectPage(items, next=shown[-1][0].hex() if len(page) > request.limit else "")

    async def history(self, request: ReadHistory) -> HistoryPage:
        """Versions behind a number, with what each changed. Raises NotFound for an object without a history."""
        if not 1 <= request.limit <= MAX_STEPS:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_STEPS}")
        steps = await self._histories.walk(request.id, request.branch, request.after, request.limit + 1)
        last, before = await self._before(request)
        items: list[VersionStep] = []
        size = 0
        for version, content in steps[: request.limit]:
            if size > PAGE_BYTES:
                break
            text = await asyncio.to_thread(rendering.yaml_of, content)
            names = (f"{request.id} version {last}", f"{request.id} version {version.version}")
            items.append(
                VersionStep(
                    version=version, yaml_content=text, diff_content=rendering.unified(before, text, names)
                )
            )
            size += len(text) * 2
            before, last = text, version.version
        gaps = await self._gaps_of(request, [one.version.version for one in items])
        return HistoryPage(items, next=last if len(steps) > len(items) else None, gaps=gaps)

    async def _before(self, request: ReadHistory) -> tuple[int, str]:
        """The version that is kept before the page, and the object as it was then; 0 and empty where there is none."""
        if not request.after:
            return 0, ""
        branch = await self._histories.branch(request.id, request.branch)
        key = resource_key(request.id)
        # The one that `after` names may be pruned.
        found = await self._repository.page(
            key, branch, before=request.after + 1, since=0, until=None, limit=1
        )
        if not found:
            return 0, ""
        entry = found[0]
        held = (
            b"" if entry.redaction is not None else await self._histories.content(entry, request.id, branch)
        )
        return entry.number, rendering.yaml_of(held)

    async def _gaps_of(self, request: ReadHistory, numbers: list[int]) -> list[HistoryGap]:
        """What is not known between the versions of a page and behind them, with what late changes held."""
        if request.branch != versions.MAIN or not numbers:
            return []
        key = resource_key(request.id)
        entries = await self._repository.between(key, numbers[0], numbers[-1])
        resource = await self._histories.readable(request.id)
        first = not await self._repository.page(key, MAIN, before=numbers[0], since=0, until=None, limit=1)
        return await self._gaps.among(resource, entries, first=first, content=True)


def _shown(resource: Resource, entry: Entry) -> VersionedObject:
    return VersionedObject(
        id=resource.id,
        type=resource.type,
        namespace=resource.namespace,
        name=resource.name,
        live=resource.live,
        version=entry.number,
        commit_hash=entry.commit.hex(),
        created_at=iso(entry.at),
    )


def _position(text: str) -> bytes:
    try:
        position = bytes.fromhex(text)
    except ValueError:
        position = b""
    if len(position) != 10:
        raise BadRequest("`after` is no position among the objects")
    return position
