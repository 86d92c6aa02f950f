"""The terminals that this replica holds: opened, attached to, watched, ended, and recorded."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kubelore.common.bus import Service, Session, SessionEnded
from kubelore.common.bus.sessions import new_session_id
from kubelore.common.callers import current_caller
from kubelore.common.contracts import terminals as contract
from kubelore.common.contracts.container_history import ContainerOperationRef
from kubelore.common.contracts.containers import SERVICE, ContainerId
from kubelore.common.contracts.terminals import (
    MAX_SIDE,
    AttachedTerminal,
    AttachTerminal,
    EndedTerminal,
    EndTerminal,
    OpenedTerminal,
    OpenTerminal,
    RecordingSession,
)
from kubelore.common.errors import (
    BadRequest,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    UpstreamError,
)
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.reach import Reached
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.asciicast import Asciicast
from kubelore.container_ops.debugging import debug_container
from kubelore.container_ops.house import House
from kubelore.container_ops.operations import Entry
from kubelore.container_ops.past_operations import PastOperations
from kubelore.container_ops.pods import named_container, read_pod
from kubelore.container_ops.recordings import Recorder, Recordings, no_recording
from kubelore.container_ops.shells import ASKED_FOR, DEBUG_SHELL, SHELL, explained
from kubelore.container_ops.sighting import Sighting
from kubelore.container_ops.terminal import HungUp, Limits, Terminal, TerminalEnded

log = get_logger(__name__)

RENEW_S = 4.0
"""A revoked token ends a terminal within this and the gateway's five seconds."""
SHOWN_S = 1.0
"""How long opening a shell waits for its prompt, or for the word that the image has none."""
SESSION_IDLE_S = 12.0
MAX_WORDS = 1000
MAX_COMMAND_BYTES = 128 * 1024


