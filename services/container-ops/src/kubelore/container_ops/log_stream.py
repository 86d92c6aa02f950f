"""One reader's stream: a lane for each container, fed by a task, merged and rendered as fast as the reader takes it.

A reader that is slow holds up its own lanes: each stops asking its API server
for more when it holds its share of four megabytes.
"""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.log_streams import StreamLogs
from kubelore.common.errors import KubeloreError
from kubelore.common.reach import CredentialsChanged, Reach, Reached
from kubelore.container_ops.following import LogGap, LogNote, follow_container
from kubelore.container_ops.lines import Cursor, LineSplitter, LogLine, Seen
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.merging import LINES_AT_ONCE, Lane, Marker, Merge, Out
from kubelore.container_ops.pod_watch import LoggedContainer, PodWatch, Sighting
from kubelore.container_ops.positions import (
    MAX_CONTAINERS,
    Positions,
    place_of,
    read_positions,
    write_positions,
)
from kubelore.container_ops.rendering import Renderer, timestamp
from kubelore.container_ops.targets import PodSelection

HELD_BYTES = 4 * 1024 * 1024
LEAST_HELD = 32 * 1024
HEARTBEAT_S = 10.0
TICK_S = 0.05
FEW = 50
"""With more containers than these, lines are gathered for longer before they are sent."""
PACE_S = 0.05
SLOWER_PACE_S = 0.25

Send = Callable[[bytes], Awaitable[None]]


class Chosen(msgspec.Struct, frozen=True):
    """The containers of one cluster that are meant: of these pods, those with these names (`*` and `?`)."""

    cluster: str
    selection: PodSelection
    containers: tuple[str, ...] = ()
    pod: str = ""

    def means(self, container: LoggedContainer) -> bool:
        """Whether a container of the pods is meant."""
        name = container.id.container
        return not self.containers or any(fnmatch.fnmatchcase(name, glob) for glob in self.containers)


@dataclass(slots=True, eq=False)
class _Source:
    """Where a lane comes from."""

    container: LoggedContainer
    place: bytes
    room: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False


