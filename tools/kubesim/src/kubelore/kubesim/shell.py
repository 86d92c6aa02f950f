"""A tiny shell: words, quotes, $VARS, pipes, `;`, `&&`, `||` and redirections over the sandbox's commands."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from .sandbox import MAX_BYTES, FileTree, SandboxError

Write = Callable[[bytes], Awaitable[None]]
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+|\?))")
_DOLLAR = "\1"  # a $ within single quotes
# Redirections of streams are words of their own before the rest is cut: 2>&1, >&2, and 2> (which discards).
_ERRORS_TO_OUT, _OUT_TO_ERRORS, _ERRORS_TO_FILE = "\2", "\3", "\4"
_STREAMS = re.compile(r"(?<!\S)(?:2>&1|1?>&2|2>(?!&))")
_STREAM_WORDS = {"2>&1": _ERRORS_TO_OUT, "1>&2": _OUT_TO_ERRORS, ">&2": _OUT_TO_ERRORS, "2>": _ERRORS_TO_FILE}
_SEPARATORS = (";", "&&", "||")
_MAX_PIPE = MAX_BYTES


class NotFoundError(Exception):
    """No such command."""


class Stdin:
    """What comes in, bounded: the sender waits while 16 pieces are unread. None is the end."""

    def __init__(self, given: bytes | None = None) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(16)
        self._rest = b""
        self._ended = given is not None
        if given is not None:
            self._rest = given

    async def feed(self, piece: bytes | None) -> None:
        await self._pieces.put(piece)

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        if self._rest or self._ended:
            rest, self._rest = self._rest, b""
            return rest
        piece = await self._pieces.get()
        self._ended = piece is None
        return piece or (b"" if self._ended else await self.read())

    def unread(self, rest: bytes) -> None:
        self._rest = rest + self._rest

    async def line(self) -> bytes | None:
        """The next line without its end; None when there is no more."""
        buffer = b""
        while b"\n" not in buffer:
            piece = await self.read()
            if not piece:
                return buffer or None
            buffer += piece
        line, _, rest = buffer.partition(b"\n")
        self.unread(rest)
        return line


@dataclass(slots=True)
class Process:
    """A running command: what it is given, and where its output goes."""

    args: list[str]
    tree: FileTree
    stdin: Stdin
    stdout: Write
    stderr: Write
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = "/"

    def path(self, name: str) -> str:
        return self.tree.resolve(name, self.cwd)

    async def print(self, text: str) -> None:
        await self.stdout(text.encode())

    async def complain(self, text: str) -> int:
        await self.stderr(f"{self.args[0]}: {text}\n".encode())
        return 1


Command = Callable[[Process], Awaitable[int]]


class Shell:
    """Runs command lines; keeps the working directory and variables between them."""

    def __init__(self, process: Process, commands: dict[str, Command]) -> None:
        self._process = process
        self._commands = commands
        self._status = 0
        self.exited: int | None = None

    async def run(self, text: str) -> int:
        """Every line of a script; the last status, or that of `exit`."""
        for line in text.split("\n"):
            await self._line(line)
            if self.exited is not None:
                return self.exited
        return self._status

    async def _line(self, line: str) -> None:
        try:
            words = _words(line)
        except ValueError as error:
            await self._process.stderr(f"sh: syntax error: {error}\n".encode())
            self._status = 2
            return
        pipeline: list[str] = []
        condition = ";"
        for word in [*words, ";"]:
            if word not in _SEPARATORS:
                pipeline.append(word)
                continue
            wanted = {";": True, "&&": self._status == 0, "||": self._status != 0}[condition]
            if pipeline and wanted and self.exited is None:
                self._status = await self._pipeline(pipeline)
            pipeline, condition = [], word

    def _expanded(self, word: str) -> str:
        values = {**self._process.env, "?": str(self._status)}
        return _VARIABLE.sub(lambda m: values.get(m[1] or m[2], ""), word).replace(_DOLLAR, "$")

    async def _pipeline(self, words: list[str]) -> int:
        stages: list[list[str]] = [[]]
        for word in words:
            if word == "|":
                stages.append([])
            else:
                stages[-1].append(self._expanded(word))
        stdin = self._process.stdin
        for stage in stages[:-1]:
            buffer = bytearray()
            await self._stage(stage, stdin, _collector(buffer))
            stdin = Stdin(bytes(buffer))
        return await self._stage(stages[-1], stdin, self._process.stdout)

    async def _stage(self, words: list[str], stdin: Stdin, stdout: Write) -> int:
        args, redirections = _redirections(words)
        if not args:
            return 0
        buffer = bytearray()
        try:
            if "<" in redirections:
                stdin = Stdin(self._process.tree.read(self._process.path(redirections["<"])))
            redirected = redirections.get(">") or redirections.get(">>")
            if redirected:
                stdout = _collector(buffer)
            errors = self._process.stderr
            if _OUT_TO_ERRORS in redirections:
                stdout = errors
            elif _ERRORS_TO_OUT in redirections:
                errors = stdout
            elif _ERRORS_TO_FILE in redirections:
                errors = _collector(bytearray())
            process = replace(self._process, args=args, stdin=stdin, stdout=stdout, stderr=errors)
            status = await self._command(process)
            if redirected and redirected != "/dev/null":
                path = self._process.path(redirected)
                old = self._process.tree.get(path)
                kept = (old.data or b"") if old is not None and ">>" in redirections else b""
                self._process.tree.write(path, kept + bytes(buffer))
        except SandboxError as error:
            await self._process.stderr(f"sh: {error}\n".encode())
            return 1
        return status

    async def _command(self, process: Process) -> int:
        name = process.args[0]
        if "=" in name and len(process.args) == 1:
            key, _, value = name.partition("=")
            self._process.env[key] = value
            return 0
        if name == "cd":
            target = process.path(process.args[1] if len(process.args) > 1 else "/root")
            if not process.tree.node(target).is_dir:
                return await process.complain(f"{target}: Not a directory")
            self._process.cwd = target
            return 0
        if name == "exit":
            self.exited = int(process.args[1]) & 255 if process.args[1:] else self._status
            return self.exited
        if name == "exec" and process.args[1:]:
            self.exited = await self._command(replace(process, args=process.args[1:]))
            return self.exited
        try:
            return await run(process, self._commands)
        except NotFoundError:
            await process.stderr(f"sh: {name}: not found\n".encode())
            return 127


async def run(process: Process, commands: dict[str, Command]) -> int:
    """One command without a shell; NotFoundError when there is none of that name."""
    command = commands.get(process.args[0].rpartition("/")[2])
    if command is None:
        raise NotFoundError(process.args[0])
    try:
        return await command(process)
    except SandboxError as error:
        return await process.complain(str(error))
    except ValueError as error:
        return await process.complain(f"invalid argument: {error}")


def _words(line: str) -> list[str]:
    marked = "".join(
        part.replace("$", _DOLLAR) if part.startswith("'") else _STREAMS.sub(r" \g<0> ", part)
        for part in re.split(r"('[^']*')", line)
    )
    for text, word in _STREAM_WORDS.items():
        marked = marked.replace(f" {text} ", f" {word} ")
    lexer = shlex.shlex(marked, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _redirections(words: list[str]) -> tuple[list[str], dict[str, str]]:
    args: list[str] = []
    redirections: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in (">", ">>", "<", _ERRORS_TO_FILE):
            redirections[word] = next(rest, "")
        elif word in (_ERRORS_TO_OUT, _OUT_TO_ERRORS):
            redirections[word] = word
        else:
            args.append(word)
    return args, redirections


def _collector(buffer: bytearray) -> Write:
    async def collect(piece: bytes) -> None:
        if len(buffer) + len(piece) > _MAX_PIPE:
            raise SandboxError("too much output")
        buffer.extend(piece)

    return collect