@dataclass
class _Opening:
    """A terminal that is asked for; `answer` is what whoever asked waits for."""

    request: OpenTerminal
    target: ContainerId
    asked_for: list[list[str]]
    answer: asyncio.Future[OpenedTerminal]
    terminal: Terminal | None = None

    def succeed(self, answer: OpenedTerminal) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: KubeloreError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Terminals:
    """Answers the endpoints of `contracts.terminals`."""

    def __init__(self, house: House, past: PastOperations) -> None:
        self._house = house
        self._past = past
        settings = house.settings
        kept = timedelta(days=settings.operations_kept_days)
        self.recordings = Recordings(house.blobs, house.keyring, kept)
        self._limits = Limits(
            unattached_s=60.0,
            detached_s=settings.terminal_detached_s,
            idle_s=settings.terminal_idle_s,
            total_s=settings.terminal_total_s,
        )
        self._open: dict[str, Terminal] = {}
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, request: OpenTerminal) -> OpenedTerminal:
        """Start a command, and hold it until somebody attaches.

        Raises NotFound, Forbidden, Invalid (a policy, or no shell), Conflict
        (the container does not run) and TooManyRequests.
        """
        target = ContainerId.parse(request.target)
        _check(request)
        asked_for = [request.command] if request.command else list(ASKED_FOR)
        if request.debug:
            asked_for.append(["debug", self._house.settings.debug_image])
        await self._check_exec(target, asked_for, request.reason)
        most = self._house.settings.max_terminals
        if len(self._open) + self._opening >= most:
            raise TooManyRequests(
                f"this replica holds {most} terminals already", remedy="End some.", retry_after_s=10
            )
        opening = _Opening(request, target, asked_for, asyncio.get_running_loop().create_future())
        task = self._start(self._run(opening, Mandate.of_request()))
        self._opening += 1
        try:
            return await asyncio.shield(opening.answer)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._opening -= 1

    async def attach(self, request: AttachTerminal) -> AttachedTerminal:
        """A session to a terminal. Raises NotFound, Forbidden and TooManyRequests."""
        terminal = self._visible(request.id)
        if not request.watch:
            terminal.check_holder(current_caller().subject)
        await self._check_exec(terminal.target, terminal.asked_for, terminal.reason)
        session = new_session_id(SERVICE, "gateway")
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start(self._carry(terminal, session, request.watch, ready))
        await asyncio.shield(ready)
        return AttachedTerminal(session=session, target=str(terminal.target), tty=terminal.tty)

    async def end(self, request: EndTerminal) -> EndedTerminal:
        """Hang up one's own terminal. Raises NotFound and Forbidden."""
        terminal = self._visible(request.id)
        terminal.check_holder(current_caller().subject)
        terminal.end(TerminalEnded(f"{terminal.owner} ended the terminal"))
        return EndedTerminal(request.id)

    async def recording(self, request: ContainerOperationRef) -> RecordingSession:
        """A session that carries a recording, for whoever may see the operation. Raises NotFound."""
        operation = await self._past.get(request)
        said = operation.result.get("recording")
        if not operation.session_id or (said is None and operation.status == "completed"):
            raise no_recording(request.id)
        chunks = said["chunks"] if said else None
        pieces = self.recordings.read(request.id, chunks)
        first = await anext(pieces, b"")
        session = new_session_id(SERVICE, "gateway")
        self._start(self._send(session, first, pieces))
        return RecordingSession(session=session, whole=bool(said and said["whole"]))

    async def close(self) -> None:
        """End all of them, as the replica stops."""
        for terminal in self._open.values():
            terminal.end(TerminalEnded("the replica that held the terminal is stopping"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for task in self._tasks:
            task.cancel()

    async def _check_exec(self, target: ContainerId, asked_for: list[list[str]], reason: str) -> None:
        for command in asked_for:
            await self._house.exec_policies.check_exec(current_caller(), target, command, reason)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _visible(self, id_: str) -> Terminal:
        terminal = self._open.get(id_)
        caller = current_caller()
        if terminal is None or not (
            caller.subject == terminal.owner
            or caller.namespaces(terminal.target.cluster, right="exec").matches(terminal.target.namespace)
        ):
            raise NotFound("there is no such terminal (any more)", remedy="Open another.")
        caller.check_right("exec", terminal.target.cluster, terminal.target.namespace)
        return terminal

    async def _run(self, opening: _Opening, mandate: Mandate) -> None:
        """One terminal from its opening to its end."""
        try:
            async with acting_under(self._house.bus, mandate, renew_every_s=RENEW_S):
                await self._recorded(opening)
        except KubeloreError as error:
            opening.fail(error)
            if opening.terminal is not None:
                log.info("terminal ended", terminal=opening.terminal.id, detail=error.detail)
                # Of a credential that no longer stands nobody has been told yet.
                await opening.terminal.fail(error)
        except Exception as error:
            log.error("terminal failed", target=str(opening.target), exc_info=error)
            opening.fail(UpstreamError("the terminal could not be opened"))

    async def _recorded(self, opening: _Opening) -> None:
        house, request, target = self._house, opening.request, opening.target
        id_ = f"{house.bus.replica}.{secrets.token_hex(16)}"
        async with house.reach.streaming(target.cluster) as reached:
            target = named_container(await read_pod(reached, target), target)
            if request.debug:
                target = await self._debug(reached, target, request.reason)
            command = request.command or (DEBUG_SHELL if request.debug else SHELL)
            asked_at = asyncio.get_running_loop().time()
            async with (
                house.journal.recording(
                    "exec", target, command, session_id=id_, reason=request.reason
                ) as entry,
                await reached.client.exec(
                    target.namespace,
                    target.pod,
                    target.container,
                    command,
                    stdin=request.stdin,
                    tty=request.tty,
                ) as stream,
                Sighting(reached, target, command, stream, asked_at, house.journal.seen(entry)) as sighting,
                self._recorder(request, target, command, entry) as recorder,
            ):
                if request.tty:
                    await stream.resize(request.columns, request.rows)
                terminal = Terminal(id_, target, current_caller().subject, stream, self._limits, recorder)
                terminal.asked_for, terminal.reason = opening.asked_for, request.reason
                opening.terminal = terminal
                answer = OpenedTerminal(
                    id=id_, target=str(target), command=command, operation_id=entry.operation_id
                )
                try:
                    await self._serve(terminal, answer, entry, opening)
                finally:
                    if stream.exit_code is None:
                        # An API server that is hung up on lets what runs go on (decision 0108).
                        entry.result["stopped"] = await asyncio.shield(asyncio.create_task(sighting.stop()))

    async def _debug(self, reached: Reached, target: ContainerId, reason: str) -> ContainerId:
        """A debug container, on record before it is made."""
        image = self._house.settings.debug_image
        async with self._house.journal.recording("exec", target, ["debug", image], reason=reason) as entry:
            made = await debug_container(reached, target, image)
            entry.result["container"] = made.container
            return made

    async def _serve(
        self, terminal: Terminal, answer: OpenedTerminal, entry: Entry, opening: _Opening
    ) -> None:
        self._open[terminal.id] = terminal
        serving = asyncio.ensure_future(terminal.serve())
        try:
            if terminal.tty and not opening.request.command:
                shown = asyncio.ensure_future(terminal.shown.wait())
                await asyncio.wait({serving, shown}, timeout=SHOWN_S, return_when=asyncio.FIRST_COMPLETED)
                shown.cancel()
            if not serving.done() or serving.exception() is None:
                opening.succeed(answer)
            entry.result["exit_code"] = await serving
        except HungUp:
            entry.status = "cancelled"
        except KubeloreError as error:
            raise explained(error, answer.command) from error
        finally:
            self._open.pop(terminal.id, None)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    @asynccontextmanager
    async def _recorder(
        self, request: OpenTerminal, target: ContainerId, command: list[str], entry: Entry
    ) -> AsyncGenerator[Recorder | None]:
        if not request.tty:
            yield None
            return
        house = self._house
        cast = Asciicast(request.columns, request.rows)
        most = house.settings.recording_max_mb * 1024 * 1024
        recorder = Recorder(house.blobs, house.keyring, entry.operation_id, cast, most)
        recorder.begin(target, command)
        writing = asyncio.create_task(recorder.run())
        try:
            yield recorder
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            entry.result["recording"] = await recorder.finish()

    async def _carry(
        self, terminal: Terminal, session_id: str, watch: bool, ready: asyncio.Future[None]
    ) -> None:
        """Serve one who is attached, until they leave or the terminal ends."""
        try:
            async with (
                Session(self._house.bus, session_id, "server", idle_s=SESSION_IDLE_S) as session,
                terminal.attached(session, watch=watch),
            ):
                ready.set_result(None)
                if watch:
                    await session.until_peer_done()
                else:
                    await _typed(terminal, session)
        except KubeloreError as error:
            if not ready.done():
                ready.set_exception(error)
            elif not isinstance(error, SessionEnded | Unauthenticated):
                log.info("attachment ended", terminal=terminal.id, detail=error.detail)

    async def _send(self, session_id: str, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        with suppress(SessionEnded):
            async with Session(self._house.bus, session_id, "server") as session:
                try:
                    await session.send(first)
                    async for piece in rest:
                        await session.send(piece)
                except SessionEnded:
                    raise
                except KubeloreError as error:
                    await session.fail(error)
                    return
                await session.finish()
                await session.until_peer_done()


async def _typed(terminal: Terminal, session: Session) -> None:
    try:
        await terminal.typed(session)
    except SessionEnded:
        raise
    except KubeloreError as error:
        await session.fail(error)


def serve_terminals(service: Service, terminals: Terminals) -> None:
    """The endpoints about terminals and their recordings."""
    service.serve(contract.OPEN_TERMINAL, terminals.open)
    service.serve(contract.ATTACH_TERMINAL, terminals.attach)
    service.serve(contract.END_TERMINAL, terminals.end)
    service.serve(contract.RECORDING, terminals.recording, max_concurrent=16)


def _check(request: OpenTerminal) -> None:
    if not (0 < request.columns <= MAX_SIDE and 0 < request.rows <= MAX_SIDE):
        raise BadRequest(f"a terminal has 1 to {MAX_SIDE} columns and rows")
    words: Sequence[str] = request.command
    if len(words) > MAX_WORDS or sum(map(len, words)) > MAX_COMMAND_BYTES or (words and not words[0]):
        raise BadRequest("that is no command, or it is too long")
