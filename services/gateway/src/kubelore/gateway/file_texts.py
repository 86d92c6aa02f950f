"""Bytes of files as text for an editor, and back to the very bytes. Pure.

What decodes is always what encodes to the same bytes again; anything else is
shown as base64. Line ends are told, and left as they are unless others are asked for.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from typing import Literal, TypeAlias

from kubelore.common.errors import Invalid

TextEncoding: TypeAlias = Literal[
    "utf-8",
    "utf-8-bom",
    "utf-16-le",
    "utf-16-be",
    "iso-8859-1",
    "iso-8859-15",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "koi8-r",
    "shift_jis",
    "euc-jp",
    "euc-kr",
    "gb18030",
    "big5",
    "base64",
]
LineEnds: TypeAlias = Literal["lf", "crlf", "cr", "mixed", "none"]

_MARKS: dict[TextEncoding, tuple[bytes, str]] = {
    "utf-8-bom": (codecs.BOM_UTF8, "utf-8"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "utf-16-be"),
}
"""Those that begin with a byte order mark, which is no part of the text."""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
_ENDS: dict[str, str] = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}
_ANY_END = re.compile(r"\r\n|\r|\n")


def recognised(content: bytes) -> TextEncoding:
    """The encoding of a file by its mark, else UTF-8, else Latin-1 where no byte says otherwise; else base64."""
    for encoding, (mark, _) in _MARKS.items():
        if content.startswith(mark) and _decoded(content, encoding) is not None:
            return encoding
    if b"\0" not in content and _decoded(content, "utf-8") is not None:
        return "utf-8"
    return "base64" if _BINARY.search(content) else "iso-8859-1"


def to_text(content: bytes, encoding: TextEncoding) -> str:
    """The text of a file. Raises Invalid where that encoding would not give the same bytes back."""
    text = _decoded(content, encoding)
    if text is None:
        raise Invalid(f"the file is not {encoding}", remedy="Ask without an encoding, or for base64.")
    return text


def to_bytes(text: str, encoding: TextEncoding, line_ends: str = "") -> bytes:
    """The bytes of a text, with other line ends where those are asked for. Raises Invalid."""
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Invalid("the content is no base64", remedy="Name the encoding that it is in.") from error
    if line_ends:
        text = _ANY_END.sub(lambda _: _ENDS[line_ends], text)
    mark, codec = _MARKS.get(encoding, (b"", encoding))
    try:
        return mark + text.encode(codec)
    except UnicodeEncodeError as error:
        raise Invalid(
            f"{error.object[error.start : error.start + 1]!r} cannot be written as {encoding}",
            remedy="Write the file as utf-8.",
        ) from error


def line_ends_of(text: str) -> LineEnds:
    """Which line ends a text has."""
    match sorted(set(_ANY_END.findall(text))):
        case []:
            return "none"
        case ["\n"]:
            return "lf"
        case ["\r\n"]:
            return "crlf"
        case ["\r"]:
            return "cr"
        case _:
            return "mixed"


def _decoded(content: bytes, encoding: TextEncoding) -> str | None:
    if encoding == "base64":
        return base64.b64encode(content).decode()
    mark, codec = _MARKS.get(encoding, (b"", encoding))
    if not content.startswith(mark):
        return None
    try:
        text = content[len(mark) :].decode(codec)
        return text if mark + text.encode(codec) == content else None
    except UnicodeError:
        return None
