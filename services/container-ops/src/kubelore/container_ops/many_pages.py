"""Pages of many containers' logs as one, forward or backward in the order of their lines' times.

A page asks each container for a few lines behind its place, and gives those
that nothing which was not read can come before. Its position has a place for
each container, so that the next page neither repeats nor leaves out a line.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from kubelore.common.bus import Service
from kubelore.common.contracts.log_streams import (
    MAX_MANY_PAGE,
    READ_MANY_LOGS,
    ManyLogPage,
    ReadManyLogs,
    StreamLogs,
)
from kubelore.common.errors import BadRequest, KubeloreError, TooLarge
from kubelore.container_ops.house import House
from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_pages import Page, Reading, backward_page, forward_page
from kubelore.container_ops.log_stream import Chosen
from kubelore.container_ops.log_streams import check_tail, choose, first_of, may_read, words_of
from kubelore.container_ops.pod_watch import LoggedContainer, PodWatch
from kubelore.container_ops.positions import place_of
from kubelore.container_ops.rendering import Renderer

MAX_PAGED = 300
"""Containers of one page: each is asked by itself."""
AT_ONCE = 16
LEAST_LINES = 10
_DONE = "-"
_LAST = 1 << 63

Read = Callable[[LoggedContainer, str, int], Awaitable[Page]]


@dataclass(slots=True)
class _Part:
    """What a page has of one container."""

    container: LoggedContainer
    place: bytes
    position: str
    page: Page = field(default_factory=Page)
    taken: int = 0

    def keys(self, *, backward: bool) -> list[int]:
        """The time that each line goes by, which never goes back in the direction of reading."""
        found: list[int] = []
        reached = -_LAST
        for line in self.page.lines:
            reached = max(reached, -line.at if backward else line.at)
            found.append(reached)
        return found

    def bound(self, *, backward: bool) -> int:
        """Up to which time nothing that was not read can come before."""
        if not self.page.next:
            return _LAST
        at = Cursor.parse(self.page.next.partition(".")[0]).at
        return max([-at if backward else at, *self.keys(backward=backward)[-1:]])


class ManyPages:
    """Answers READ_MANY_LOGS."""

    def __init__(self, house: House, watch: PodWatch) -> None:
        self._house = house
        self._watch = watch

    def serve(self, service: Service) -> None:
        """Register the endpoint."""
        service.serve(READ_MANY_LOGS, self.read, max_concurrent=8)

    async def read(self, asked: ReadManyLogs) -> ManyLogPage:
        """One page. Raises BadRequest, NotFound, TooLarge, and what an API server refuses of all containers."""
        check_tail(asked.tail)
        if not 0 < asked.limit <= MAX_MANY_PAGE:
            raise BadRequest(f"limit is between 1 and {MAX_MANY_PAGE}")
        positions = _read_positions(asked.position) if asked.position else {}
        wanted = LineFilter(asked.filter)
        chosen = await choose(self._house.reach, asked.targets)
        if asked.position:
            return await self._page(asked, wanted, await self._containers(chosen), positions)
        async with self._house.journal.recording("log", first_of(chosen), words_of(asked.targets)) as entry:
            page = await self._page(asked, wanted, await self._containers(chosen), positions)
            entry.result |= {"containers": page.containers}
            return page

    async def _containers(self, chosen: Sequence[Chosen]) -> list[LoggedContainer]:
        found: list[LoggedContainer] = []
        for one in chosen:
            async with aclosing(self._watch.follow(one.cluster, one.selection)) as batches:
                async for batch in batches:
                    found += [seen.container for seen in batch if one.means(seen.container)]
                    break
        found = [one for one in found if may_read(one.id)]
        if len(found) > MAX_PAGED:
            raise TooLarge(
                f"{len(found)} containers are selected, a page is of at most {MAX_PAGED}",
                remedy="Narrow it by namespaces, labels or names, or read them as a stream.",
            )
        return found

    async def _page(
        self,
        asked: ReadManyLogs,
        wanted: LineFilter,
        containers: list[LoggedContainer],
        positions: dict[bytes, str],
    ) -> ManyLogPage:
        backward = asked.direction == "backward"
        make = backward_page if backward else forward_page

        async def read(container: LoggedContainer, position: str, limit: int) -> Page:
            async with self._house.reach.using(container.id.cluster) as reached:
                tail = asked.tail if not position else None
                return await make(
                    Reading(reached, container.id, wanted, limit, asked.previous, tail), position
                )

        parts = [_Part(one, place := _place(one), positions.get(place, "")) for one in containers]
        failed = await _fill(read, parts, asked.limit)
        rows = take(parts, asked.limit, backward=backward)
        await _move(read, parts)
        form = StreamLogs(targets=(), form="lines", plain=asked.plain, levels=True)
        renderer = Renderer(form)
        items = [item for part, line in rows for item in renderer.lines(part.container.id, [line])]
        more = any(part.position != _DONE for part in parts)
        return ManyLogPage(
            items=b",".join(items),
            next=_write_positions({part.place: part.position for part in parts}) if more else "",
            containers=len(containers),
            failed=failed,
        )


def take(parts: list[_Part], limit: int, *, backward: bool) -> list[tuple[_Part, LogLine]]:
    """The first lines of all parts in order, as far as nothing unread can come before; counts them in the parts."""
    bound = min((part.bound(backward=backward) for part in parts), default=_LAST)
    due = [
        (key, number, place)
        for number, part in enumerate(parts)
        for place, key in enumerate(part.keys(backward=backward))
        if key <= bound
    ]
    due.sort()
    for _, number, _ in due[:limit]:
        parts[number].taken += 1
    return [(parts[number], parts[number].page.lines[place]) for _, number, place in due[:limit]]


async def _fill(read: Read, parts: list[_Part], limit: int) -> dict[str, str]:
    """Read what is next of each; the containers that cannot be read now, and why. Raises when that is all of them."""
    room = asyncio.Semaphore(AT_ONCE)
    each = max(LEAST_LINES, min(limit, 4 * limit // max(1, len(parts))))
    failed: dict[str, str] = {}
    errors: list[KubeloreError] = []

    async def fill(part: _Part) -> None:
        async with room:
            try:
                part.page = await read(part.container, part.position, each)
            except KubeloreError as error:
                failed[str(part.container.id)] = error.detail
                errors.append(error)

    waiting = [part for part in parts if part.position != _DONE]
    await asyncio.gather(*(fill(part) for part in waiting))
    if errors and len(errors) == len(waiting):
        raise errors[0]
    return failed


async def _move(read: Read, parts: list[_Part]) -> None:
    """Set each part's position behind what was taken of it."""
    for part in parts:
        if part.position == _DONE:
            continue
        if part.taken == len(part.page.lines):
            part.position = part.page.next or _DONE
        elif part.taken:
            # Where a line lies that is followed by others is known to whoever reads up to it.
            page = await read(part.container, part.position, part.taken)
            part.position = page.next or _DONE


def _place(container: LoggedContainer) -> bytes:
    return place_of(container.id.cluster, container.pod_uid, container.id.container)


def _write_positions(positions: dict[bytes, str]) -> str:
    return base64.b85encode(msgspec.msgpack.encode(positions)).decode()


def _read_positions(text: str) -> dict[bytes, str]:
    try:
        return msgspec.msgpack.decode(base64.b85decode(text), type=dict[bytes, str])
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadRequest("that is no position in a stream of logs") from error
