"""What a terminal showed, as asciicast v2: a line of JSON for its head, and one for each event. Pure.

The format: docs.asciinema.org/manual/asciicast/v2. Output is text there, so
that a character whose bytes come in two pieces is held back until it is whole.
"""

from __future__ import annotations

import codecs

import msgspec

MEDIA_TYPE = "application/x-asciicast"

_encode = msgspec.json.Encoder().encode


class Asciicast:
    """Writes the lines of one recording. Times are seconds since its beginning."""

    def __init__(self, columns: int, rows: int) -> None:
        self._size = (columns, rows)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def head(self, at: float, title: str, command: str) -> bytes:
        """The first line; `at` is seconds since 1970."""
        columns, rows = self._size
        head = {
            "version": 2,
            "width": columns,
            "height": rows,
            "timestamp": int(at),
            "title": title,
            "command": command,
        }
        return _encode(head) + b"\n"

    def output(self, at: float, data: bytes) -> bytes:
        """The line for bytes that the terminal showed; none while they are no whole character."""
        text = self._decoder.decode(data)
        return _event(at, "o", text) if text else b""

    def resized(self, at: float, columns: int, rows: int) -> bytes:
        """The line for a new size; none when it is the old one."""
        if (columns, rows) == self._size:
            return b""
        self._size = (columns, rows)
        return _event(at, "r", f"{columns}x{rows}")

    def marked(self, at: float, text: str) -> bytes:
        """The line for a word of ours, which players show as a marker."""
        return _event(at, "m", text)


def _event(at: float, code: str, text: str) -> bytes:
    return _encode((round(at, 6), code, text)) + b"\n"
