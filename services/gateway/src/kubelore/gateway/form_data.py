"""The one file of a `multipart/form-data` body (RFC 7578), taken out of it while it comes."""

from __future__ import annotations

from email.message import Message

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from kubelore.common.errors import BadRequest

MAX_HEAD_BYTES = 16 * 1024


class FilePart:
    """Give it the bytes of a body; it gives those of the field `file`. `name` is known once `begun`."""

    def __init__(self, content_type: str) -> None:
        head = Message()
        head["content-type"] = content_type
        boundary = head.get_param("boundary")
        if not isinstance(boundary, str) or not 1 <= len(boundary) <= 200:
            raise BadRequest("a multipart body without a boundary")
        self.name = ""
        self.begun = False
        self.ended = False
        self._wanted = False
        self._head_bytes = 0
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._out = bytearray()
        self._parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._head_ends,
                "on_part_data": self._content,
                "on_part_end": self._part_ends,
            },
        )

    def feed(self, data: bytes) -> bytes:
        """What of the file is in some more bytes. Raises BadRequest."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise BadRequest("the multipart body cannot be read") from error
        out, self._out = bytes(self._out), bytearray()
        return out

    def finish(self) -> None:
        """Raise BadRequest unless the file was there and whole."""
        if not self.ended:
            raise BadRequest("the multipart body has no whole field `file`", remedy="Send one file.")

    def _part_begins(self) -> None:
        self._head_bytes = 0
        self._name, self._value = b"", b""
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _grow(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BadRequest("a part of the multipart body has too long a head")

    def _head_ends(self) -> None:
        said = Message()
        said["content-disposition"] = self._headers.get(b"content-disposition", b"").decode(errors="replace")
        self._wanted = said.get_param("name", header="content-disposition") == "file"
        if not self._wanted:
            return
        if self.begun:
            raise BadRequest("the multipart body has several files", remedy="Send one at once.")
        self.begun = True
        name = said.get_filename() or ""
        self.name = name.replace("\\", "/").rpartition("/")[2]

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self._out += data[start:end]

    def _part_ends(self) -> None:
        self.ended = self.ended or self._wanted
