"""The commands of the sandbox: what people and `kubectl cp` run in containers, over a `FileTree`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace

from .file_commands import file_commands
from .sandbox import SandboxError
from .shell import Command, Process, Shell

_PIECE = 32 * 1024


async def _emit(process: Process, data: bytes) -> int:
    for start in range(0, len(data), _PIECE):
        await process.stdout(data[start : start + _PIECE])
    return 0


async def _read_all(process: Process) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await process.stdin.read():
        size += len(piece)
        if size > 64 * 1024 * 1024:
            raise SandboxError("too much input")
        pieces.append(piece)
    return b"".join(pieces)


async def _inputs(process: Process, names: list[str]) -> bytes:
    if not names or names == ["-"]:
        return await _read_all(process)
    return b"".join(process.tree.read(process.path(name)) for name in names)


def _split(process: Process, with_value: str = "") -> tuple[dict[str, str], list[str]]:
    """Options (those in `with_value` take the next word) and operands."""
    options: dict[str, str] = {}
    operands: list[str] = []
    words = iter(process.args[1:])
    for word in words:
        if word == "--":
            operands += list(words)
        elif word.startswith("-") and len(word) > 1:
            letter = word[1]
            if letter in with_value:
                options[letter] = word[2:] or next(words, "")
            else:
                options |= dict.fromkeys(word[1:], "")
        else:
            operands.append(word)
    return options, operands


async def _echo(process: Process) -> int:
    words = process.args[1:]
    bare = words[:1] == ["-n"]
    await process.print(" ".join(words[1:] if bare else words) + ("" if bare else "\n"))
    return 0


async def _cat(process: Process) -> int:
    operands = _split(process)[1]
    if operands and operands != ["-"]:
        return await _emit(process, await _inputs(process, operands))
    while piece := await process.stdin.read():
        await process.stdout(piece)
    return 0


async def _ls(process: Process) -> int:
    options, operands = _split(process)
    for operand in operands or ["."]:
        path = process.path(operand)
        names = process.tree.children(path) if process.tree.node(path).is_dir else [path]
        for name in names:
            node = process.tree.node(name)
            short = name.rpartition("/")[2]
            if "l" in options:
                kind, stamp = (
                    "d" if node.is_dir else "-",
                    time.strftime("%b %e %H:%M", time.gmtime(node.modified)),
                )
                bits = "".join(
                    letter if node.mode >> 8 - i & 1 else "-" for i, letter in enumerate("rwxrwxrwx")
                )
                short = f"{kind}{bits} 1 root root {len(node.data or b''):>9} {stamp} {short}"
            await process.print(f"{short}\n")
    return 0


async def _tar(process: Process) -> int:
    words, cwd, mode = process.args[1:], process.cwd, ""
    names: list[str] = []
    archive = "-"
    rest = iter(words)
    for word in rest:
        if word == "-C":
            cwd = process.path(next(rest, "/"))
        elif word == "--":
            names += list(rest)
        elif not mode:
            mode = word.lstrip("-")
            archive = next(rest, "-") if "f" in mode else "-"
        elif not word.startswith("-"):
            names.append(word)
    if "c" in mode:
        packed = process.tree.pack(names, cwd)
        if archive == "-":
            return await _emit(process, packed)
        process.tree.write(process.path(archive), packed)
        return 0
    given = await _archive(process) if archive == "-" else process.tree.read(process.path(archive))
    if not process.tree.node(cwd).is_dir:
        raise SandboxError(f"{cwd}: Not a directory")
    for skipped in process.tree.unpack(given, cwd):
        await process.stderr(f"tar: {skipped}: not extracted\n".encode())
    return 0


async def _archive(process: Process) -> bytes:
    # An archive ends with two blocks of zeros: v4.channel.k8s.io has no other way to say that it is over.
    received = bytearray()
    while piece := await process.stdin.read():
        received += piece
        if len(received) > 64 * 1024 * 1024:
            raise SandboxError("archive too large")
        if len(received) % 512 == 0 and received.endswith(bytes(1024)):
            break
    return bytes(received)


async def _test(process: Process) -> int:
    args = [word for word in process.args[1:] if word != "]"]
    match args:
        case ["-e" | "-d" | "-f" as flag, name]:
            node = process.tree.get(process.path(name))
            return int(node is None or (flag == "-d" and not node.is_dir) or (flag == "-f" and node.is_dir))
        case ["-n" | "-z" as flag, text]:
            return int(bool(text) == (flag == "-z"))
        case [left, "=" | "==", right]:
            return int(left != right)
        case [left, "!=", right]:
            return int(left == right)
        case [text]:
            return int(not text)
    return 1


async def _rm(process: Process) -> int:
    options, operands = _split(process)
    for operand in operands:
        path = process.path(operand)
        if process.tree.get(path) is not None or "f" not in options:
            process.tree.remove(path, recursive="r" in options or "R" in options)
    return 0


async def _touch(process: Process) -> int:
    for operand in _split(process)[1]:
        path = process.path(operand)
        if process.tree.get(path) is None:
            process.tree.write(path, b"")
    return 0


async def _head(process: Process) -> int:
    options, operands = _split(process, "nc")
    if operands == ["/dev/zero"]:
        left = int(options.get("c", "1024"))
        while left > 0:
            await process.stdout(bytes(min(left, _PIECE)))
            left -= _PIECE
        return 0
    if "c" in options:
        return await _first(process, operands, int(options["c"]))
    data = await _inputs(process, operands)
    return await _emit(process, b"".join(data.splitlines(keepends=True)[: int(options.get("n", "10"))]))


async def _first(process: Process, operands: list[str], left: int) -> int:
    """So many bytes; of its input it waits for no more than those."""
    if operands:
        return await _emit(process, (await _inputs(process, operands))[:left])
    while left > 0 and (piece := await process.stdin.read()):
        await process.stdout(piece[:left])
        process.stdin.unread(piece[left:])
        left -= len(piece[:left])
    return 0


async def _tail(process: Process) -> int:
    options, operands = _split(process, "nc")
    data = await _inputs(process, operands)
    if "c" in options:  # `tail -c+N` is how kubectl cp resumes a download
        count = options["c"]
        return await _emit(
            process, data[int(count[1:]) - 1 :] if count.startswith("+") else data[-int(count) :]
        )
    return await _emit(process, b"".join(data.splitlines(keepends=True)[-int(options.get("n", "10")) :]))


async def _wc(process: Process) -> int:
    options, operands = _split(process)
    data = await _inputs(process, operands)
    counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
    await process.print(" ".join(str(counts[key]) for key in "lwc" if key in options or not options) + "\n")
    return 0


async def _tee(process: Process) -> int:
    data = await _read_all(process)
    for operand in _split(process)[1]:
        process.tree.write(process.path(operand), data)
    return await _emit(process, data)


async def _digest(process: Process) -> int:
    name = process.args[0].rpartition("/")[2].removesuffix("sum")
    operands = _split(process)[1]
    for operand in operands or ["-"]:
        data = await _inputs(process, [operand])
        await process.print(f"{hashlib.new(name, data).hexdigest()}  {operand}\n")
    return 0


async def _sleep(process: Process) -> int:
    await asyncio.sleep(min(float(process.args[1]), 3600.0))
    return 0


async def _yes(process: Process) -> int:
    line = " ".join(process.args[1:] or ["y"]).encode() + b"\n"
    piece = line * (_PIECE // len(line) + 1)
    while True:  # until the client goes: its reading speed is the brake
        await process.stdout(piece)


async def _seq(process: Process) -> int:
    numbers = "".join(f"{number}\n" for number in range(1, min(int(process.args[-1]), 10**6) + 1))
    return await _emit(process, numbers.encode())


async def _stty(process: Process) -> int:
    await process.print(f"{process.env.get('LINES', '0')} {process.env.get('COLUMNS', '0')}\n")
    return 0


def _says(text: str) -> Command:
    async def say(process: Process) -> int:
        await process.print(text.format(**{"HOSTNAME": "", **process.env}, cwd=process.cwd))
        return 0

    return say


def _ends(status: int) -> Command:
    async def end(_: Process) -> int:
        return status

    return end


async def _date(process: Process) -> int:
    await process.print(time.strftime("%a %b %e %H:%M:%S UTC %Y\n", time.gmtime()))
    return 0


async def _sh(process: Process) -> int:
    """`sh -c SCRIPT`, `sh FILE`, or lines from stdin."""
    match process.args[1:]:
        case ["-c" | "-ec" | "-lc", script, *words]:
            numbered = {str(number): word for number, word in enumerate(words)}
            return await Shell(replace(process, env=process.env | numbered), COMMANDS).run(script)
        case [name, *_] if not name.startswith("-"):
            return await Shell(process, COMMANDS).run(process.tree.read(process.path(name)).decode())
    shell, status = Shell(process, COMMANDS), 0
    while shell.exited is None and (line := await process.stdin.line()) is not None:
        status = await shell.run(line.decode(errors="replace"))
    return status if shell.exited is None else shell.exited


COMMANDS: dict[str, Command] = {
    **dict.fromkeys(("sh", "bash", "ash"), _sh),
    **dict.fromkeys(("test", "["), _test),
    **dict.fromkeys(("sha256sum", "md5sum", "sha1sum"), _digest),
    "echo": _echo,
    "cat": _cat,
    "ls": _ls,
    "tar": _tar,
    "rm": _rm,
    "touch": _touch,
    "head": _head,
    "tail": _tail,
    "wc": _wc,
    "tee": _tee,
    "sleep": _sleep,
    "yes": _yes,
    "seq": _seq,
    "stty": _stty,
    "date": _date,
    "true": _ends(0),
    "false": _ends(1),
    "pwd": _says("{cwd}\n"),
    "hostname": _says("{HOSTNAME}\n"),
    "whoami": _says("root\n"),
    "id": _says("uid=0(root) gid=0(root)\n"),
    "uname": _says("Linux\n"),
    "ps": _says("PID   USER     TIME  COMMAND\n    1 root      0:00 simulated\n"),
}
COMMANDS |= file_commands(COMMANDS)
COMMANDS["printenv"] = COMMANDS["env"]