class ManyLogs:
    """Raises BadRequest for a filter or a position that is none. `run` it once."""

    def __init__(self, reach: Reach, watch: PodWatch, asked: StreamLogs, chosen: list[Chosen]) -> None:
        self._reach = reach
        self._watch = watch
        self._asked = asked
        self._chosen = chosen
        self._filter = LineFilter(asked.filter)
        self._after: Positions | None = read_positions(asked.after) if asked.after else None
        self._since = self._after.since if self._after is not None else asked.filter.since
        self._renderer = Renderer(asked)
        self._merge: Merge[_Source] = Merge()
        self._sources: dict[bytes, Lane[_Source]] = {}
        self._done: dict[bytes, Cursor] = {}
        """Where logs ended whose pods are still there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._failure: BaseException | None = None
        self._sighted = 0
        """Selections of which the first batch came."""
        self._left_out = 0
        self._notices: list[bytes] = []
        self.opened = 0
        self.sent = 0

    async def run(self, send: Send) -> None:
        """Send until everything has ended (or without `follow`, was read), or an error does."""
        for one in self._chosen:
            self._start(self._sight(one))
        try:
            await self._pump(send)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
        self._woken.set()

    async def _sight(self, chosen: Chosen) -> None:
        """Open a lane for each container that appears."""
        first = True
        async with aclosing(self._watch.follow(chosen.cluster, chosen.selection)) as batches:
            async for batch in batches:
                for one in batch:
                    if chosen.means(one.container):
                        self._see(one, first=first)
                if first:
                    first = False
                    self._sighted += 1
                    self._say_when_empty()
                    self._woken.set()
                if not self._asked.follow:
                    return

    def _say_when_empty(self) -> None:
        if self._sighted == len(self._chosen) and not self._sources:
            text = "no container that has run is selected" + (": waiting" if self._asked.follow else "")
            self._notices.append(self._renderer.event("note", {"kind": "none", "text": text}))

    def _see(self, sighting: Sighting, *, first: bool) -> None:
        container = sighting.container
        place = place_of(container.id.cluster, container.pod_uid, container.id.container)
        known = self._sources.get(place)
        if sighting.happening == "ended":
            self._done.pop(place, None)
            if known is not None:
                known.origin.gone = True
            return
        if known is not None or place in self._done or not self._may_read(container.id):
            return
        if len(self._sources) + len(self._done) >= MAX_CONTAINERS:
            self._left_out += 1
            if self._left_out == 1:
                text = f"more than {MAX_CONTAINERS} containers are selected: the others are left out"
                self._notices.append(self._renderer.event("note", {"kind": "limit", "text": text}))
            return
        self._open(container, place, first=first)

    def _may_read(self, target: ContainerId) -> bool:
        return current_caller().may_read(target.cluster, "pods", target.namespace, target.pod)

    def _open(self, container: LoggedContainer, place: bytes, *, first: bool) -> None:
        lane = Lane(_Source(container, place), asyncio.get_running_loop().time())
        cursor, tail = None, self._asked.tail if first else None
        if self._after is not None:
            # What is not known is new; what is known but was not opened begins as it should have.
            cursor = self._after.cursors.get(place)
            tail = self._asked.tail if cursor is None and place in self._after.cursors else None
        if cursor is not None:
            lane.cursor = cursor
        self._sources[place] = lane
        self._merge.lanes.append(lane)
        self.opened += 1
        self._start(self._feed(lane, cursor, tail))

    async def _feed(self, lane: Lane[_Source], cursor: Cursor | None, tail: int | None) -> None:
        cluster, loop = lane.origin.container.id.cluster, asyncio.get_running_loop()
        try:
            while True:
                with suppress(CredentialsChanged):
                    async with self._reach.streaming(cluster, resumes=self._asked.follow) as reached:
                        return await self._fill(lane, reached, cursor, tail)
                if lane.fed is not None:
                    cursor, tail = lane.fed, None
        except KubeloreError as error:
            lane.mark(LogNote("failed", error.detail), lane.cursor or Cursor(), loop.time())
        finally:
            lane.ended = True

    async def _fill(
        self, lane: Lane[_Source], reached: Reached, cursor: Cursor | None, tail: int | None
    ) -> None:
        loop = asyncio.get_running_loop()
        read = self._follow if self._asked.follow else self._read
        async with aclosing(read(reached, lane.origin.container, cursor, tail)) as items:
            async for item, at in items:
                if isinstance(item, list):
                    lane.feed(item, at, loop.time())
                else:
                    lane.mark(item, at, loop.time())
                self._woken.set()
                await self._until_room(lane)

    async def _until_room(self, lane: Lane[_Source]) -> None:
        """Wait while a lane holds more than its share."""
        room = lane.origin.room
        while (
            lane.held_bytes > max(LEAST_HELD, HELD_BYTES // len(self._merge.lanes)) or len(lane.batches) > 64
        ):
            room.clear()
            await room.wait()

    async def _follow(
        self, reached: Reached, container: LoggedContainer, cursor: Cursor | None, tail: int | None
    ) -> AsyncGenerator[tuple[list[LogLine] | LogGap | LogNote, Cursor]]:
        following = follow_container(
            reached,
            container.id,
            cursor=cursor,
            tail=tail,
            since_time=self._since_time(),
            previous=self._asked.previous and cursor is None,
            uid=container.pod_uid,
        )
        async with aclosing(following):
            async for item in following:
                yield item, following.cursor

    async def _read(
        self, reached: Reached, container: LoggedContainer, cursor: Cursor | None, tail: int | None
    ) -> AsyncGenerator[tuple[list[LogLine] | LogGap | LogNote, Cursor]]:
        """What is written by now."""
        at = cursor or Cursor(run=container.restarts)
        seen, splitter = Seen(at), LineSplitter()
        target = container.id
        chunks = reached.client.logs(
            target.namespace,
            target.pod,
            target.container,
            previous=self._asked.previous,
            tail=tail,
            since_time=at.since_time if at.count else self._since_time(),
            timestamps=True,
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                if lines := seen.unseen(splitter.feed(chunk)):
                    at = at.moved(lines)
                    yield lines, at
        if lines := seen.unseen(splitter.finish()) + seen.settle():
            yield lines, at.moved(lines)

    def _since_time(self) -> str | None:
        if not self._since:
            return None
        return datetime.fromtimestamp(self._since // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _pump(self, send: Send) -> None:
        """Merge, render and send, until there is nothing left or something failed."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            self._woken.clear()
            if self._failure is not None:
                raise self._failure
            outs = self._merge.take(loop.time(), time.time_ns()) if self._sighted == len(self._chosen) else []
            self._tidy(outs)
            if data := self._take_notices() + self._rendered(outs):
                await send(data)
                heard = loop.time()
            if self._finished():
                await send(self._renderer.event("end", {}, self._position()))
                return
            if loop.time() - heard > HEARTBEAT_S:
                await send(self._renderer.heartbeat(self._position()))
                heard = loop.time()
            await self._pause(outs)

    async def _pause(self, outs: list[Out[_Source]]) -> None:
        """Until there is something to do; with several lanes, for lines to gather too."""
        lanes = self._merge.lanes
        if outs:
            if len(lanes) > 1 and sum(len(out.lines) for out in outs) < LINES_AT_ONCE:
                await asyncio.sleep(PACE_S if len(lanes) <= FEW else SLOWER_PACE_S)
            else:
                await asyncio.sleep(0)
            return
        held = any(lane.batches for lane in lanes)
        try:
            async with asyncio.timeout(TICK_S if held else HEARTBEAT_S):
                await self._woken.wait()
        except TimeoutError:
            return
        if held:
            await asyncio.sleep(TICK_S / 2)

    def _finished(self) -> bool:
        everything = self._sighted == len(self._chosen) and not self._merge.lanes
        one = len(self._chosen) == 1 and bool(self._chosen[0].pod)
        return everything and (not self._asked.follow or (one and self.opened > 0))

    def _tidy(self, outs: list[Out[_Source]]) -> None:
        """Let lanes go on that have room again, and leave those that are through."""
        for out in outs:
            out.lane.origin.room.set()
        spent = [lane for lane in self._merge.lanes if lane.spent]
        for lane in spent:
            self._merge.lanes.remove(lane)
            source = lane.origin
            del self._sources[source.place]
            self._renderer.forget(source.container.id)
            if not source.gone:
                self._done[source.place] = lane.cursor or Cursor()

    def _take_notices(self) -> bytes:
        notices, self._notices = self._notices, []
        return b"".join(notices)

    def _rendered(self, outs: list[Out[_Source]]) -> bytes:
        """Lines in one batch, and what happened between them before or behind it."""
        before: list[bytes] = []
        items: list[bytes] = []
        for out in outs:
            target = out.lane.origin.container.id
            if out.marker is not None:
                before.append(self._told(target, out.marker))
                continue
            lines = out.lines
            if not self._filter.everything:
                lines = [line for line in lines if self._filter.matches(line)]
            if lines:
                items += self._renderer.lines(target, lines)
        self.sent += len(items)
        batch = self._renderer.batch(items, self._position()) if items else b""
        return b"".join(before) + batch

    def _told(self, target: ContainerId, marker: Marker) -> bytes:
        origin = {
            "cluster": target.cluster,
            "namespace": target.namespace,
            "pod": target.pod,
            "container": target.container,
        }
        if isinstance(marker, LogGap):
            times = {"after": marker.after, "before": marker.before}
            shown = {name: timestamp(at) for name, at in times.items() if at}
            text = f"lines of {target.pod}/{target.container} are missing: {marker.why}"
            return self._renderer.event("gap", {**origin, **shown, "why": marker.why, "text": text})
        return self._renderer.event(
            "note", {**origin, "kind": marker.kind, "text": marker.text, "run": marker.run}
        )

    def _position(self) -> str:
        now = asyncio.get_running_loop().time()
        cursors: dict[bytes, Cursor | None] = {
            place: lane.position(now) for place, lane in self._sources.items()
        }
        return write_positions(self._since, cursors | self._done)
