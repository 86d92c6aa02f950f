"""What the changing commands refuse before anything is asked."""

from __future__ import annotations

import pytest

from kubelore.cli.__main__ import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say which objects"),
        (["cm", "a", "-f", "a.yaml"], "say which objects"),
        (["-f", "a.yaml", "-l", "app=web"], "not among what is in files"),
        (["-f", "a.yaml", "-A"], "not among what is in files"),
        (["cm", "a", "--cascade", "none"], "--cascade is background"),
    ],
)
def test_a_deletion_that_does_not_say_what_it_means_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["kubelore", "delete", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
