"""One container's log as it is written, from a position to the end of its pod: nothing lost, nothing twice.

What a single `follow` of the log API does not survive is survived here: the
container's restarts (the rest of the former run comes first), a rotation after
which the kubelet's follow ends or stays silent, a lost connection, a restart of
the API server or the kubelet, and a node that has no inotify instances left,
whose logs are asked for every two seconds instead. What was written and could
not be read any more is a LogGap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import msgspec

from kubelore.common.contracts.containers import ContainerId, ContainerInfo
from kubelore.common.errors import BadRequest, Forbidden, KubeloreError, NotFound, Unauthenticated
from kubelore.common.reach import Reached
from kubelore.container_ops.lines import Cursor, LineSplitter, LogLine, Seen
from kubelore.container_ops.pods import Pod, containers_of, named_container, read_pod

RETRY_S = 0.5
SLOWEST_RETRY_S = 5.0
POLL_S = 2.0
"""How often a log is read that cannot be followed."""
POLLED_S = 60.0
"""After so long it is tried again to follow it."""
SETTLE_S = 0.25
"""What was written before a log is opened comes within this time."""
QUIET_S = 10.0
"""After so long without a line it is looked whether the follow missed one; then after twice as long, and so on."""
QUIETEST_S = 160.0

NoteKind = Literal["run", "waiting", "interrupted", "resumed", "polling", "failed", "ended"]


class LogGap(msgspec.Struct, frozen=True):
    """Lines written between two times (ns; 0: not known) that cannot be read: rotated away, or of a run removed."""

    after: int
    before: int
    why: str


class LogNote(msgspec.Struct, frozen=True):
    """What happened to the log, in words for a person. `run` is the restart count of the run it is about."""

    kind: NoteKind
    text: str
    run: int = 0


Followed = list[LogLine] | LogGap | LogNote


def follow_container(
    reached: Reached,
    target: ContainerId,
    *,
    cursor: Cursor | None = None,
    tail: int | None = None,
    since_time: str | None = None,
    previous: bool = False,
    uid: str = "",
) -> Following:
    """Follow a log from a cursor; without one from the last `tail` lines, from a time (RFC 3339), or all of it.

    `previous` begins with the former run, where it is kept. `uid` is the pod's:
    another pod of the same name is not followed. Iterating ends when the pod is
    gone or the container has finished for good; it raises NotFound when the pod
    has no such container, Forbidden and Unauthenticated. A cluster that cannot
    be reached is waited for, which a LogNote says.
    """
    return Following(reached, target, cursor or Cursor(), tail, since_time, previous=previous, uid=uid)


@dataclass(frozen=True, slots=True)
class _Run:
    """How the container stands: the number of the latest run whose log can be read, or will be."""

    number: int
    condition: Literal["waiting", "running", "terminated"]
    reason: str
    final: bool
    """Nothing will be written any more."""
    former: bool
    """Whether the run before it can be read too."""


class Following:
    """Iterate for lines, gaps and notes; `cursor` is the position after what was yielded last."""

    def __init__(
        self,
        reached: Reached,
        target: ContainerId,
        cursor: Cursor,
        tail: int | None,
        since_time: str | None,
        *,
        previous: bool,
        uid: str,
    ) -> None:
        self.target = target
        self.cursor = cursor
        self.uid = uid
        self._client = reached.client
        self._reached = reached
        self._tail = tail
        self._since_time = since_time
        self._previous = previous
        self._fresh = cursor == Cursor()
        """Nothing was read yet: tail and since hold."""
        self._read_whole = False
        """The cursor's run was read to its end."""
        self._poll_until = 0.0
        self._items = self._follow()

    def __aiter__(self) -> AsyncIterator[Followed]:
        return self

    async def __anext__(self) -> Followed:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End it, and the request to the API server with it."""
        await self._items.aclose()

    async def _follow(self) -> AsyncGenerator[Followed]:
        retry, told = RETRY_S, ""
        while True:
            try:
                run = await self._look()
                if run is None:
                    yield LogNote("ended", f"the pod {self.target.pod} is gone", self.cursor.run)
                    return
                if told.startswith("interrupted"):
                    yield LogNote("resumed", "the log is read again", run.number)
                async with aclosing(self._up_to(run)) as items:
                    async for item in items:
                        retry, told = RETRY_S, ""
                        yield item
                if run.final and self._read_whole and self.cursor.run == run.number:
                    yield LogNote("ended", f"the container {self.target.container} has finished", run.number)
                    return
                said = f"waiting: {run.reason or 'not started yet'}" if run.condition == "waiting" else ""
            except KubeloreError as error:
                if isinstance(error, Forbidden | Unauthenticated | _NoSuchContainer):
                    raise
                waits = isinstance(error, BadRequest | NotFound)
                said = f"{'waiting' if waits else 'interrupted'}: {error.detail}"
            if said and said != told:
                yield _note(said, self.cursor.run)
            told = said
            await asyncio.sleep(POLL_S if self._polls else retry)
            retry = min(retry * 1.5, SLOWEST_RETRY_S)

    @property
    def _polls(self) -> bool:
        return asyncio.get_running_loop().time() < self._poll_until

    async def _look(self) -> _Run | None:
        """How the container stands; None when its pod is gone."""
        try:
            async with self._reached.room:
                pod = await read_pod(self._reached, self.target)
        except NotFound:
            return None
        if self.uid and pod.metadata.uid != self.uid:
            return None
        self.uid = pod.metadata.uid
        try:
            self.target = named_container(pod, self.target)
        except NotFound as error:
            raise _NoSuchContainer(error.detail, remedy=error.remedy) from None
        infos = containers_of(pod, self.target).containers
        return _run(pod, next(one for one in infos if one.name == self.target.container))

    async def _up_to(self, run: _Run) -> AsyncGenerator[Followed]:
        """What is not read yet of former runs, then the latest one for as long as it is written."""
        if self._fresh and not self._read_whole and self.cursor.count == 0:
            self.cursor = Cursor(run=run.number - 1 if self._previous and run.former else run.number)
        async with aclosing(self._former(run)) as items:
            async for item in items:
                yield item
        if run.condition == "waiting" or (run.condition == "terminated" and self._read_whole):
            return
        before = self.cursor
        follow = run.condition == "running"
        async with aclosing(self._read(run, follow=follow and not self._polls)) as items:
            async for item in items:
                yield item
        # A kubelet that is killed ends a log like one that is read whole: only reading nothing more proves the end.
        self._read_whole = not follow and self.cursor == before

    async def _former(self, run: _Run) -> AsyncGenerator[Followed]:
        """Bring the cursor to the latest run: through the rest of the one before it, which alone is kept."""
        if self.cursor.run >= run.number:
            if self.cursor.run > run.number:
                self._begin(run.number)
            return
        wanted = self.cursor.run + 1 if self._read_whole else self.cursor.run
        if wanted < run.number:
            kept = run.number - 1 if run.former else run.number
            if wanted < kept:
                yield LogGap(self.cursor.at, 0, "the container has restarted, and the run's log is not kept")
            if kept > self.cursor.run:
                self._begin(kept)
            before = None
            while kept < run.number and self.cursor != before:
                before = self.cursor
                async with aclosing(self._read(run, previous=True)) as items:
                    async for item in items:
                        yield item
        self._begin(run.number)
        yield LogNote("run", f"the container has restarted: this is run {run.number + 1}", run.number)

    def _begin(self, run: int) -> None:
        self.cursor = Cursor(run=run)
        self._read_whole = self._fresh = False

    async def _read(
        self, run: _Run, *, follow: bool = False, previous: bool = False
    ) -> AsyncGenerator[Followed]:
        """One request: what comes after the cursor, which it moves."""
        splitter, seen = LineSplitter(), Seen(self.cursor)
        async with aclosing(self._chunks(follow=follow, previous=previous)) as chunks:
            async for chunk in chunks:
                lines = seen.unseen(splitter.feed(chunk)) if chunk else seen.settle()
                async with aclosing(self._given(run, seen, lines, previous=previous)) as items:
                    async for item in items:
                        yield item
                if seen.missing and not seen.trusted:
                    return
        lines = seen.unseen(splitter.finish()) + seen.settle()
        async with aclosing(self._given(run, seen, lines, previous=previous)) as items:
            async for item in items:
                yield item
        if splitter.said:
            yield self._understood(splitter.said)

    async def _given(
        self, run: _Run, seen: Seen, lines: list[LogLine], *, previous: bool
    ) -> AsyncGenerator[Followed]:
        """Lines, after the gap before them when the cursor's line was not met; none if this is another run's log."""
        if not lines:
            return
        if seen.missing and not seen.trusted:
            if not previous and not await self._still(run):
                return
            seen.trusted = True
            yield LogGap(self.cursor.at, lines[0].at, "the log was rotated meanwhile")
        self.cursor = self.cursor.moved(lines)
        self._fresh = False
        yield lines

    async def _still(self, run: _Run) -> bool:
        """Whether the latest run is this one: a kubelet serves the next run's log before the API server says so."""
        await asyncio.sleep(1.0)
        now = await self._look()
        return now is not None and now.number == run.number

    def _understood(self, said: Sequence[str]) -> LogNote:
        words = " ".join(said)
        if "too many open files" in words or "no space left on device" in words or "inotify" in words:
            self._poll_until = asyncio.get_running_loop().time() + POLLED_S
            return LogNote("polling", INOTIFY_WORDS, self.cursor.run)
        return LogNote("interrupted", f"the kubelet says: {words[:500]}", self.cursor.run)

    async def _chunks(self, *, follow: bool, previous: bool) -> AsyncGenerator[bytes]:
        """The log from the cursor's second on; an empty chunk when nothing comes for a moment.

        A follow ends when the log has a later line than it brought.
        """
        fresh = self._fresh and self.cursor.count == 0
        stream = self._client.logs(
            self.target.namespace,
            self.target.pod,
            self.target.container,
            follow=follow,
            previous=previous,
            timestamps=True,
            tail=self._tail if fresh else None,
            since_time=self.cursor.since_time if self.cursor.count else self._since_time if fresh else None,
        )
        async with aclosing(stream):
            if not follow:
                async for chunk in stream:
                    yield chunk
                return
            async with aclosing(self._watched(stream)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _watched(self, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        quiet = SETTLE_S
        waiting = asyncio.ensure_future(anext(stream, b""))
        try:
            while True:
                done, _ = await asyncio.wait((waiting,), timeout=quiet)
                if done:
                    chunk = waiting.result()
                    if not chunk:
                        return
                    waiting = asyncio.ensure_future(anext(stream, b""))
                    quiet = SETTLE_S
                    yield chunk
                elif quiet == SETTLE_S:
                    quiet = QUIET_S
                    yield b""
                else:
                    quiet = min(quiet * 2, QUIETEST_S)
                    if await self._missed() and not waiting.done():
                        return
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))

    async def _missed(self) -> bool:
        """Whether the log has a later line than the cursor, which has had a moment to come."""
        splitter = LineSplitter()
        lines: list[LogLine] = []
        async with self._reached.room:
            last = self._client.logs(
                self.target.namespace, self.target.pod, self.target.container, tail=1, timestamps=True
            )
            async with aclosing(last):
                async for chunk in last:
                    lines = splitter.feed(chunk) or lines
        if not lines or lines[-1].at <= self.cursor.at:
            return False
        await asyncio.sleep(1.0)
        return True


