"""The exec subresource over WebSocket: v5.channel.k8s.io and v4, with or without a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json

from aiohttp import WSMsgType, web

from . import podlife
from .call import Call
from .commands import COMMANDS
from .sandbox import Sandboxes
from .shell import NotFoundError, Process, Shell, Stdin, Write, run
from .status import Json, bad_request, not_implemented

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_MAX_FRAME = 1024 * 1024


async def answer(call: Call, sandboxes: Sandboxes) -> web.StreamResponse:
    """Runs the command of the query in the pod's sandbox until it ends or the client goes."""
    socket = web.WebSocketResponse(protocols=PROTOCOLS, compress=False, max_msg_size=_MAX_FRAME)
    if not socket.can_prepare(call.request).ok:
        raise not_implemented("exec over SPDY; use WebSocket")
    command = call.request.query.getall("command", [])
    if not command:
        raise bad_request("you must specify at least one command for the container")
    process = _process(call, sandboxes, command)
    await socket.prepare(call.request)
    terminal = call.request.query.get("tty") in ("true", "1")
    process.stdout = _writer(socket, _STDOUT, terminal=terminal)
    process.stderr = _writer(socket, _STDOUT if terminal else _STDERR, terminal=terminal)
    receiving = asyncio.create_task(_receive(socket, process))
    running = asyncio.create_task(_run(process, terminal=terminal))
    try:
        await asyncio.wait((receiving, running), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            with contextlib.suppress(ConnectionError):
                await socket.send_bytes(bytes([_ERROR]) + json.dumps(running.result()).encode())
    finally:
        receiving.cancel()
        running.cancel()
        await asyncio.gather(receiving, running, return_exceptions=True)
    await socket.close()
    return socket


def _process(call: Call, sandboxes: Sandboxes, command: list[str]) -> Process:
    pod = call.found().decode()
    meta = pod["metadata"]
    names = [container["name"] for container in pod["spec"]["containers"]]
    container = call.request.query.get("container") or names[0]
    # The process namespace of a debug container is its target's, and so are the files that it looks into.
    targets = {
        one["name"]: one.get("targetContainerName", "") for one in pod["spec"].get("ephemeralContainers", ())
    }
    container = targets.get(container) or container
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {meta['name']}")
    if pod.get("status", {}).get("phase") != "Running" or podlife.behaviour(pod) == "crash":
        raise bad_request(f'unable to upgrade connection: container not found ("{container}")')
    env = {"PATH": "/bin", "HOSTNAME": meta["name"], "HOME": "/root"}
    tree = sandboxes.tree(meta["uid"], container, meta["name"])
    asked_stdin = call.request.query.get("stdin") in ("true", "1")

    async def nowhere(_: bytes) -> None:
        return None

    return Process(command, tree, Stdin(None if asked_stdin else b""), nowhere, nowhere, env)


def _writer(socket: web.WebSocketResponse, channel: int, *, terminal: bool) -> Write:
    prefix = bytes([channel])

    async def write(data: bytes) -> None:
        await socket.send_bytes(prefix + (data.replace(b"\n", b"\r\n") if terminal else data))

    return write


async def _receive(socket: web.WebSocketResponse, process: Process) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STDIN and data:
            await process.stdin.feed(data)
        elif channel == _CLOSE and socket.ws_protocol == PROTOCOLS[0]:
            await process.stdin.feed(None)
        elif channel == _RESIZE:
            with contextlib.suppress(ValueError):
                size = json.loads(data)
                process.env |= {"COLUMNS": str(size.get("Width", 0)), "LINES": str(size.get("Height", 0))}


def _opens_shell(args: list[str]) -> bool:
    """Whether a command is a shell, or a script whose end is to become one (`...; exec sh`)."""
    if args[0] not in ("sh", "bash", "ash", "/bin/sh", "/bin/bash"):
        return False
    return len(args) == 1 or (args[1] == "-c" and args[-1].endswith(("exec sh", "exec bash")))


async def _run(process: Process, *, terminal: bool) -> Json:
    """The `Status` for the error channel."""
    try:
        if terminal and _opens_shell(process.args):
            code = await _terminal(process)
        else:
            code = await run(process, COMMANDS)
    except NotFoundError as error:
        message = f'Internal error occurred: error executing command in container: exec: "{error}": not found'
        return {
            "metadata": {},
            "status": "Failure",
            "reason": "InternalError",
            "message": message,
            "code": 500,
        }
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _terminal(process: Process) -> int:
    """A shell at a terminal: prompt, echo, backspace, Ctrl-C and Ctrl-D."""
    shell = Shell(process, COMMANDS)
    line, status = b"", 0
    await process.print("/ # ")
    while shell.exited is None:
        for key in await process.stdin.read() or b"\x04":
            if key in b"\r\n":
                await process.print("\n")
                status = await shell.run(line.decode(errors="replace"))
                line = b""
                if shell.exited is not None:
                    return shell.exited
                await process.print("/ # ")
            elif key == 0x04 and not line:
                return status
            elif key == 0x03:
                line = b""
                await process.print("^C\n/ # ")
            elif key in b"\x7f\b":
                await process.stdout(b"\b \b" if line else b"")
                line = line[:-1]
            else:
                line += bytes([key])
                await process.stdout(bytes([key]))
    return shell.exited
