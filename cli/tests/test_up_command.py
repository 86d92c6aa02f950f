"""`kubelore` on a machine where nothing runs yet: what it finds, what it refuses, what it says."""

from __future__ import annotations

import base64
import http.server
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelore.cli.__main__ import main
from kubelore.cli.banner import command_line
from kubelore.cli.connection import Target, parse_events
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Unauthenticated, Unavailable
from kubelore.stack.child import Identity
from kubelore.stack.embedded import open_keyrings
from kubelore.stack.kept import Kept
from kubelore.stack.layout import DataDirectory, RunningStack


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBELORE_URL", "KUBELORE_TOKEN", "KUBELORE_DATA", "KUBELORE_TARGET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.make()
    return made


def kubelore(*arguments: str) -> int:
    """The exit code of the command, run in this process."""
    before = sys.argv
    sys.argv = ["kubelore", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


def pretend_to_run(directory: DataDirectory, url: str) -> None:
    """What a stack in this very process would leave in its data directory."""
    identity = Identity.of(os.getpid())
    assert identity is not None
    RunningStack(identity.pid, identity.started_at, url, "ready", time.time()).save(directory)
    directory.admin_token.write_text("token-of-this-stack\n")


def test_url_and_token_come_from_the_data_directory(directory: DataDirectory) -> None:
    pretend_to_run(directory, "http://127.0.0.1:23456")
    assert Target(data=directory.root).resolve() == ("http://127.0.0.1:23456", "token-of-this-stack")


def test_what_is_said_wins_over_the_data_directory(directory: DataDirectory) -> None:
    pretend_to_run(directory, "http://127.0.0.1:23456")
    target = Target("https://kubelore.example/", "another-token", directory.root)
    assert target.resolve() == ("https://kubelore.example", "another-token")


def test_the_token_of_a_data_directory_goes_to_its_own_stack_only(directory: DataDirectory) -> None:
    pretend_to_run(directory, "http://127.0.0.1:23456")
    with pytest.raises(Unauthenticated, match=r"no token for https://elsewhere\.example"):
        Target(url="https://elsewhere.example", data=directory.root).resolve()
    assert Target(url="http://127.0.0.1:23456", data=directory.root).resolve()[1] == "token-of-this-stack"


def test_a_stack_that_was_killed_is_not_taken_for_a_running_one(directory: DataDirectory) -> None:
    RunningStack(os.getpid(), 1.0, "http://127.0.0.1:23456", "ready", time.time()).save(directory)
    with pytest.raises(Unavailable, match="no Kubelore runs"):
        Target(data=directory.root).resolve()


def test_status_of_nothing_fails(directory: DataDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert kubelore("status", "--data", str(directory.root)) == 1
    assert "nothing runs" in capsys.readouterr().out
    assert kubelore("--data", str(directory.root), "status", "-o", "json") == 1
    assert json.loads(capsys.readouterr().out) == {"data": str(directory.root), "phase": "stopped"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("gatway=2", "2 replicas of 'gatway' cannot be run"),
        ("gateway=0", "0 replicas of 'gateway' cannot be run"),
        ("gateway=10", "10 replicas of 'gateway' cannot be run"),
        ("gateway", "is not SERVICE=N"),
        ("gateway=two", "is not SERVICE=N"),
    ],
)
def test_replicas_that_make_no_sense_are_refused_before_anything_starts(
    directory: DataDirectory, capsys: pytest.CaptureFixture[str], asked: str, said: str
) -> None:
    assert kubelore("up", "--data", str(directory.root), "--replicas", asked) != 0
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert RunningStack.last(directory) is None


def test_down_of_nothing_is_no_failure(directory: DataDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert kubelore("down", "--data", str(directory.root)) == 0
    assert "nothing runs" in capsys.readouterr().out


def test_commands_without_a_stack_say_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert kubelore("clusters", "list") == 1
    said = capsys.readouterr().err
    assert "error: no Kubelore runs on" in said
    assert "kubelore up" in said


def test_the_keyring_is_exported_whole_privately_and_once(
    directory: DataDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_keyrings(directory.keyring, Kept())
    target = tmp_path / "backup.json"
    assert kubelore("--data", str(directory.root), "keyring", "export", "--output", str(target)) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    exported = json.loads(target.read_text())["keyrings"]
    assert sorted(exported) == ["clusters", "gateway", "logs", "versions"]
    restored = Keyring.restore(tmp_path / "restored.json", base64.b64decode(exported["versions"]))
    sealed = Keyring.load(directory.keyring / "versions.json").seal(b"a backup", context="backup:1")
    assert restored.open(sealed, context="backup:1") == b"a backup"
    capsys.readouterr()
    assert kubelore("--data", str(directory.root), "keyring", "export", "--output", str(target)) == 1
    assert "exists" in capsys.readouterr().err


@pytest.fixture
def exported(directory: DataDirectory, tmp_path: Path) -> Path:
    """The export of a data directory whose keyrings were made."""
    open_keyrings(directory.keyring, Kept())
    target = tmp_path / "backup.json"
    assert kubelore("--data", str(directory.root), "keyring", "export", "--output", str(target)) == 0
    return target


def test_lost_keyrings_are_restored_from_the_export_and_the_others_left_alone(
    directory: DataDirectory, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = Keyring.load(directory.keyring / "versions.json").seal(b"a backup", context="backup:1")
    rotated = Keyring.load(directory.keyring / "logs.json").rotate()
    for purpose in ("versions", "clusters"):
        (directory.keyring / f"{purpose}.json").unlink()
    capsys.readouterr()
    assert kubelore("--data", str(directory.root), "keyring", "restore", str(exported)) == 0
    told = sorted(capsys.readouterr().out.splitlines())
    assert told == [
        "clusters: restored",
        "gateway: already there",
        "logs: already there",
        "versions: restored",
    ]
    restored = directory.keyring / "versions.json"
    assert stat.S_IMODE(restored.stat().st_mode) == 0o600
    assert Keyring.load(restored).open(sealed, context="backup:1") == b"a backup"
    assert Keyring.load(directory.keyring / "logs.json").active_key_id == rotated


def test_a_keyring_made_anew_is_not_written_over_and_nothing_else_is_restored(
    directory: DataDirectory, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in directory.keyring.glob("*.json"):
        path.unlink()
    other = Keyring.create(directory.keyring / "versions.json", "versions").active_key_id
    assert kubelore("--data", str(directory.root), "keyring", "restore", str(exported)) == 1
    assert "another keyring" in capsys.readouterr().err
    assert Keyring.load(directory.keyring / "versions.json").active_key_id == other
    assert [path.name for path in directory.keyring.glob("*.json")] == ["versions.json"]


def test_an_export_that_was_tampered_with_restores_nothing(
    directory: DataDirectory, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads(exported.read_text())
    for path in directory.keyring.glob("*.json"):
        path.unlink()
    keyrings = whole["keyrings"]
    damaged = [
        {**whole, "kind": "Other"},
        {**whole, "keyrings": {**keyrings, "versions": "no base64"}},
        {**whole, "keyrings": {**keyrings, "versions": keyrings["versions"][:-40]}},
        {**whole, "keyrings": {**keyrings, "../../elsewhere": keyrings["versions"]}},
        {**whole, "keyrings": [1]},
        [],
    ]
    for document in damaged:
        exported.write_text(json.dumps(document))
        assert kubelore("--data", str(directory.root), "keyring", "restore", str(exported)) == 1
        assert "Traceback" not in capsys.readouterr().err
        assert list(directory.keyring.glob("*.json")) == []
    assert list(tmp_path.rglob("elsewhere*")) == []
    assert kubelore("--data", str(directory.root), "keyring", "restore", str(tmp_path / "none.json")) == 1
    assert "there is no file" in capsys.readouterr().err


def test_rotation_makes_a_new_key(directory: DataDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    open_keyrings(directory.keyring, Kept())
    before = Keyring.load(directory.keyring / "logs.json").active_key_id
    assert kubelore("--data", str(directory.root), "keyring", "rotate", "logs") == 0
    after = Keyring.load(directory.keyring / "logs.json").active_key_id
    assert after != before
    capsys.readouterr()
    assert kubelore("--data", str(directory.root), "keyring", "list") == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["logs", before, "retired"] in rows
    assert ["logs", after, "active"] in rows


def test_the_printed_command_names_a_data_directory_that_is_not_the_default(tmp_path: Path) -> None:
    line = command_line(DataDirectory(tmp_path / "with space"))
    assert line.endswith(f"--data '{tmp_path}/with space'")
    assert "--data" not in command_line(DataDirectory(tmp_path / "share" / "kubelore"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['kubelore', '--help']\n"
        "from kubelore.cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'httpx', 'pydantic', 'pymongo', 'nats', 'rich', 'fastapi', 'cryptography', 'psutil'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_events_are_read_as_the_standard_says() -> None:
    first = [": sign of life", "", "id: 1.2.0", "event: added", 'data: {"a":', "data: 1}", ""]
    rest = ["id: 1.3.0", "data:2", "", "data: cut off"]
    events = list(parse_events(iter(first + rest)))
    assert events == [("1.2.0", "added", {"a": 1}), ("1.3.0", "message", 2)]


class Problem(http.server.BaseHTTPRequestHandler):
    """Answers everything with one problem document."""

    def do_GET(self) -> None:
        problem = {"reason": "NotFound", "detail": "no cluster x\x1b[31m", "remedy": "Add it."}
        self.send_response(404)
        self.send_header("Content-Type", "application/problem+json")
        self.end_headers()
        self.wfile.write(json.dumps(problem).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Problem) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_problem_is_told_with_its_remedy_and_without_control_characters(
    refusing_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubelore("--url", refusing_server, "--token", "t" * 16, "clusters", "show", "x") == 1
    said = capsys.readouterr().err
    assert said == "error: no cluster x\N{REPLACEMENT CHARACTER}[31m\n       Add it.\n"
