"""Ending a command whose caller left or whose time is over.

An API server only hangs up: the command goes on. So it is looked for among the
processes of its container. A command that came in by exec has no parent there,
and started while we asked for it; by that it is told from others. It ends with
all of its session and descendants: SIGTERM, and after two seconds SIGKILL. Where
a container has no shell nothing can be ended, and the answer says so.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import KubeloreError
from kubelore.common.kube import Channel
from kubelore.common.reach import Reached

TICKS_PER_S = 100
"""USER_HZ of Linux, on every architecture that Kubernetes runs on."""
STOP_S = 10.0
_MAX_TABLE = 4 * 1024 * 1024
_SLACK_S = 0.25
_BECOME_OTHERS = frozenset({"sh", "bash", "ash", "dash", "zsh", "env", "nice", "timeout", "su", "sudo"})
"""Programs that go on under another name by `exec`: of several that began together, one of that name may be another's."""

_TABLE = (
    'read up _ </proc/uptime; echo "$up $PPID"; '
    'for d in /proc/[0-9]*; do [ $d = /proc/$$ ] || { read -r l <$d/stat && echo "$l"; }; done'
)
KILL = (
    'left() { for p; do kill -0 "$p" 2>/dev/null && return; done; return 1; }; '
    'kill -TERM "$@" 2>/dev/null; n=0; '
    'while [ $n -lt 2 ]; do left "$@" || exit 0; sleep 1; n=$((n+1)); done; '
    'kill -KILL "$@" 2>/dev/null; exit 0'
)
"""Asks after each by itself: of several, shells differ in what it means that one is gone."""


class ProcessRow(NamedTuple):
    """What of a process' `stat` is used; `age_s` is how long it has run."""

    pid: int
    name: str
    parent: int
    session: int
    age_s: float


def read_table(text: str) -> list[ProcessRow]:
    """The processes in the output of `_TABLE`, but its own; lines that are none are left out.

    None where what read them has a parent, although it came by exec: no other
    can be told by having none then.
    """
    first, _, rest = text.partition("\n")
    moment, _, parent = first.partition(" ")
    if parent != "0":
        return []
    try:
        uptime = float(moment)
    except ValueError:
        return []
    return [row for line in rest.splitlines() if (row := _row(line, uptime)) is not None]


def _row(line: str, uptime: float) -> ProcessRow | None:
    # The name stands in parentheses and may hold any of them, and spaces.
    head, _, tail = line.rpartition(") ")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    try:
        return ProcessRow(
            int(pid), name, int(fields[1]), int(fields[3]), uptime - int(fields[19]) / TICKS_PER_S
        )
    except (ValueError, IndexError):
        return None


def to_end(rows: Sequence[ProcessRow], command: Sequence[str], least_s: float, most_s: float) -> list[int]:
    """The pids of a command that began between `most_s` and `least_s` ago, and of all it started.

    Empty when it is gone, and also when several may be meant: none is ended then
    that may be another's.
    """
    began = [
        row for row in rows if row.pid != 1 and row.parent == 0 and least_s <= row.age_s + 1e-6 <= most_s
    ]
    name = posixpath.basename(command[0])[:15]
    if len(began) > 1 and name not in _BECOME_OTHERS:
        began = [row for row in began if row.name == name]
    if len(began) != 1:
        return []
    family = {began[0].pid}
    while True:
        more = {row.pid for row in rows if row.parent in family or row.session == began[0].pid} - family
        if not more:
            return sorted(family)
        family |= more


async def stop(
    reached: Reached, target: ContainerId, command: Sequence[str], asked_at: float, opened_at: float
) -> bool:
    """End a command that was asked for and began at these times of the loop; whether it is known to have ended.

    Takes at most 10 s, and never raises for what the cluster says.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(STOP_S):
            before = loop.time()
            rows = read_table((await _output(reached, target, ["sh", "-c", _TABLE])).decode(errors="replace"))
            least, most = before - opened_at - _SLACK_S, loop.time() - asked_at + _SLACK_S
            if not rows:
                return False
            if pids := to_end(rows, command, least, most):
                await _output(reached, target, ["sh", "-c", KILL, "sh", *map(str, pids)])
                return True
            return not any(row.parent == 0 and least <= row.age_s <= most for row in rows)
    except (KubeloreError, TimeoutError):
        return False


async def _output(reached: Reached, target: ContainerId, command: list[str]) -> bytes:
    held = bytearray()
    stream = await reached.client.exec(target.namespace, target.pod, target.container, command)
    async with stream:
        async for channel, data in stream:
            if channel == Channel.STDOUT and len(held) < _MAX_TABLE:
                held += data
    return bytes(held)
