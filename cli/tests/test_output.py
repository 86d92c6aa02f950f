"""What the commands print is coloured for eyes, and plain for everything else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = "from kubelore.cli.output import warn; warn('careful')"


def on_a_terminal(**environment: str) -> bytes:
    """What a warning writes to a terminal on stderr."""
    ours, theirs = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stderr=theirs,
        env={**known, "TERM": "xterm", **environment},
        check=True,
        timeout=60,
    )
    os.close(theirs)
    said = os.read(ours, 4096)
    os.close(ours)
    return said


def test_a_warning_is_yellow_on_a_terminal() -> None:
    assert on_a_terminal() == b"\x1b[33mcareful\x1b[0m\r\n"


def test_with_no_color_a_terminal_gets_no_control_sequence_at_all() -> None:
    assert on_a_terminal(NO_COLOR="1") == b"careful\r\n"


def test_a_pipe_gets_plain_text() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    assert said.stderr == b"careful\n"