INOTIFY_WORDS = (
    "the node cannot watch another log (its limit of inotify instances, fs.inotify.max_user_instances,"
    " is used up): the log is asked for every two seconds instead"
)


class _NoSuchContainer(NotFound):
    pass


def _note(said: str, run: int) -> LogNote:
    kind, _, text = said.partition(": ")
    if kind == "waiting":
        return LogNote("waiting", f"the container has no log yet: {text}", run)
    return LogNote("interrupted", f"the log cannot be read now: {text}", run)


def _run(pod: Pod, info: ContainerInfo) -> _Run:
    # While a container waits for its restart, the API serves the run that ended as the current log and as the previous.
    over = info.condition == "waiting" and info.previous
    condition = "terminated" if over else info.condition
    restarts = pod.spec.restart_policy
    if info.kind == "init":
        final = info.condition == "terminated" and (info.exit_code == 0 or restarts == "Never")
    elif info.kind == "ephemeral":
        final = info.condition == "terminated"
    else:
        final = info.condition == "terminated" and (
            restarts == "Never" or (restarts == "OnFailure" and info.exit_code == 0)
        )
    final = final or (info.condition == "terminated" and pod.status.phase in ("Succeeded", "Failed"))
    return _Run(info.restarts, condition, info.reason, final, info.previous and not over)
