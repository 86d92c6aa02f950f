"""The pure parts of terminals: scrollback, recordings in asciicast v2, and what a missing shell is called."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import UpstreamError
from kubelore.container_ops.asciicast import Asciicast
from kubelore.container_ops.scrollback import Scrollback
from kubelore.container_ops.shells import SHELL, explained
from kubelore.container_ops.terminal import status_of

NOT_FOUND = 'exec: "sh": executable file not found in $PATH'


@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(1, 200))
def test_a_scrollback_is_the_end_of_what_was_shown_and_never_over_its_size(
    pieces: list[bytes], size: int
) -> None:
    scrollback = Scrollback(size)
    for piece in pieces:
        scrollback.add(piece)
    whole, shown = b"".join(pieces), scrollback.read()
    assert len(shown) <= size
    assert whole.endswith(shown)
    assert shown == whole or len(whole) > size


@given(st.text(max_size=60), st.lists(st.integers(1, 7), min_size=1))
def test_a_character_that_comes_in_pieces_is_recorded_whole(text: str, steps: list[int]) -> None:
    text = text.encode(errors="replace").decode()
    raw, cast, events, place = text.encode(), Asciicast(80, 24), list[str](), 0
    while place < len(raw):
        step = steps[len(events) % len(steps)]
        line = cast.output(0.5, raw[place : place + step])
        place += step
        if line:
            when, code, shown = json.loads(line)
            assert (when, code) == (0.5, "o")
            events.append(shown)
    assert "".join(events) == text


def test_bytes_that_are_no_text_are_replaced_and_do_not_end_the_recording() -> None:
    assert json.loads(Asciicast(80, 24).output(1.0, b"a\xffb"))[2] == "a\N{REPLACEMENT CHARACTER}b"


def test_a_size_is_recorded_once_until_it_changes() -> None:
    cast = Asciicast(80, 24)
    assert json.loads(cast.head(1e9, "title", "sh")) == {
        "version": 2,
        "width": 80,
        "height": 24,
        "timestamp": 10**9,
        "title": "title",
        "command": "sh",
    }
    assert cast.resized(1.0, 80, 24) == b""
    assert json.loads(cast.resized(2.0, 100, 30)) == [2.0, "r", "100x30"]
    assert cast.resized(3.0, 100, 30) == b""


def test_an_image_without_a_shell_is_called_that_and_a_missing_program_is_not() -> None:
    error = UpstreamError(NOT_FOUND)
    named = explained(error, SHELL)
    assert (named.status, named.extra["code"]) == (422, "NoShell")
    assert "--debug" in (named.remedy or "")
    assert explained(error, ["sh"]) is error
    assert explained(UpstreamError("the connection broke"), SHELL).status == 502


def test_the_status_at_the_end_is_kubernetes_own() -> None:
    assert json.loads(status_of(0)) == {"metadata": {}, "status": "Success"}
    failed = json.loads(status_of(3))
    assert failed["reason"] == "NonZeroExitCode"
    assert failed["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
