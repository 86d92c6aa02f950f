"""Terminals: commands in containers that somebody is attached to, and the recordings of what they showed.

A command is carried by a session of the bus. Each frame is a byte for the
channel and its payload, as in `v5.channel.k8s.io`: 0 stdin, 1 stdout, 2 stderr,
3 the Status at the end, 4 the size of the terminal, 255 the end of a channel's
input. A client that finishes its side hangs up; one that is lost is waited for.
"""

from __future__ import annotations

import re

import msgspec

from kubelore.common.contracts.container_history import ContainerOperationRef
from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.errors import BadRequest

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
MAX_PAYLOAD = 32 * 1024
"""Bytes of a frame's payload: as much as kubectl sends at once."""
MAX_SIDE = 1000
"""Columns or rows that a terminal may have."""

_ID = re.compile(r"(?P<replica>[-a-z0-9]{1,63})\.[0-9a-f]{32}\Z")


class OpenTerminal(msgspec.Struct, kw_only=True):
    """Start a command; without one, a shell. `target` is a container id.

    With `tty` it can be detached from and attached to again, and is recorded.
    With `debug` it runs in an ephemeral container beside the target, which is
    made for it when there is none.
    """

    target: str
    command: list[str] = []
    tty: bool = True
    stdin: bool = True
    columns: int = 80
    rows: int = 24
    reason: str = ""
    debug: bool = False


class OpenedTerminal(msgspec.Struct, kw_only=True):
    """It runs, and waits a minute for somebody to attach. `id` names it; `target` is where it runs."""

    id: str
    target: str
    command: list[str]
    operation_id: str


class AttachTerminal(msgspec.Struct, kw_only=True):
    """Take a terminal over, or with `watch` see what it shows."""

    id: str
    watch: bool = False


class AttachedTerminal(msgspec.Struct, kw_only=True):
    """`session` is the id of the session that carries it; what was shown last comes first."""

    session: str
    target: str
    tty: bool


class EndTerminal(msgspec.Struct, frozen=True):
    """Hang up, whoever is attached."""

    id: str


class EndedTerminal(msgspec.Struct):
    """It has ended."""

    id: str


class RecordingSession(msgspec.Struct, kw_only=True):
    """`session` carries the recording in asciicast v2; `whole` says that the terminal's end is in it."""

    session: str
    whole: bool


def replica_of(terminal: str) -> str:
    """The replica that holds a terminal. Raises BadRequest for what is no id of one."""
    found = _ID.match(terminal)
    if found is None:
        raise BadRequest(
            "that is no session of a terminal", remedy="Use the `session_id` that opening answered."
        )
    return found["replica"]


OPEN_TERMINAL = Endpoint(SERVICE, "open-terminal", OpenTerminal, OpenedTerminal, deadline_s=75.0)
ATTACH_TERMINAL = Endpoint(
    SERVICE, "attach-terminal", AttachTerminal, AttachedTerminal, scope="replica", deadline_s=5.0
)
END_TERMINAL = Endpoint(SERVICE, "end-terminal", EndTerminal, EndedTerminal, scope="replica", deadline_s=10.0)
RECORDING = Endpoint(SERVICE, "read-recording", ContainerOperationRef, RecordingSession, deadline_s=10.0)

ENDPOINTS = (OPEN_TERMINAL, ATTACH_TERMINAL, END_TERMINAL, RECORDING)
