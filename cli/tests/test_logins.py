"""Where the command goes when somebody has logged in, and what it keeps of that."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kubelore.cli.connection import Target
from kubelore.cli.logins import Login, Logins, logins_file, name_of
from kubelore.common.durations import parse_duration
from kubelore.common.errors import Invalid, NotFound, Unauthenticated, Unavailable

EU = Login("https://eu.example", "token-of-eu")
US = Login("https://us.example:8443", "token-of-us")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBELORE_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def both() -> None:
    Logins().having("us", US).having("eu", EU).save()


def test_a_login_is_kept_where_only_its_owner_can_read_it(both) -> None:
    path = logins_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Logins.load() == Logins("eu", {"us": US, "eu": EU})
    assert "token-of-eu" not in repr(Logins.load())


def test_commands_go_to_the_last_login_or_the_one_that_is_named(both) -> None:
    assert Target().resolve() == (EU.url, EU.token)
    assert Target(login="us").resolve() == (US.url, US.token)
    with pytest.raises(NotFound, match="no login named 'asia'"):
        Target(login="asia").resolve()


def test_a_token_goes_to_its_own_url_only(both) -> None:
    assert Target(url="https://us.example:8443/").resolve() == (US.url, US.token)
    for target in (Target(url="https://us.example"), Target(url="https://evil.example", login="us")):
        with pytest.raises(Unauthenticated, match="no token for"):
            target.resolve()
    assert Target(url=EU.url, token="another").resolve() == (EU.url, "another")


def test_a_named_data_directory_wins_over_the_last_login(both, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Kubelore runs"):
        Target(data=tmp_path / "data").resolve()


def test_after_logging_out_nothing_is_left_of_it(both) -> None:
    Logins.load().without("eu").save()
    assert "token-of-eu" not in logins_file().read_text()
    assert Logins.load().current == ""
    with pytest.raises(Unavailable):
        Target().resolve()
    with pytest.raises(NotFound):
        Logins.load().without("eu")


def test_a_file_that_is_damaged_says_so() -> None:
    logins_file().parent.mkdir(parents=True)
    for text in ("", "[]", '{"targets": 1}', '{"targets": {"a": {"token": "secret"}}, "current": ""}'):
        logins_file().write_text(text)
        with pytest.raises(Invalid, match="cannot be read") as refused:
            Logins.load()
        assert "secret" not in str(refused.value)


def test_a_login_is_called_by_its_host() -> None:
    assert name_of("https://eu.example/") == "eu.example"
    assert name_of("http://127.0.0.1:8800") == "127.0.0.1:8800"
    for url in ("eu.example", "ftp://eu.example", "https://user:secret@eu.example", ""):
        with pytest.raises(Invalid):
            name_of(url)


def test_spans_of_time_are_written_as_people_write_them() -> None:
    assert parse_duration("30d") == 30 * 86400
    assert parse_duration("1h30m") == 5400
    for text in ("", "30", "d", "-1d", "1.5h", "30 d", "1w"):
        with pytest.raises(ValueError, match="no span of time"):
            parse_duration(text)
