"""Running a command in a container: asked for once, then carried by a session.

Frames of the session begin with a byte for their channel (`Stream`). The caller
sends STDIN and then STDIN_END; STDOUT and STDERR come back, and last END with an
`ExecEnd` in msgpack. A caller that leaves the session ends the command.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint

MAX_WORDS = 1000
MAX_COMMAND_BYTES = 128 * 1024
MAX_TIMEOUT_S = 3600.0
MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""Of each of stdout and stderr, in an answer that is collected."""
MAX_TARGETS = 500


class Stream(IntEnum):
    """The first byte of a frame."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    END = 3
    STDIN_END = 255


class StartExec(msgspec.Struct, kw_only=True):
    """Run `command` in the container `id`; its words go there as they are, without a shell.

    `timeout_s` is after how long it is stopped. Of stdout and stderr each at most
    `output_bytes` are passed on, 0 for all; the rest is read and dropped. `debug`
    runs it in an ephemeral container beside the target, made where there is none.
    """

    id: str
    command: list[str]
    stdin: bool = False
    tty: bool = False
    timeout_s: float = 60.0
    output_bytes: int = 0
    reason: str = ""
    debug: bool = False


class StartedExec(msgspec.Struct, kw_only=True):
    """It begins; `session` carries it. `id` names the container where `StartExec` left that open."""

    session: str
    operation_id: str
    id: str


class ExecEnd(msgspec.Struct, kw_only=True):
    """How a command ended. Without an exit code it was stopped for its time.

    `stopped` says of such a one whether it was seen to end: where a container has
    no shell, nobody can end a command in it.
    """

    exit_code: int | None = None
    duration_ms: int = 0
    truncated: bool = False
    timed_out: bool = False
    stopped: bool = False


class FindContainers(msgspec.Struct, kw_only=True):
    """The running containers of a selection of pods in one cluster, where the caller may run commands.

    `workload` is `deployments.apps/web` in the one namespace named; `container`
    is each pod's default where it is empty.
    """

    cluster: str
    namespaces: list[str] = []
    labels: str = ""
    workload: str = ""
    container: str = ""
    limit: int = MAX_TARGETS


class FoundContainers(msgspec.Struct, kw_only=True):
    """Container ids; `more` says that there are others over the limit."""

    ids: list[str]
    more: bool = False


class DebugContainer(msgspec.Struct, kw_only=True):
    """Have an ephemeral container beside `id`, in its process namespace; one that runs is used again."""

    id: str
    reason: str = ""


class DebugContainerReady(msgspec.Struct, kw_only=True):
    """The debug container runs; below `root` are the files of the one it is for."""

    id: str
    target: str
    root: str


EXEC = Endpoint(SERVICE, "exec", StartExec, StartedExec, deadline_s=90.0)
FIND_CONTAINERS = Endpoint(SERVICE, "find-containers", FindContainers, FoundContainers, deadline_s=30.0)
DEBUG = Endpoint(SERVICE, "debug", DebugContainer, DebugContainerReady, deadline_s=90.0)

ENDPOINTS = (EXEC, FIND_CONTAINERS, DEBUG)
