"""Paths of containers on the command line."""

from __future__ import annotations

import base64

import pytest

from kubelore.cli.files import exact, suffix


@pytest.mark.parametrize("path", ["/etc/passwd", "/tmp/a b", "/tmp/ö", "base64:L/8="])
def test_a_path_that_can_be_printed_is_written_as_it_is(path: str) -> None:
    assert exact(path) == path


@pytest.mark.parametrize("path", ["/tmp/new\nline", "/tmp/\x1b[31m", "/tmp/\u202e"])
def test_a_path_that_cannot_be_printed_is_written_in_base64(path: str) -> None:
    prefix, _, encoded = exact(path).partition(":")
    assert (prefix, base64.b64decode(encoded).decode()) == ("base64", path)


@pytest.mark.parametrize(
    ("path", "end"),
    [("/a/b.yaml", ".yaml"), ("/a/b", ""), ("/a/.hidden", ""), ("/a/x.s h", ""), ("/a/x.$(x)", "")],
)
def test_an_editor_is_told_the_language_by_a_plain_end_of_the_name(path: str, end: str) -> None:
    assert suffix(path) == end
