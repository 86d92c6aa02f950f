"""The sandbox's commands for work on files: what they take is what container-ops and people send them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from .sandbox import FileTree, Node, SandboxError
from .shell import Command, NotFoundError, Process, run

_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwx]*)\Z")
_BITS = {"r": 4, "w": 2, "x": 1}
_SHIFTS = {"u": 6, "g": 3, "o": 0}


def file_commands(commands: dict[str, Command]) -> dict[str, Command]:
    """The commands by name; `env` and `find -exec` run what is in `commands` when they are run."""

    async def env(process: Process) -> int:
        """`env [NAME=VALUE]... [COMMAND [WORD]...]`."""
        words = list(process.args[1:])
        variables = dict(process.env)
        while words and "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words:
            return await _started(replace(process, args=words, env=variables), commands)
        for key, value in variables.items():
            if not key.isdecimal():
                await process.print(f"{key}={value}\n")
        return 0

    async def find(process: Process) -> int:
        place, *words = process.args[1:]
        found = list(_found(process, place, words))
        if "-exec" not in words:
            end = "\0" if "-print0" in words else "\n"
            await process.print("".join(path + end for path in found))
            return 0
        command = words[words.index("-exec") + 1 : -2]
        return await _started(replace(process, args=[*command, *found]), commands) if found else 0

    async def command(process: Process) -> int:
        """`command -v NAME`."""
        name = process.args[-1]
        if name in commands:
            await process.print(f"/bin/{name}\n")
        return 0 if name in commands else 127

    return {
        "env": env,
        "find": find,
        "command": command,
        "stat": _stat,
        "chmod": _chmod,
        "chown": _chown,
        "mkdir": _mkdir,
        "mv": _mv,
        "rmdir": _rmdir,
        "readlink": _readlink,
        "grep": _grep,
        "umask": _nothing,
    }


async def _started(process: Process, commands: dict[str, Command]) -> int:
    try:
        return await run(process, commands)
    except NotFoundError:
        await process.stderr(f"{process.args[0]}: not found\n".encode())
        return 127


def _found(process: Process, place: str, words: list[str]) -> Iterator[str]:
    path = process.path(place)
    if not process.tree.node(path).is_dir:
        if place.endswith("/."):
            raise SandboxError(f"{place}: Not a directory")
        yield place
        return
    deepest = int(words[words.index("-maxdepth") + 1]) if "-maxdepth" in words else 99
    if "-mindepth" not in words:
        yield place
    for below in process.tree.below(path):
        relative = below[len(path.rstrip("/")) + 1 :]
        if relative.count("/") < deepest:
            yield f"{place.rstrip('/')}/{relative}"


def _operands(process: Process, with_value: str = "") -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    words = list(process.args[1:])
    while words and words[0].startswith("-") and len(words[0]) > 1:
        word = words.pop(0)
        if word == "--":
            break
        options[word[1:]] = words.pop(0) if word[1:] in with_value and words else ""
    return options, words


async def _stat(process: Process) -> int:
    options, operands = _operands(process, "c")
    if "-version" in options:
        await process.print("stat (kubesim)\n")
        return 0
    status = 0
    for operand in operands:
        node = process.tree.get(process.path(operand))
        if node is None:
            status = await process.complain(f"cannot stat {operand!r}: No such file or directory")
            continue
        await process.print(_formatted(options.get("c", "%n"), operand, node) + "\n")
    return status


def _formatted(template: str, name: str, node: Node) -> str:
    values = {
        "f": f"{(0o040000 if node.is_dir else 0o100000) | node.mode:x}",
        "a": f"{node.mode:o}",
        "s": str(4096 if node.data is None else len(node.data)),
        "u": str(node.uid),
        "g": str(node.gid),
        "U": "root" if node.uid == 0 else "UNKNOWN",
        "G": "root" if node.gid == 0 else "UNKNOWN",
        "Y": str(int(node.modified)),
        "n": name,
        "N": name,
    }
    return re.sub(r"%([faugsUGYnN])", lambda found: values[found[1]], template)


def _each(tree: FileTree, path: str, options: dict[str, str]) -> Iterator[Node]:
    yield tree.node(path)
    if "R" in options:
        for below in tree.below(path):
            yield tree.node(below)


async def _chmod(process: Process) -> int:
    options, (mode, *operands) = _operands(process)
    for operand in operands:
        for node in _each(process.tree, process.path(operand), options):
            node.mode = _changed(mode, node.mode)
    return 0


def _changed(mode: str, before: int) -> int:
    if mode.isdecimal():
        return int(mode, 8)
    for clause in mode.split(","):
        parts = _SYMBOLIC.match(clause)
        if parts is None:
            raise SandboxError(f"invalid mode: {mode}")
        bits = sum(_BITS[letter] for letter in parts[3])
        for who in (parts[1] or "a").replace("a", "ugo"):
            kept = before & ~(7 << _SHIFTS[who]) if parts[2] == "=" else before
            mask = bits << _SHIFTS[who]
            before = kept & ~mask if parts[2] == "-" else kept | mask
    return before


async def _chown(process: Process) -> int:
    options, (owner, *operands) = _operands(process)
    user, _, group = owner.partition(":")
    for operand in operands:
        for node in _each(process.tree, process.path(operand), options):
            node.uid = _number(user, "user") if user else node.uid
            node.gid = _number(group, "group") if group else node.gid
    return 0


def _number(name: str, what: str) -> int:
    if name == "root" or name.isdecimal():
        return 0 if name == "root" else int(name)
    raise SandboxError(f"invalid {what}: {name}")


async def _mkdir(process: Process) -> int:
    options, operands = _operands(process, "m")
    for operand in operands:
        path = process.path(operand)
        there = process.tree.get(path) is not None
        process.tree.make_dir(path, parents="p" in options)
        if "m" in options and not there:
            process.tree.node(path).mode = int(options["m"], 8)
    return 0


async def _mv(process: Process) -> int:
    _, (source, target) = _operands(process)
    path, to = process.path(source), process.path(target)
    node = process.tree.get(to)
    if node is not None and node.is_dir:
        to = posixpath.join(to, posixpath.basename(path))
    process.tree.move(path, to)
    return 0


async def _rmdir(process: Process) -> int:
    for operand in _operands(process)[1]:
        path = process.path(operand)
        if not process.tree.node(path).is_dir:
            raise SandboxError(f"{operand}: Not a directory")
        if process.tree.below(path):
            raise SandboxError(f"{operand}: Directory not empty")
        process.tree.remove(path, recursive=True)
    return 0


async def _readlink(process: Process) -> int:
    """`readlink -f`: nothing is a link here, so that everything leads to itself."""
    path = process.path(process.args[-1])
    if process.tree.get(posixpath.dirname(path)) is None:
        return 1
    await process.print(path + "\n")
    return 0


async def _grep(process: Process) -> int:
    """`grep [-q] PATTERN [FILE]...`."""
    options, (pattern, *operands) = _operands(process)
    said = b"".join([process.tree.read(process.path(one)) for one in operands])
    while not operands and (piece := await process.stdin.read()):
        said += piece
    found = [line for line in said.splitlines() if re.search(pattern.encode(), line)]
    if "q" not in options:
        await process.stdout(b"".join(line + b"\n" for line in found))
    return 0 if found else 1


async def _nothing(_: Process) -> int:
    return 0
