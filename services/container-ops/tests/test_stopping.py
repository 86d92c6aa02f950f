"""Which processes a command is, when it has to be ended."""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.container_ops.stopping import KILL, Process, ProcessRow, candidates, family, read_table

INIT = ProcessRow(1, "sleep", 0, 1, 1000.0)
TABLE = """1565.51 0
1 (sleep) S 0 1 1 0 -1 4194560 670 0 0 0 0 0 0 0 20 0 1 0 156316 2322432 315
7 (a) (b c) S 0 7 7 0 -1 4194560 533 0 0 0 0 0 0 0 20 0 1 0 156358 2322432 315
8 (vanished
"""


def test_a_process_table_is_read_whatever_processes_call_themselves() -> None:
    assert read_table(TABLE) == [
        ProcessRow(1, "sleep", 0, 1, 1565.51 - 1563.16, 156316),
        ProcessRow(7, "a) (b c", 0, 7, 1565.51 - 1563.58, 156358),
    ]
    assert read_table("nothing like that") == []


def test_where_what_came_by_exec_has_a_parent_nothing_is_told_apart() -> None:
    assert read_table(TABLE.replace("1565.51 0", "1565.51 4711")) == []


def test_a_command_goes_with_its_session_and_its_descendants() -> None:
    rows = [
        INIT,
        ProcessRow(7, "sh", 0, 7, 5.0, 100),
        ProcessRow(8, "make", 7, 7, 4.0),
        ProcessRow(9, "cc", 8, 9, 3.0),
        ProcessRow(10, "orphan", 1, 7, 3.0),
        ProcessRow(20, "sh", 0, 20, 500.0),
    ]
    assert family(rows, Process(7, 100)) == [7, 8, 9, 10]


def test_who_has_the_pid_of_a_command_that_is_gone_is_left_alone() -> None:
    assert family([INIT, ProcessRow(7, "sh", 0, 7, 5.0, 200)], Process(7, 100)) == []
    assert family([INIT, ProcessRow(7, "cc", 3, 3, 5.0, 100)], Process(7, 100)) == []


def test_of_two_that_began_together_the_name_decides() -> None:
    cat = ProcessRow(8, "cat", 0, 8, 5.0)
    rows = [INIT, ProcessRow(7, "sleep", 0, 7, 5.0), cat]
    assert candidates(rows, ["/bin/cat"], 4.5, 5.5) == [cat]


def test_several_that_it_may_be_are_all_named() -> None:
    rows = [INIT, ProcessRow(7, "cat", 0, 7, 5.0), ProcessRow(8, "cat", 0, 8, 5.0)]
    assert candidates(rows, ["cat"], 4.5, 5.5) == rows[1:]


ROWS = st.lists(
    st.builds(
        ProcessRow,
        st.integers(1, 50),
        st.sampled_from(["sh", "cat"]),
        st.integers(0, 50),
        st.integers(1, 50),
        st.floats(0, 100),
        st.integers(1, 5),
    ),
    max_size=30,
)


@given(ROWS)
def test_the_first_process_of_a_container_and_what_has_a_parent_is_never_a_command(
    rows: list[ProcessRow],
) -> None:
    for row in candidates(rows, ["sh"], 1.0, 2.0):
        assert row.pid != 1
        assert row.parent == 0
        assert 1.0 <= row.age_s <= 2.0


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
