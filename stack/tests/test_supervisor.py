"""The supervisor: what ends is started again, what stops stops in order, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from kubelore.common.errors import Unavailable
from kubelore.stack.child import Command, Identity
from kubelore.stack.layout import ProcessState, RunningStack
from kubelore.stack.leftovers import end_leftovers
from kubelore.stack.supervisor import Backoff, Supervisor

SERVES = """
import pathlib, signal, sys, time
def stop(*_):
    with open("stopped", "a") as file:
        file.write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
pathlib.Path(sys.argv[1] + ".ready").touch()
while True:
    time.sleep(60)
"""
DEAF = SERVES.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


@dataclass(frozen=True)
class Script:
    """A Python program that says by a file that it is ready."""

    name: str
    folder: Path
    code: str = SERVES
    ready_within_s: float = 20.0

    @property
    def ready(self) -> Path:
        return self.folder / f"{self.name}.ready"

    async def prepare(self) -> None:
        self.ready.unlink(missing_ok=True)

    def command(self) -> Command:
        return Command(self.name, (sys.executable, "-c", self.code, self.name), cwd=self.folder, grace_s=0.5)

    async def probe(self) -> bool:
        return self.ready.exists()


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the condition lies in another process
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="session")
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    quick = Backoff(first_s=0.05, longest_s=0.1)
    made = Supervisor(tmp_path / "logs", say=lambda _: None, changed=lambda: None, backoff=quick)
    yield made
    await made.kill()


async def test_a_killed_process_is_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Script("gateway", tmp_path))
    (first,) = supervisor.processes()
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: supervisor.processes()[0].restarts == 1)
    await until(lambda: supervisor.processes()[0].state == "running")
    (second,) = supervisor.processes()
    assert second.pid != first.pid
    assert psutil.pid_exists(second.pid)


async def test_groups_stop_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Script("nats", tmp_path))
    await supervisor.start(Script("gateway", tmp_path))
    await supervisor.stop()
    assert (tmp_path / "stopped").read_text().split() == ["gateway", "nats"]
    assert [process.state for process in supervisor.processes()] == ["stopped", "stopped"]


async def test_a_process_that_does_not_stop_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Script("gateway", tmp_path, DEAF))
    (process,) = supervisor.processes()
    await supervisor.stop()
    assert not psutil.pid_exists(process.pid)


async def test_a_failed_first_start_tells_the_last_lines_of_the_log(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="no database at port 27017") as caught:
        await supervisor.start(Script("gateway", tmp_path, "raise SystemExit('no database at port 27017')"))
    assert "gateway ended with code 1" in caught.value.detail
    assert str(tmp_path / "logs" / "gateway.log") in str(caught.value.remedy)


async def test_a_process_that_is_never_ready_is_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    silent = "import time\nwhile True: time.sleep(60)"
    with pytest.raises(Unavailable, match=r"not ready within 0\.3 s"):
        await supervisor.start(Script("gateway", tmp_path, silent, ready_within_s=0.3))
    (process,) = supervisor.processes()
    assert not psutil.pid_exists(process.pid)


async def test_a_process_that_keeps_failing_is_waited_for_longer_and_longer(tmp_path: Path) -> None:
    said: list[str] = []
    backoff = Backoff(first_s=0.02, longest_s=0.07)
    supervisor = Supervisor(tmp_path / "logs", say=said.append, changed=lambda: None, backoff=backoff)
    fails_later = SERVES.replace("True", "not pathlib.Path('broken').exists()").replace("60", "0.01")
    try:
        await supervisor.start(Script("gateway", tmp_path, fails_later))
        (tmp_path / "broken").touch()
        await until(lambda: sum("ended with code" in line for line in said) >= 4)
    finally:
        await supervisor.stop()
    waits = [line.rsplit(" in ", 1)[1] for line in said if "ended with code" in line]
    assert waits[:4] == ["0.02 s", "0.04 s", "0.07 s", "0.07 s"]


def test_a_stable_minute_forgives_earlier_failures() -> None:
    backoff = Backoff()
    assert backoff.failures(7, ran_s=61.0) == 1
    assert backoff.failures(7, ran_s=3.0) == 8
    assert backoff.wait_s(1) == 0.5
    assert backoff.wait_s(1000) == 30.0


SUPERVISES = """
import asyncio, pathlib, sys
sys.path.insert(0, sys.argv[1])
from test_supervisor import Script, Supervisor
async def main():
    folder = pathlib.Path(sys.argv[2])
    supervisor = Supervisor(folder / "logs", say=print, changed=lambda: None)
    await supervisor.start(Script("nats", folder), Script("gateway", folder))
    print(*(process.pid for process in supervisor.processes()), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends children with their parent")
async def test_nothing_survives_a_kill_of_the_supervisor(tmp_path: Path) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - it is killed, not awaited
        [sys.executable, "-c", SUPERVISES, str(Path(__file__).parent), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    children = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(children) == 2
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in children))


def recorded(pid: int, started_at: float) -> RunningStack:
    process = ProcessState("gateway", "running", pid, started_at, since=time.time())
    return RunningStack(1, 0.0, "http://127.0.0.1:1", "ready", time.time(), (process,))


def test_leftovers_of_a_killed_stack_are_ended() -> None:
    left = subprocess.Popen(["sleep", "60"], start_new_session=True)
    identity = Identity.of(left.pid)
    assert identity is not None
    assert end_leftovers(recorded(left.pid, identity.started_at)) == ["gateway"]
    assert not psutil.pid_exists(left.pid)


def test_a_process_that_only_has_the_pid_of_a_leftover_is_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        identity = Identity.of(stranger.pid)
        assert identity is not None
        assert end_leftovers(recorded(stranger.pid, identity.started_at - 100)) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)
