"""What the documentation prints is what a reader sees: its commands are run as printed, their output compared in shape.

Every ```console block is a shell session. A line that begins with `$ ` is a
command, what follows is a part of its output: each of these lines must come,
with other names and numbers. The blocks of one document run in one shell.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ELISION = "..."
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The last is the end of a generated name, for which Kubernetes draws from these letters.
OTHERWISE = re.compile(r"\d|^/|\.venv|-[bcdfghjklmnpqrstvwxz2456789]{5}$")
STATES = frozenset({"Running", "CrashLoopBackOff", "Error", "Completed", "Pending", "ContainerCreating"})

_PRELUDE = """exec 2>&1
# Pauses are for a machine with nothing else to do; this one may be running the whole suite.
sleep() { command sleep $(($1 * 3)); }"""

pytestmark = pytest.mark.timeout(240)


@dataclass
class Step:
    """One command, and the lines that the document shows after it."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps_of(document: str) -> list[Step]:
    steps: list[Step] = []
    for block in BLOCK.findall((ROOT / document).read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:]))
            elif steps and steps[-1].command.endswith("\\"):
                steps[-1].command += f"\n{line}"
            elif line.strip() and line.strip() != ELISION:
                steps[-1].shown.append(line)
    return steps


def shape(line: str) -> re.Pattern[str]:
    """What a line may look like on another day: words stay; what holds a digit, is a state or was drawn may differ."""
    words = [
        r"[A-Z]\w+" if word in STATES else r"\S+" if OTHERWISE.search(word) else re.escape(word)
        for word in line.split()
    ]
    return re.compile(r"\s+".join(words))


@dataclass(frozen=True)
class Reader:
    """Somebody with a home of their own who types what a document says, in a folder that only has the project's `.venv`.

    What the commands write beside them is so left out of the checkout.
    """

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("KUBELORE_", "XDG_"))
        }
        return kept | {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=420,
            check=False,
            cwd=self.home,
            env=self.environment,
        )
        return done.stdout + done.stderr

    def type(self, steps: list[Step]) -> list[str]:
        """The output of each command, all in one shell."""
        marked = (f"echo; echo '@@ {number}'\n{step.command}" for number, step in enumerate(steps))
        script = "\n".join((_PRELUDE, *marked, "kill $(jobs -p) 2>/dev/null"))
        output = self.run("bash", "-c", script)
        parts = re.split(r"^@@ \d+\n", output, flags=re.MULTILINE)[1:]
        assert len(parts) == len(steps), output
        return parts


@pytest.fixture(scope="module")
def banner_and_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Reader]]:
    reader = Reader(tmp_path_factory.mktemp("home"))
    (reader.home / ".venv").symlink_to(BIN.parent)
    banner = reader.run("kubelore", "up", "--detach")
    try:
        deadline = time.monotonic() + 60
        while not {"storefront", "postgres"} <= set(
            re.findall(r"[a-z]+", reader.run("kubelore", "get", "pods", "-A"))
        ):
            assert time.monotonic() < deadline, "the demo clusters were not listed in time"
        yield banner, reader
    finally:
        reader.run("kubelore", "down")


@pytest.fixture
def reader(banner_and_reader: tuple[str, Reader]) -> Reader:
    return banner_and_reader[1]


def missing(shown: list[str], output: str) -> list[str]:
    # In JSON the comma belongs to the member's place, and members may change theirs.
    lines = [line.strip().rstrip(",") for line in output.splitlines()]
    return [line for line in shown if not any(shape(line.rstrip(",")).fullmatch(found) for found in lines)]


def with_background(steps: list[Step], outputs: list[str]) -> Iterator[str]:
    """What was there to read at each step: while a command runs in the background, everything since it began."""
    since: int | None = None
    for number, step in enumerate(steps):
        if step.command.endswith(" &"):
            since = number
        elif step.command.startswith("kill "):
            since = None
        yield "".join(outputs[number if since is None else since : number + 1])


def test_the_readme_shows_what_the_start_prints(banner_and_reader: tuple[str, Reader]) -> None:
    first = steps_of("README.md")[0]
    assert first.command == "make up"
    only_in_the_foreground = ("Starting on", "Ctrl-C")
    shown = [line for line in first.shown if not line.startswith(only_in_the_foreground)]
    assert missing(shown, banner_and_reader[0]) == []


@pytest.mark.parametrize("document", ["README.md", "docs/user-guide.md", "docs/api.md", "docs/operations.md"])
def test_a_document_shows_what_its_commands_print(reader: Reader, document: str) -> None:
    steps = [step for step in steps_of(document) if not step.command.startswith("make ")]
    assert steps, f"{document} shows no command"
    for step, output in zip(steps, with_background(steps, reader.type(steps)), strict=True):
        absent = missing(step.shown, output)
        assert not absent, f"{document}: $ {step.command}\n\nprinted\n{output}\nbut not\n" + "\n".join(absent)
