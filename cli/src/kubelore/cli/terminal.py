"""A command in a container with this terminal, or this process's streams, at its ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import termios
import threading
import tty as ttys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from kubelore.cli.connection import ApiError
from kubelore.cli.output import warn
from kubelore.common.errors import KubeloreError, Unavailable, UpstreamError, error_from_parts

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK = 32 * 1024
DETACH = b"\x1d"
"""Ctrl-]: one key, so that no other has to be held back until it is known what follows."""
REATTACH_S = 60.0
_RETRY_S = 1.0
_OPEN_S = 90.0
_DETACHED = 4000
_REFUSED = 1008


@dataclass
class Asked:
    """What to run, or with `session` what to attach to."""

    container: str
    command: list[str]
    tty: bool = False
    stdin: bool = False
    reason: str = ""
    debug: bool = False
    session: str = ""
    watch: bool = False

    def path(self) -> str:
        """Path and query of the WebSocket."""
        query: list[tuple[str, str]] = []
        if self.session:
            query += [("session", self.session), ("watch", str(self.watch).lower())]
        else:
            columns, rows = shutil.get_terminal_size()
            query += [("command", word) for word in self.command]
            query += [(name, str(getattr(self, name)).lower()) for name in ("tty", "stdin", "debug")]
            query += [("columns", str(columns)), ("rows", str(rows)), ("reason", self.reason)]
        path = quote(self.container, safe=":")
        return f"/api/k8s/containers/{path}/exec/ws?{urlencode(query, quote_via=quote)}"


def run(url: str, token: str, asked: Asked) -> int:
    """Run it to its end; the exit code of the command, or 0 after detaching. Raises ApiError."""
    with _raw() if asked.tty and not asked.watch else contextlib.nullcontext():
        try:
            code = asyncio.run(_Client(url, token, asked).run())
        except KeyboardInterrupt:
            code = 130
    return code


class _DetachedError(Exception):
    pass


class _Client:
    """One command and its connections, of which the later ones take up a terminal that the first lost."""

    def __init__(self, url: str, token: str, asked: Asked) -> None:
        self._url = "ws" + url.removeprefix("http")
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": "kubelore-cli"}
        self._asked = asked
        self._socket: ClientConnection | None = None
        self._reading = False

    async def run(self) -> int:
        from websockets.exceptions import ConnectionClosed

        socket = await self._connect()
        while True:
            try:
                return await self._serve(socket)
            except _DetachedError:
                await socket.close(_DETACHED, "detached")
                _tell(f"detached; `kubelore attach {self._asked.session}` takes it up again")
                return 0
            except asyncio.CancelledError:
                await socket.close()
                raise
            except ConnectionClosed as error:
                said = error.rcvd.reason if error.rcvd else ""
                code = error.rcvd.code if error.rcvd else 1006
                if code in (_REFUSED, 1011) or not (self._asked.tty and self._asked.session):
                    lost = f"the connection ended before the command did: {said or 'it was lost'}"
                    raise ApiError(Unavailable(lost)) from error
                socket = await self._again()

    async def _connect(self) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        try:
            socket = await connect(
                self._url + self._asked.path(),
                additional_headers=self._headers,
                subprotocols=["v5.channel.k8s.io"],  # type: ignore[list-item]
                compression=None,
                open_timeout=_OPEN_S,
                max_size=1024 * 1024,
                max_queue=16,
            )
        except InvalidStatus as error:
            raise _refusal(error.response.status_code, bytes(error.response.body or b"")) from error
        except (OSError, TimeoutError, InvalidHandshake) as error:
            away = Unavailable(f"cannot reach Kubelore: {error}", remedy="`kubelore status` tells what runs.")
            raise ApiError(away) from error
        if socket.response is not None:
            self._asked.session = socket.response.headers.get("Kubelore-Session", self._asked.session)
        self._socket = socket
        return socket

    async def _again(self) -> ClientConnection:
        _tell("the connection was lost; attaching again ...")
        loop = asyncio.get_running_loop()
        until = loop.time() + REATTACH_S
        while True:
            await asyncio.sleep(_RETRY_S)
            try:
                return await self._connect()
            except ApiError as error:
                if not error.transient or loop.time() > until:
                    raise

    async def _serve(self, socket: ClientConnection) -> int:
        loop = asyncio.get_running_loop()
        if self._asked.tty:
            await self._resize()
            loop.add_signal_handler(signal.SIGWINCH, lambda: loop.create_task(self._resize()))
        detached = self._keyboard(loop)
        showing = asyncio.ensure_future(_show(socket))
        done, _ = await asyncio.wait({showing, detached}, return_when=asyncio.FIRST_COMPLETED)
        if showing not in done:
            showing.cancel()
            raise _DetachedError
        return showing.result()

    def _keyboard(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Read what is typed, in a thread that goes on for all connections; done when the detach key was."""
        self._detached: asyncio.Future[None]
        if not self._reading:
            self._reading = True
            self._detached = loop.create_future()
            if self._asked.stdin or (self._asked.tty and not self._asked.watch):
                threading.Thread(target=self._read, args=(loop,), daemon=True).start()
        return self._detached

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError, OSError, asyncio.CancelledError):
            while data := os.read(sys.stdin.fileno(), CHUNK):
                before, key, _ = data.partition(DETACH) if self._asked.tty else (data, b"", b"")
                if before:
                    asyncio.run_coroutine_threadsafe(self._send(bytes([STDIN]) + before), loop).result()
                if key:
                    loop.call_soon_threadsafe(self._detached.set_result, None)
                    return
            asyncio.run_coroutine_threadsafe(self._send(bytes([CLOSE, STDIN])), loop).result()

    async def _send(self, frame: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        # What is typed while there is no connection is lost, as at any terminal that hangs.
        with contextlib.suppress(ConnectionClosed):
            if self._socket is not None:
                await self._socket.send(frame)

    async def _resize(self) -> None:
        columns, rows = shutil.get_terminal_size()
        await self._send(bytes([RESIZE]) + json.dumps({"Width": columns, "Height": rows}).encode())


async def _show(socket: ClientConnection) -> int:
    """Pass on what comes; the exit code at the end. Raises ConnectionClosed, and ApiError for a command that was not run."""
    while True:
        message = await socket.recv()
        frame = message.encode() if isinstance(message, str) else message
        channel, payload = frame[0], frame[1:]
        if channel in (STDOUT, STDERR):
            _write(sys.stdout if channel == STDOUT else sys.stderr, payload)
        elif channel == STATUS:
            return _exit_code(json.loads(payload))


def _exit_code(status: dict[str, Any]) -> int:
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        return next(int(one["message"]) for one in status["details"]["causes"] if one["reason"] == "ExitCode")
    raise ApiError(UpstreamError(str(status.get("message", "the command was not run"))))


def _write(stream: Any, data: bytes) -> None:
    stream.buffer.write(data)
    stream.buffer.flush()


def _refusal(status: int, body: bytes) -> ApiError:
    try:
        problem = json.loads(body)
        error: KubeloreError = error_from_parts(
            str(problem["reason"]), status, str(problem["detail"]), problem.get("remedy")
        )
    except (ValueError, KeyError, TypeError):
        error = Unavailable(f"the WebSocket was refused ({status})", remedy="Check --url.")
    return ApiError(error)


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """This terminal in raw mode: every key goes to the container, Ctrl-C too."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        ttys.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _tell(text: str) -> None:
    # A terminal in raw mode does not return the carriage by itself.
    sys.stderr.write(f"\r\n{text}\r\n")
    sys.stderr.flush()


def usable_terminal() -> bool:
    """Whether this process's input is a terminal; says so where it is none, as kubectl does."""
    if sys.stdin.isatty():
        return True
    warn("unable to use a TTY: the input is no terminal")
    return False
