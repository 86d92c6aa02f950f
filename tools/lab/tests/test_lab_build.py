"""The builder writes modules that build, keeps what it built, and says in a line why it can't."""

import os
import stat
import threading
from pathlib import Path

import pytest

from kubelore.lab import build, recipes
from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.gomodule import Go, consumer_module
from kubelore.lab.recipes import IDLE, KUBERNETES, Recipe

_FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.26.0; echo local ;;
build)
  echo build >> "$FAKE_GO_CALLS"
  [ -z "$FAKE_GO_FAILS" ] || { echo "main.go:1: broken" >&2; exit 1; }
  while [ "$1" != -o ]; do shift; done
  sleep 0.2; echo program > "$2" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a `go` that only notes that it was called, in `calls` of the folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    go = tools / "go"
    go.write_text(_FAKE_GO)
    go.chmod(go.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBELORE_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO_CALLS", str(tmp_path / "calls"))
    (tmp_path / "calls").touch()
    return tmp_path


def test_staging_modules_get_their_published_version() -> None:
    upstream = {
        "Go": "1.24.0",
        "Godebug": [{"Key": "default", "Value": "go1.24"}],
        "Require": [
            {"Path": "k8s.io/api", "Version": "v0.0.0"},
            {"Path": "k8s.io/klog/v2", "Version": "v2.130.1"},
        ],
    }

    lines = consumer_module(KUBERNETES, upstream).splitlines()

    assert "go 1.24.0" in lines
    assert "godebug default=go1.24" in lines
    assert "require k8s.io/kubernetes v1.34.4" in lines
    assert "replace k8s.io/api => k8s.io/api v0.34.4" in lines
    assert [line for line in lines if "klog" in line] == ["require k8s.io/klog/v2 v2.130.1"]


def test_a_program_is_built_once_even_for_two_who_want_it_at_once(machine: Path) -> None:
    callers = [threading.Thread(target=build.ensure, args=([IDLE],)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    build.ensure([IDLE])

    assert (machine / "calls").read_text().splitlines() == ["build"]
    assert build.program(IDLE, "idle").read_text() == "program\n"


def test_a_failed_build_tells_why_and_leaves_nothing_that_looks_built(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO_FAILS", "1")

    with pytest.raises(LabError, match=r"main\.go:1: broken"):
        build.ensure([IDLE])

    assert not build.is_built(IDLE)
    assert [path.name for path in (machine / "cache").iterdir()] == ["idle.lock"]


def test_leftovers_of_a_killed_build_are_removed_by_the_next(machine: Path) -> None:
    leftover = machine / "cache" / ".idle.build-killed"
    leftover.mkdir(parents=True)

    build.ensure([IDLE])

    assert not leftover.exists()


def test_another_version_is_another_folder() -> None:
    changed = Recipe(**{**IDLE.__dict__, "version": "v2"})

    assert changed.key != IDLE.key


def test_a_machine_without_go_says_so_in_one_line(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "cache"))
    monkeypatch.setenv("GOROOT", str(machine / "cache"))

    with pytest.raises(LabUnavailableError) as refused:
        build.ensure([IDLE])

    assert "go is not on the PATH" in refused.value.reason
    assert "\n" not in refused.value.reason


@pytest.mark.parametrize(("have", "fine"), [("1.24.0", True), ("1.26.8", True), ("1.23.9", False)])
def test_an_older_go_than_the_module_wants_is_refused(have: str, fine: bool) -> None:
    go = Go("go", have)

    if fine:
        go.require("1.24.0", recipes.KUBERNETES.module)
    else:
        with pytest.raises(LabUnavailableError, match=r"needs Go 1\.24\.0, this machine has 1\.23\.9"):
            go.require("1.24.0", recipes.KUBERNETES.module)
