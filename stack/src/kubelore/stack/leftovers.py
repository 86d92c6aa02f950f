"""Processes that a killed supervisor left behind, found by what it wrote down, and ended."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

from kubelore.stack.layout import RunningStack

_GRACE_S = 10.0


def end_leftovers(last: RunningStack) -> list[str]:
    """End what still runs of that stack, and wait until it is gone; returns the names.

    A process is ended only when its pid and its start time are the recorded
    ones: by now the pid may belong to somebody else.
    """
    found = [(process.name, alive) for process in last.processes if (alive := process.identity.process())]
    for _, process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    processes = [process for _, process in found]
    _, stubborn = psutil.wait_procs(processes, timeout=_GRACE_S)
    for process in stubborn:
        # Every child of the stack leads a group of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=_GRACE_S)
    return [name for name, _ in found]
