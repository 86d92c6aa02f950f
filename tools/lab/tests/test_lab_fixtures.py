"""A machine without a lab skips its tests with a reason, and CI doesn't."""

import pytest

from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.fixtures import give_up


def test_a_missing_lab_skips_with_the_reason_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception) as skipped:
        give_up(LabUnavailableError("no Go toolchain\non this machine"))

    assert str(skipped.value) == "no lab on this machine: no Go toolchain on this machine"


def test_a_missing_lab_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="no Go toolchain"):
        give_up(LabUnavailableError("no Go toolchain"))


def test_a_broken_lab_fails_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.fail.Exception, match="etcd is not running"):
        give_up(LabError("etcd is not running"))
