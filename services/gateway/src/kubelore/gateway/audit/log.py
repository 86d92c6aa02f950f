"""One process's chain of the audit log: entries are hung on it in batches, and its end is signed every minute.

While one batch is on its way to the database, what comes meanwhile gathers for
the next: a request waits for at most two writes, and a thousand requests share
them. Only one batch is under way, so that the acknowledged part of the chain
never has a hole.

A batch of which it is open whether it was written is written again, until it
is there; nothing else may take its numbers. Until then nothing can be added:
whoever wants to change something is refused, before any effect.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from kubelore.common.crypto.chain import Chain, Head, Link, canonical
from kubelore.common.errors import DeadlineExceeded, KubeloreError, Unavailable
from kubelore.common.telemetry import get_logger
from kubelore.gateway.audit.entries import Entry, Refusals
from kubelore.gateway.audit.heads import SCOPE, HeadStore
from kubelore.gateway.repository import AuditRepository, entry_id

log = get_logger(__name__)

BATCH = 500
MAX_WAITING = 5000
MAX_LATER = 1000
DEADLINE_S = 6.0
RETRY_S = 0.5
SIGN_EVERY_S = 60.0
SIGN_EVERY_ENTRIES = 1000
SWEEP_S = 1.0
CLOSE_S = 5.0

UNWRITABLE = "AuditUnavailable"

Told = Callable[[str, Entry], None]
"""Gets the id of every entry that was written, and what it says."""


class _Waiting(NamedTuple):
    entries: Sequence[Entry]
    done: asyncio.Future[list[str]] | None
    intent: bool = False


class _Batch(NamedTuple):
    waiting: Sequence[_Waiting]
    contents: Sequence[dict[str, Any]]
    links: Sequence[Link]
    ids: Sequence[str]

    def parts(self) -> Iterator[tuple[_Waiting, list[str]]]:
        """Each of those who wait, with the ids of its entries."""
        start = 0
        for waiting in self.waiting:
            yield waiting, list(self.ids[start : start + len(waiting.entries)])
            start += len(waiting.entries)


class AuditUnavailable(Unavailable):
    """The audit log cannot be written, so nothing may be changed."""

    reason = UNWRITABLE


class AuditLog:
    """The chain that this process writes. `run` does the writing; entries may be added at any time."""

    def __init__(
        self,
        repository: AuditRepository,
        heads: HeadStore,
        *,
        writer: str,
        told: Told = lambda _id, _entry: None,
        clock: Callable[[], float] = time.time,
        sign_every_s: float = SIGN_EVERY_S,
    ) -> None:
        self.chain = f"{int(clock() * 1000):x}-{secrets.token_hex(4)}"
        self.clock = clock
        self._repository = repository
        self._heads = heads
        self._writer = writer
        self._told = told
        self._sign_every_s = sign_every_s
        self._chain = Chain(SCOPE, self.chain)
        self._written = self._chain.genesis
        self._signed = self._chain.genesis
        self._serial = 0
        self._unsent: Head | None = None
        self._queue: deque[_Waiting] = deque()
        self._batch: _Batch | None = None
        self._waiting = 0
        self._later = 0
        self._dropped = 0
        self._closed_intents: set[str] = set()
        self._refusals = Refusals()
        self._wake = asyncio.Event()
        self._sign_now = asyncio.Event()
        self._signing = asyncio.Lock()
        self.opened = asyncio.Event()
        self._stuck = False

    @property
    def writable(self) -> bool:
        """Whether entries are written at the moment."""
        return self.opened.is_set() and not self._stuck

    async def intend(self, entries: Sequence[Entry]) -> list[str]:
        """Write what somebody is about to do; their ids. Raises AuditUnavailable: then it must not be done."""
        return await self._append(entries, intent=True)

    async def conclude(self, entries: Sequence[Entry]) -> None:
        """Write how it ended. Raises AuditUnavailable when that is not written yet; it is kept, and will be."""
        await self._append(entries, intent=False)

    def later(self, entry: Entry) -> None:
        """Write an entry that nobody waits for; past 1,000 of them they are only counted."""
        if self._later >= MAX_LATER:
            self._dropped += 1
            return
        self._put(_Waiting([entry], None))

    def refuse(self, entry: Entry) -> None:
        """Write that somebody was refused; what repeats within a minute becomes one entry with its count."""
        if (first := self._refusals.add(entry)) is not None:
            self.later(first)

    async def run(self) -> None:
        """Open the chain, then write and sign, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._open_and_write())
            tasks.create_task(self._sign_regularly())
            tasks.create_task(self._sweep())

    async def close(self) -> None:
        """After `run` has ended: write what is left, and sign the end of the chain. Gives up after 5 s."""
        for entry in self._refusals.due(float("inf")):
            self.later(entry)
        with suppress(TimeoutError, KubeloreError):
            async with asyncio.timeout(CLOSE_S):
                if not self.opened.is_set():
                    return
                while self._queue or self._batch:
                    await self._write_batch()
                await self._hide()
                await self.sign(closed=True)

    async def sign(self, *, closed: bool = False) -> None:
        """Put a head for what is written by now, if there is anything new. Raises what the blob store raises."""
        async with self._signing:
            while closed or self._unsent is not None or self._signed.number < self._written.number:
                head = self._unsent = self._unsent or self._head(closed=closed)
                # Taken: somebody else vouched for a part of this chain meanwhile.
                taken = not await self._heads.put(head)
                self._unsent = None
                self._serial = head.serial + 1
                if not taken:
                    self._signed = Link(head.number, head.hash)
                    closed = closed and not head.closed

    def _head(self, *, closed: bool) -> Head:
        return Head(
            chain=self.chain,
            serial=self._serial,
            number=self._written.number,
            hash=self._written.hash,
            at=self.clock(),
            writer=self._writer,
            closed=closed,
        )

    async def _append(self, entries: Sequence[Entry], *, intent: bool) -> list[str]:
        done: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(entries, done, intent)
        if not self.writable or self._waiting >= MAX_WAITING:
            self._kept(waiting)
            raise _unwritable()
        self._put(waiting)
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await done
        except TimeoutError:
            raise _unwritable() from None

    def _put(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._waiting += len(waiting.entries)
        self._later += waiting.done is None
        self._wake.set()

    async def _open_and_write(self) -> None:
        await self._until_done(self._open)
        self.opened.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._write_batch()

    async def _open(self) -> None:
        self._unsent = self._unsent or self._head(closed=False)
        await self._heads.put(self._unsent)
        self._unsent, self._serial = None, 1

    async def _write_batch(self) -> None:
        batch = self._batch = self._batch or self._linked(self._taken())

        async def write() -> None:
            try:
                await self._repository.append(self.chain, batch.links, batch.contents)
            except KubeloreError:
                if not self._stuck:
                    self._fail(batch)
                raise

        await self._until_done(write)
        self._batch, self._written = None, batch.links[-1]
        self._acknowledge(batch)
        if self._written.number - self._signed.number >= SIGN_EVERY_ENTRIES:
            self._sign_now.set()

    def _linked(self, waiting: Sequence[_Waiting]) -> _Batch:
        contents = [msgspec.to_builtins(entry) for one in waiting for entry in one.entries]
        links = [self._chain.append(canonical(content)) for content in contents]
        return _Batch(waiting, contents, links, [entry_id(self.chain, link.number) for link in links])

    def _taken(self) -> list[_Waiting]:
        batch, size = [], 0
        while self._queue and (not batch or size + len(self._queue[0].entries) <= BATCH):
            waiting = self._queue.popleft()
            batch.append(waiting)
            size += len(waiting.entries)
            self._later -= waiting.done is None
        self._waiting -= size
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            batch.append(
                _Waiting(
                    [Entry(at=self.clock(), action="audit.dropped", outcome="unknown", count=dropped)], None
                )
            )
        return batch

    def _acknowledge(self, batch: _Batch) -> None:
        for waiting, ids in batch.parts():
            if waiting.done is not None and waiting.done.cancelled():
                self._refused(waiting, ids)
            elif waiting.done is not None and not waiting.done.done():
                waiting.done.set_result(ids)
            for entry, id_ in zip(waiting.entries, ids, strict=True):
                if entry.closes:
                    self._closed_intents.add(entry.closes)
                if entry.status:
                    self._told(id_, entry)

    def _fail(self, batch: _Batch) -> None:
        """Nobody waits any longer: neither for this batch, which will be written, nor for what stands behind it."""
        self._stuck = True
        for waiting, ids in batch.parts():
            self._give_up(waiting)
            self._refused(waiting, ids)
        behind, self._queue = self._queue, deque()
        self._waiting = self._later = 0
        for waiting in behind:
            self._give_up(waiting)
            self._kept(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting.done is not None and not waiting.done.done():
            waiting.done.set_exception(_unwritable())
            # Whoever waited may have been cancelled meanwhile; an exception that nobody fetches is logged.
            waiting.done.exception()

    def _kept(self, waiting: _Waiting) -> None:
        """What is not part of the chain yet is written later; an intent as the refusal that it became."""
        if waiting.intent:
            self._refused(waiting, [""] * len(waiting.entries))
        else:
            for entry in waiting.entries:
                self.later(entry)

    def _refused(self, waiting: _Waiting, ids: Sequence[str]) -> None:
        """Close intents whose requests were refused, as nobody could tell them in time that they were written."""
        if waiting.intent:
            for entry, id_ in zip(waiting.entries, ids, strict=True):
                said = {"at": self.clock(), "status": 503, "reason": UNWRITABLE, "closes": id_}
                self.later(msgspec.structs.replace(entry, outcome="refused", **said))

    async def _until_done(self, write: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await write()
            except (Unavailable, DeadlineExceeded) as error:
                log.error("the audit log cannot be written", error=error.detail)
                await asyncio.sleep(RETRY_S)
            else:
                self._stuck = False
                return

    async def _hide(self) -> None:
        while self._closed_intents:
            chosen = list(self._closed_intents)[:BATCH]
            try:
                await self._repository.hide(chosen)
            except KubeloreError:
                # Lists see for themselves which intents have ended; this only spares them the look.
                if len(self._closed_intents) > MAX_WAITING:
                    self._closed_intents.clear()
                return
            self._closed_intents.difference_update(chosen)

    async def _sign_regularly(self) -> None:
        await self.opened.wait()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sign_every_s):
                    await self._sign_now.wait()
            self._sign_now.clear()
            try:
                await self.sign()
            except KubeloreError as error:
                log.error("the audit log cannot be signed", error=error.detail)
                await asyncio.sleep(RETRY_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self._hide()
            for entry in self._refusals.due(self.clock()):
                self.later(entry)


def _unwritable() -> AuditUnavailable:
    return AuditUnavailable(
        "the audit log cannot be written now, so nothing is changed",
        remedy="Try again in a moment; `kubelore status` tells whether MongoDB runs.",
        retry_after_s=1,
    )
