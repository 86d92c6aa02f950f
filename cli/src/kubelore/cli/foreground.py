"""A stack in the foreground of a terminal: from the first line to an ordered stop, or a forced one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time

import typer

from kubelore.cli.banner import print_banner
from kubelore.stack.embedded import Choices, EmbeddedStack

_FORCED = 130


def run(choices: Choices, *, verbose: bool, with_banner: bool) -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; the exit code.

    A second SIGINT ends everything at once.
    """
    return asyncio.run(_run(choices, verbose, with_banner))


async def _run(choices: Choices, verbose: bool, with_banner: bool) -> int:
    begun = time.monotonic()
    stopping, forced = asyncio.Event(), asyncio.Event()
    _on_signals(stopping, forced)
    stack = EmbeddedStack(choices, say=_say, terminal=sys.stderr.buffer if verbose else None)
    if with_banner:
        _say(f"Starting on {stack.directory.root} ...")
    starting = asyncio.create_task(stack.start())
    try:
        if await _first(starting, stopping):
            if with_banner:
                took_s = time.monotonic() - begun
                print_banner(stack.directory, stack.url, first_start=stack.first_start, took_s=took_s)
                typer.echo("\nCtrl-C stops it.")
            await stopping.wait()
        if with_banner:
            _say("Stopping ...")
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        ordered = await _stop(stack, forced)
    return 0 if ordered else _FORCED


async def _first(starting: asyncio.Task[None], stopping: asyncio.Event) -> bool:
    """Whether the start ended first; raises what it failed with."""
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if not starting.done():
        return False
    starting.result()
    return True


async def _stop(stack: EmbeddedStack, forced: asyncio.Event) -> bool:
    stop, force = asyncio.create_task(stack.stop()), asyncio.create_task(forced.wait())
    await asyncio.wait({stop, force}, return_when=asyncio.FIRST_COMPLETED)
    force.cancel()
    if stop.done():
        stop.result()
        return True
    stop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stop
    await stack.kill()
    return False


def _on_signals(stopping: asyncio.Event, forced: asyncio.Event) -> None:
    def interrupted() -> None:
        if stopping.is_set():
            forced.set()
        stopping.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)


def _say(text: str) -> None:
    typer.echo(text, err=True)
