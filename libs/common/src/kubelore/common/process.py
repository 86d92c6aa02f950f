"""How a service's process begins and ends: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import uvloop

from kubelore.common import telemetry
from kubelore.common.errors import KubeloreError
from kubelore.common.settings import CommonSettings

S = TypeVar("S", bound=CommonSettings)


def run(
    service: str,
    settings: S,
    main: Callable[[S, asyncio.Event], Awaitable[None]],
    *,
    fast: bool = True,
) -> None:
    """Run `main(settings, stopping)` until it returns; SIGTERM and SIGINT set `stopping`.

    `fast` is uvloop. Its TLS loses what a peer sent before it closed, when
    reading was paused by then: a service that reads streams to their end at the
    speed of somebody else needs asyncio's own loop (docs/decisions/0111).

    Exits with 1 and one clear line when a typed error ends the service; any
    other exception leaves its traceback in the log.
    """
    telemetry.configure(service, settings)
    log = telemetry.get_logger(service)
    try:
        (uvloop.run if fast else asyncio.run)(_until_stopped(settings, main))
    except KubeloreError as error:
        log.error("service ended", reason=error.reason, detail=error.detail, remedy=error.remedy)
        sys.exit(1)


async def _until_stopped(settings: S, main: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await main(settings, stopping)


async def until_stopped_or_failed(stopping: asyncio.Event, background: Sequence[asyncio.Task[None]]) -> None:
    """Wait for `stopping`, or raise what ended a background task; then cancel them all.

    A background task that returns without being asked to counts as a failure:
    a service that silently stopped doing half its work must not look healthy.
    """
    stopped = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait({stopped, *background}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
            raise RuntimeError(f"{task.get_coro()} ended by itself")
    finally:
        for task in (stopped, *background):
            task.cancel()
        await asyncio.gather(stopped, *background, return_exceptions=True)
