"""Which processes a command is, when it has to be ended."""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.container_ops.stopping import KILL, ProcessRow, read_table, to_end

INIT = ProcessRow(1, "sleep", 0, 1, 1000.0)
TABLE = """1565.51 0
1 (sleep) S 0 1 1 0 -1 4194560 670 0 0 0 0 0 0 0 20 0 1 0 156316 2322432 315
7 (a) (b c) S 0 7 7 0 -1 4194560 533 0 0 0 0 0 0 0 20 0 1 0 156358 2322432 315
8 (vanished
"""


def test_a_process_table_is_read_whatever_processes_call_themselves() -> None:
    assert read_table(TABLE) == [
        ProcessRow(1, "sleep", 0, 1, 1565.51 - 1563.16),
        ProcessRow(7, "a) (b c", 0, 7, 1565.51 - 1563.58),
    ]
    assert read_table("nothing like that") == []


def test_where_what_came_by_exec_has_a_parent_nothing_is_told_apart() -> None:
    assert read_table(TABLE.replace("1565.51 0", "1565.51 4711")) == []


def test_a_command_goes_with_its_session_and_its_descendants() -> None:
    rows = [
        INIT,
        ProcessRow(7, "sh", 0, 7, 5.0),
        ProcessRow(8, "make", 7, 7, 4.0),
        ProcessRow(9, "cc", 8, 9, 3.0),
        ProcessRow(10, "orphan", 1, 7, 3.0),
        ProcessRow(20, "sh", 0, 20, 500.0),
    ]
    assert to_end(rows, ["sh", "-c", "make"], 4.5, 5.5) == [7, 8, 9, 10]


def test_of_two_that_began_together_the_name_decides() -> None:
    rows = [INIT, ProcessRow(7, "sleep", 0, 7, 5.0), ProcessRow(8, "cat", 0, 8, 5.0)]
    assert to_end(rows, ["/bin/cat"], 4.5, 5.5) == [8]


def test_nothing_is_ended_where_it_may_be_anothers() -> None:
    rows = [INIT, ProcessRow(7, "cat", 0, 7, 5.0), ProcessRow(8, "cat", 0, 8, 5.0)]
    assert to_end(rows, ["cat"], 4.5, 5.5) == []


@given(
    st.lists(
        st.builds(
            ProcessRow,
            st.integers(1, 50),
            st.sampled_from(["sh", "cat"]),
            st.integers(0, 50),
            st.integers(1, 50),
            st.floats(0, 100),
        ),
        max_size=30,
    )
)
def test_the_first_process_of_a_container_is_never_where_it_begins(rows: list[ProcessRow]) -> None:
    ended = to_end(rows, ["sh"], 1.0, 2.0)
    began = [row for row in rows if row.parent == 0 and row.pid != 1 and 1.0 <= row.age_s <= 2.0]
    assert not ended or began


@pytest.mark.parametrize("shell", [["bash"], ["dash"], ["busybox", "sh"]], ids=" ".join)
def test_what_does_not_care_to_be_told_is_killed_although_others_are_gone(shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} here")
    loop = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with (
        subprocess.Popen(["sh", "-c", loop], stdout=subprocess.PIPE) as stubborn,
        subprocess.Popen(["sleep", "60"]) as willing,
    ):
        try:
            assert stubborn.stdout is not None
            assert stubborn.stdout.readline() == b"ready\n"
            killing = subprocess.Popen([*shell, "-c", KILL, "sh", str(stubborn.pid), str(willing.pid)])
            codes = [one.wait(20) for one in (willing, stubborn, killing)]
            assert codes == [-signal.SIGTERM, -signal.SIGKILL, 0]
        finally:
            stubborn.kill()
            willing.kill()
