"""What a data directory keeps between starts, and what it refuses."""

from __future__ import annotations

import io
import itertools
import socket
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.crypto import Keyring
from kubelore.common.errors import Conflict, Invalid, KubeloreError, Unavailable
from kubelore.stack.embedded import KEYRINGS, open_keyrings
from kubelore.stack.kept import Kept, admin_token
from kubelore.stack.layout import DataDirectory, DirectoryLock, RunningStack, default_data_directory
from kubelore.stack.output import PrefixedLines, RotatedLog


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.make()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_default_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBELORE_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_directory() == tmp_path / "kubelore"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_directory() == tmp_path / ".local/share/kubelore"
    monkeypatch.setenv("KUBELORE_DATA", str(tmp_path / "named"))
    assert default_data_directory() == tmp_path / "named"


def test_a_directory_is_closed_to_others(directory: DataDirectory) -> None:
    assert mode(directory.root) == 0o700
    Kept(passwords={"gateway": "secret"}).save(directory)
    assert mode(directory.kept) == 0o600


def test_a_second_stack_is_told_where_the_first_one_is(directory: DataDirectory) -> None:
    first = DirectoryLock(directory)
    first.acquire()
    RunningStack(4711, 0.0, "http://127.0.0.1:23456", "ready", time.time()).save(directory)
    with pytest.raises(Conflict, match=r"already runs on .* at http://127.0.0.1:23456") as caught:
        DirectoryLock(directory).acquire()
    assert "kubelore down" in str(caught.value.remedy)
    first.release()
    DirectoryLock(directory).acquire()


def test_ports_and_passwords_come_back_at_the_next_start(directory: DataDirectory) -> None:
    kept = Kept.load(directory)
    chosen = kept.port("gateway"), kept.port("nats"), kept.password("gateway")
    kept.save(directory)
    again = Kept.load(directory)
    assert (again.port("gateway"), again.port("nats"), again.password("gateway")) == chosen


def test_a_kept_port_that_is_taken_is_replaced() -> None:
    kept = Kept()
    before = kept.port("gateway")
    with socket.create_server(("127.0.0.1", before)):
        after = kept.port("gateway")
    assert after != before
    assert kept.ports["gateway"] == after


def test_a_wanted_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} is taken"):
            Kept().port("gateway", port)


def test_damaged_state_is_named(directory: DataDirectory) -> None:
    directory.kept.write_text("{half")
    with pytest.raises(Invalid, match=r"kept\.json is damaged"):
        Kept.load(directory)


def test_a_token_is_made_once_and_kept_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBELORE_ADMIN_TOKEN", raising=False)
    token = admin_token(tmp_path / "admin-token")
    assert len(token) >= 32
    assert mode(tmp_path / "admin-token") == 0o600
    assert admin_token(tmp_path / "admin-token") == token


def test_the_environments_token_wins_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBELORE_ADMIN_TOKEN", "chosen-by-the-operator")
    assert admin_token(tmp_path / "admin-token") == "chosen-by-the-operator"
    monkeypatch.delenv("KUBELORE_ADMIN_TOKEN")
    assert admin_token(tmp_path / "admin-token") == "chosen-by-the-operator"


@pytest.mark.parametrize(
    "token", ["short", "with spaces in the middle", "with\ncontrol-characters", "ünïcödé-letters-too"]
)
def test_an_unusable_token_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("KUBELORE_ADMIN_TOKEN", token)
    with pytest.raises(Invalid, match="KUBELORE_ADMIN_TOKEN is no usable token"):
        admin_token(tmp_path / "admin-token")


def test_keyrings_are_made_at_the_first_start_and_kept(directory: DataDirectory) -> None:
    kept = Kept()
    open_keyrings(directory.keyring, kept)
    files = [directory.keyring / f"{purpose}.json" for purpose in KEYRINGS]
    keys = [Keyring.load(file).active_key_id for file in files]
    open_keyrings(directory.keyring, kept)
    assert [Keyring.load(file).active_key_id for file in files] == keys


def test_a_lost_keyring_stops_the_start_instead_of_being_made_anew(directory: DataDirectory) -> None:
    kept = Kept()
    open_keyrings(directory.keyring, kept)
    (directory.keyring / "versions.json").unlink()
    with pytest.raises(KubeloreError, match="versions"):
        open_keyrings(directory.keyring, kept)
    assert not (directory.keyring / "versions.json").exists()


@given(chunks=st.lists(st.binary(min_size=1, max_size=120), max_size=40))
def test_logs_stay_bounded_and_keep_the_newest(
    chunks: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = RotatedLog(tmp_path_factory.mktemp("logs") / "gateway.log", max_bytes=200, kept=2)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    files = sorted(log.path.parent.iterdir(), reverse=True)
    assert len(files) <= 3
    assert all(file.stat().st_size <= 200 for file in files)
    assert b"".join(chunks).endswith(b"".join(file.read_bytes() for file in files))


def test_the_tail_tells_of_this_run_only(tmp_path: Path) -> None:
    log = RotatedLog(tmp_path / "gateway.log")
    log.write(b"an older failure\n")
    log.begin()
    log.write(b"address in use\nno more tries\n")
    assert log.tail() == "address in use\nno more tries"
    assert log.tail(1) == "no more tries"
    log.close()


@given(text=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
def test_lines_get_their_prefix_however_they_arrive(text: bytes, cuts: list[int]) -> None:
    terminal = io.BytesIO()
    lines = PrefixedLines("nats", terminal, width=4)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in itertools.pairwise(edges):
        lines.write(text[start:end])
    expected = b"".join(b"nats | " + line + b"\n" for line in text.split(b"\n")[:-1])
    assert terminal.getvalue() == expected
