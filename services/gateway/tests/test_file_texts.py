"""Files as text and back: what is shown as text always gives the very bytes back."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import Invalid
from kubelore.gateway.file_texts import TextEncoding, line_ends_of, recognised, to_bytes, to_text


@given(st.binary(max_size=200))
def test_any_bytes_come_back_as_they_were(content: bytes) -> None:
    encoding = recognised(content)
    assert to_bytes(to_text(content, encoding), encoding) == content


@given(st.text(max_size=100), st.sampled_from(get_args(TextEncoding)))
def test_text_that_an_encoding_can_write_is_read_back(text: str, encoding: TextEncoding) -> None:
    if encoding == "base64":
        return
    try:
        content = to_bytes(text, encoding)
        read = to_text(content, encoding)
    except Invalid:
        return
    assert read == text


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"", "utf-8"),
        ("grün\n".encode(), "utf-8"),
        (b"\xef\xbb\xbfx", "utf-8-bom"),
        (b"\xff\xfex\0", "utf-16-le"),
        (b"\xfe\xff\0x", "utf-16-be"),
        (b"gr\xfcn", "iso-8859-1"),
        (b"\x7fELF\0", "base64"),
        (b"a\0b", "base64"),
    ],
)
def test_encodings_are_recognised(content: bytes, encoding: str) -> None:
    assert recognised(content) == encoding


@pytest.mark.parametrize(
    ("text", "ends"),
    [("", "none"), ("a\nb\n", "lf"), ("a\r\nb", "crlf"), ("a\rb", "cr"), ("a\r\nb\n", "mixed")],
)
def test_line_ends_are_told(text: str, ends: str) -> None:
    assert line_ends_of(text) == ends


def test_line_ends_are_written_as_asked_for() -> None:
    assert to_bytes("a\nb\r\nc\r", "utf-8", "crlf") == b"a\r\nb\r\nc\r\n"
    assert to_bytes("a\r\nb", "utf-8", "lf") == b"a\nb"
    assert to_bytes("a\r\nb\n", "utf-8") == b"a\r\nb\n"


def test_what_an_encoding_cannot_write_is_refused() -> None:
    with pytest.raises(Invalid, match="windows-1252"):
        to_bytes("\u0416", "windows-1252")
    with pytest.raises(Invalid, match="no base64"):
        to_bytes("!", "base64")
