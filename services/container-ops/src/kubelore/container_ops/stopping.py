"""Which process of a container a command is, and how it is ended.

An API server only hangs up: the command goes on. So it is looked for among the
processes of its container. A command that came in by exec has no parent there,
and started while we asked for it; by that it is told from others, as long as it
is known to run (`sighting.py`). From then on it is the process with that pid and
that start, which no other has. It ends with all of its session and descendants:
SIGTERM, and after two seconds SIGKILL. Where a container has no shell nothing
can be ended, and the answer says so.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.kube import Channel
from kubelore.common.reach import Reached

TICKS_PER_S = 100
"""USER_HZ of Linux, on every architecture that Kubernetes runs on."""
_MAX_TABLE = 4 * 1024 * 1024
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


class Process(NamedTuple):
    """Which process a command is: its pid in its container, and when it began, in ticks after the node did."""

    pid: int
    began: int


Ending: TypeAlias = Literal["ended", "gone", "unknown"]
"""What became of a process that was to end: `gone` is one that had ended before."""


class ProcessRow(NamedTuple):
    """What of a process' `stat` is used; `age_s` is how long it has run, `began` when it began, in ticks."""

    pid: int
    name: str
    parent: int
    session: int
    age_s: float
    began: int = 0

    @property
    def process(self) -> Process:
        """What tells it from every other."""
        return Process(self.pid, self.began)


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
        began = int(fields[19])
        age_s = uptime - began / TICKS_PER_S
        return ProcessRow(int(pid), name, int(fields[1]), int(fields[3]), age_s, began)
    except (ValueError, IndexError):
        return None


def candidates(
    rows: Sequence[ProcessRow], command: Sequence[str], least_s: float, most_s: float
) -> list[ProcessRow]:
    """The processes that may be a command that began between `most_s` and `least_s` ago."""
    began = [
        row for row in rows if row.pid != 1 and row.parent == 0 and least_s <= row.age_s + 1e-6 <= most_s
    ]
    name = posixpath.basename(command[0])[:15]
    if len(began) > 1 and name not in _BECOME_OTHERS:
        began = [row for row in began if row.name == name]
    return began


def family(rows: Sequence[ProcessRow], process: Process) -> list[int]:
    """The pids of a command and of all it started; empty when it is gone."""
    if not any(row.process == process and row.parent == 0 for row in rows):
        return []
    found = {process.pid}
    while True:
        more = {row.pid for row in rows if row.parent in found or row.session == process.pid} - found
        if not more:
            return sorted(found)
        found |= more


async def processes(reached: Reached, target: ContainerId) -> list[ProcessRow]:
    """The processes of a container; none where they cannot be told apart. Raises what `KubeClient.exec` does."""
    return read_table((await _output(reached, target, ["sh", "-c", _TABLE])).decode(errors="replace"))


async def end_process(
    reached: Reached, target: ContainerId, process: Process, rows: Sequence[ProcessRow]
) -> Ending:
    """End a command and all it started, as they are in the table. Raises what `KubeClient.exec` does."""
    if not rows:
        return "unknown"
    if not (pids := family(rows, process)):
        return "gone"
    await _output(reached, target, ["sh", "-c", KILL, "sh", *map(str, pids)])
    return "ended"


async def _output(reached: Reached, target: ContainerId, command: list[str]) -> bytes:
    held = bytearray()
    stream = await reached.client.exec(target.namespace, target.pod, target.container, command)
    async with stream:
        async for channel, data in stream:
            if channel == Channel.STDOUT and len(held) < _MAX_TABLE:
                held += data
    return bytes(held)
