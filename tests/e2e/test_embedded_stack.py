"""The embedded stack through the command that people type: up, a second up, kill -9 of everything, down."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from kubelore.stack.ports import free_port

KUBELORE = Path(sys.executable).parent / "kubelore"
SERVICES = {"cluster-registry", "resource-ops", "container-ops", "yaml-vcs", "gateway"}
PROCESSES = {"nats", "mongo", "kubesim", *SERVICES}


@dataclass(frozen=True)
class Machine:
    """A machine with one data directory."""

    data: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [KUBELORE, *arguments],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd="/",
            env={**os.environ, **environment, "KUBELORE_DATA": str(self.data)},
        )

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "-o", "json").stdout)

    def pids(self) -> dict[str, int]:
        return {process["name"]: process["pid"] for process in self.status()["processes"]}

    def clusters(self) -> list[dict[str, Any]]:
        listed = self.run("clusters", "list", "-o", "json")
        assert listed.returncode == 0, listed.stderr
        return json.loads(listed.stdout)["items"]


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.1)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "data")
    yield made
    made.run("down")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, str]]:
    """A machine with a stack that tests may use and must leave running, and what its start printed."""
    made = Machine(tmp_path_factory.mktemp("started") / "data")
    yield made, up(made)
    made.run("down")


def up(machine: Machine, *arguments: str, **environment: str) -> str:
    done = machine.run("up", "--detach", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_up_shows_the_demo_clusters_and_what_to_try(started: tuple[Machine, str]) -> None:
    machine, banner = started
    status = machine.status()
    token = (machine.data / "admin-token").read_text().strip()
    assert status["url"] in banner
    assert token in banner
    assert f"The keyring is in {machine.data}/keyring" in banner
    assert "no backup can be read" in banner
    assert {process["name"] for process in status["processes"]} == PROCESSES
    assert all(process["state"] == "running" for process in status["processes"])
    assert stat.S_IMODE((machine.data / "admin-token").stat().st_mode) == 0o600
    assert len(machine.clusters()) == 2
    listing = next(line for line in banner.splitlines() if line.endswith("clusters list"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBELORE_")}
    as_printed = subprocess.run(
        shlex.split(listing), capture_output=True, text=True, timeout=60, check=True, cwd="/", env=environment
    )
    assert len(as_printed.stdout.splitlines()) == 3


def test_a_second_up_says_where_the_first_one_is(started: tuple[Machine, str]) -> None:
    machine, _ = started
    url = machine.status()["url"]
    for again in (machine.run("up", "--no-demo"), machine.run("up", "--detach")):
        assert again.returncode == 1
        assert f"already runs on {machine.data} at {url}" in again.stderr


def test_data_token_and_address_survive_a_kill_of_everything(machine: Machine) -> None:
    up(machine)
    url = machine.status()["url"]
    before = {cluster["name"]: cluster["created_at"] for cluster in machine.clusters()}
    token = (machine.data / "admin-token").read_text()
    pids = machine.pids()
    psutil.Process(machine.status()["pid"]).kill()
    for pid in pids.values():
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids.values()))
    banner = up(machine)
    assert "keyring is in" not in banner
    assert machine.status()["url"] == url
    assert (machine.data / "admin-token").read_text() == token
    assert {cluster["name"]: cluster["created_at"] for cluster in machine.clusters()} == before
    until(lambda: all(cluster["status"] == "connected" for cluster in machine.clusters()))


def test_a_removed_demo_cluster_stays_removed(machine: Machine) -> None:
    up(machine)
    first, second = (cluster["name"] for cluster in machine.clusters())
    assert machine.run("clusters", "remove", "--yes", first).returncode == 0
    assert machine.run("down").returncode == 0
    up(machine)
    assert [cluster["name"] for cluster in machine.clusters()] == [second]


def test_down_leaves_no_process_and_status_says_so(machine: Machine) -> None:
    up(machine, "--no-demo")
    status = machine.status()
    pids = [status["pid"], *machine.pids().values()]
    assert machine.run("down").returncode == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert machine.run("status").returncode == 1


def test_a_killed_service_is_started_again(started: tuple[Machine, str]) -> None:
    machine, _ = started
    os.kill(machine.pids()["cluster-registry"], signal.SIGKILL)
    registry = "cluster-registry"

    def back() -> bool:
        processes = {process["name"]: process for process in machine.status()["processes"]}
        return processes[registry]["restarts"] == 1 and processes[registry]["state"] == "running"

    until(back)
    assert len(machine.clusters()) == 2


def test_the_token_and_the_port_can_be_chosen(machine: Machine) -> None:
    port, token = free_port(), "chosen-by-the-operator"
    up(machine, "--no-demo", "--port", str(port), KUBELORE_ADMIN_TOKEN=token)
    assert machine.status()["url"] == f"http://127.0.0.1:{port}"
    assert machine.run("--token", "another-token-entirely", "clusters", "list").returncode == 1
    assert machine.run("--token", token, "clusters", "list").returncode == 0


@pytest.fixture
def foreground(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """`kubelore up` in the foreground, ready."""
    process = subprocess.Popen(
        [KUBELORE, "up", "--no-demo"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KUBELORE_DATA": str(machine.data)},
    )
    assert process.stdout is not None
    with process.stdout as output:
        until(lambda: "Ctrl-C" in output.readline())
        yield process
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_foreground_in_order(
    machine: Machine, foreground: subprocess.Popen[str], number: signal.Signals
) -> None:
    pids = machine.pids().values()
    foreground.send_signal(number)
    assert foreground.wait(60) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_second_interrupt_waits_for_nobody(machine: Machine, foreground: subprocess.Popen[str]) -> None:
    pids = machine.pids()
    os.kill(pids["gateway"], signal.SIGSTOP)
    foreground.send_signal(signal.SIGINT)
    until(lambda: machine.status()["phase"] == "stopping")
    foreground.send_signal(signal.SIGINT)
    assert foreground.wait(60) == 130
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


@pytest.mark.parametrize("words", [("backup", "list"), ("backup", "policy", "list"), ("restore", "list")])
def test_an_empty_list_says_how_its_first_entry_is_made(
    started: tuple[Machine, str], words: tuple[str, ...]
) -> None:
    said = started[0].run(*words)
    assert (said.returncode, said.stdout) == (0, "")
    assert ": kubelore " in said.stderr
