"""One terminal: a command in a container, what it showed last, and who is attached to it.

It outlives the connections of those who look at it: while nobody is attached,
what it shows goes to its scrollback and its recording. A command without a
terminal (`tty` false) waits to be attached to, loses nothing, and ends with its client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from kubelore.common.bus import Session, SessionEnded
from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.terminals import CLOSE, MAX_PAYLOAD, MAX_SIDE, RESIZE, STATUS, STDIN
from kubelore.common.errors import Conflict, Forbidden, Gone, KubeloreError, TooManyRequests
from kubelore.common.kube.exec import ExecStream
from kubelore.container_ops.attachments import Attachment
from kubelore.container_ops.recordings import Recorder
from kubelore.container_ops.scrollback import Scrollback

CHECK_S = 2.0
MAX_WATCHERS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """For how long a terminal may be, in seconds: unattached, without a word either way, and at all."""

    unattached_s: float
    detached_s: float
    idle_s: float
    total_s: float


class TerminalEnded(Gone):
    """A limit was reached, or somebody ended it."""

    def __init__(self, detail: str, remedy: str = "Open another.") -> None:
        super().__init__(detail, remedy=remedy, code="TerminalEnded")


class HungUp(Exception):
    """Whoever was attached wants no more of it."""


class _Size(msgspec.Struct, rename="pascal"):
    width: int
    height: int


class Terminal:
    """Made when its command runs; `serve` it to its end."""

    def __init__(
        self,
        id_: str,
        target: ContainerId,
        owner: str,
        stream: ExecStream,
        limits: Limits,
        recorder: Recorder | None,
    ) -> None:
        self.id = id_
        self.target = target
        self.owner = owner
        self.asked_for: list[list[str]] = []
        """What policies were asked about, and why it was opened: whoever attaches is held to them too."""
        self.reason = ""
        self.shown = asyncio.Event()
        """Set when it has shown something."""
        self._stream = stream
        self._limits = limits
        self._recorder = recorder
        self._scrollback = Scrollback()
        self._holder: Attachment | None = None
        self._watchers: set[Attachment] = set()
        self._attached = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._ended: KubeloreError | None = None
        self._began = self._active_at = self._left_at = time.monotonic()

    @property
    def tty(self) -> bool:
        """Whether it is a terminal, and not only a command with streams."""
        return self._recorder is not None

    async def serve(self) -> int:
        """Show what the command says until it ends; its exit code.

        Raises HungUp, TerminalEnded, Forbidden (the right is gone), and what
        breaks the command. Whoever is attached is told.
        """
        pumping = asyncio.ensure_future(self._pump())
        watching = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait({pumping, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            code = pumping.result()
            await self._finish(code)
        except KubeloreError as error:
            await self.fail(error)
            raise
        finally:
            pumping.cancel()
            watching.cancel()
            await asyncio.gather(pumping, watching, return_exceptions=True)
        return code

    def end(self, error: KubeloreError | None = None) -> None:
        """Let it end: hung up, or for a reason that is told."""
        self._ended = error
        self._hung_up.set()

    @asynccontextmanager
    async def attached(self, session: Session, *, watch: bool) -> AsyncIterator[Attachment]:
        """Attach a session: as the one who types, whom it is taken from, or to watch. Raises TooManyRequests."""
        if watch and len(self._watchers) >= MAX_WATCHERS:
            raise TooManyRequests(f"{MAX_WATCHERS} watch this terminal already", retry_after_s=10)
        before = self._holder
        one = Attachment(session, watching=watch, scrollback=self._scrollback.read())
        if watch:
            self._watchers.add(one)
        else:
            self._holder = one
            self._attached.set()
            if before is not None:
                await before.fail(Conflict("the terminal was attached to from elsewhere", code="TakenOver"))
        try:
            yield one
        finally:
            self._let_go(one)
            await one.close()

    async def typed(self, session: Session) -> None:
        """Take what a client sends, until it finishes, which hangs up. Raises SessionEnded when it is lost."""
        async for frame in session:
            if not frame:
                continue
            self._active_at = time.monotonic()
            channel, payload = frame[0], frame[1:]
            if channel == STDIN:
                await self._stream.send(payload)
            elif channel == RESIZE:
                await self._resize(payload)
            elif channel == CLOSE and payload == bytes([STDIN]):
                await self._stream.close_stdin()
        self.end()

    async def _resize(self, payload: bytes) -> None:
        with suppress(msgspec.MsgspecError):
            size = msgspec.json.decode(payload, type=_Size)
            if 0 < size.width <= MAX_SIDE and 0 < size.height <= MAX_SIDE and self._recorder is not None:
                await self._stream.resize(size.width, size.height)
                self._recorder.resized(size.width, size.height)

    async def _pump(self) -> int:
        if not self.tty:
            await self._attached.wait()
        async for channel, data in self._stream:
            self._active_at = time.monotonic()
            if self._recorder is not None:
                await self._recorder.output(data)
                self._scrollback.add(data)
            for start in range(0, len(data), MAX_PAYLOAD):
                await self._show(bytes([channel]) + data[start : start + MAX_PAYLOAD])
            self.shown.set()
        self.shown.set()
        # What it showed, and how it ended, is for somebody who is still on the way.
        await self._attached.wait()
        return self._stream.exit_code or 0

    async def _show(self, frame: bytes) -> None:
        for one in self._everybody():
            try:
                await one.put(frame)
            except SessionEnded:
                self._let_go(one)

    def _let_go(self, one: Attachment) -> None:
        self._watchers.discard(one)
        if one is self._holder:
            self._holder = None
            self._left_at = time.monotonic()
            if not self.tty:
                self.end()

    async def _finish(self, code: int) -> None:
        await self._show(bytes([STATUS]) + status_of(code))
        await asyncio.gather(*(one.finish() for one in self._everybody()))

    async def fail(self, error: KubeloreError) -> None:
        """Tell whoever is attached that it has ended with an error."""
        await asyncio.gather(*(one.fail(error) for one in self._everybody()))

    def _everybody(self) -> list[Attachment]:
        return [one for one in (self._holder, *self._watchers) if one is not None]

    async def _watch(self) -> NoReturn:
        """Raise why it must end."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._hung_up.wait()
                    raise self._ended or HungUp
            current_caller().check_right("exec", self.target.cluster, self.target.namespace)
            if (over := self._over(time.monotonic())) is not None:
                raise over

    def _over(self, now: float) -> TerminalEnded | None:
        limits = self._limits
        if now - self._began > limits.total_s:
            return _ended("the terminal was open", limits.total_s, "the longest that one may be")
        if self._holder is None:
            patience = limits.detached_s if self._attached.is_set() else limits.unattached_s
            if now - self._left_at > patience:
                return _ended("nobody was attached to the terminal", patience, "so it was ended")
        if now - self._active_at > limits.idle_s:
            return _ended("nothing was typed or shown", limits.idle_s, "so the terminal was ended")
        return None

    def check_holder(self, subject: str) -> None:
        """Raise Forbidden unless somebody may type into it: whoever opened it."""
        if subject != self.owner:
            raise Forbidden(
                f"the terminal is {self.owner}'s", remedy="Watch it instead: attach with `watch`."
            )


def status_of(code: int) -> bytes:
    """The Status that ends a command, as an API server writes it."""
    if code == 0:
        return msgspec.json.encode({"metadata": {}, "status": "Success"})
    return msgspec.json.encode(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit code {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def _ended(what: str, seconds: float, so: str) -> TerminalEnded:
    return TerminalEnded(f"{what} for {seconds:g} s, {so}")
