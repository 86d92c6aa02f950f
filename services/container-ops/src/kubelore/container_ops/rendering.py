"""What a reader of logs is sent, as the bytes that go out. Pure."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.log_streams import StreamLogs
from kubelore.container_ops.line_content import level_of, without_ansi
from kubelore.container_ops.lines import LogLine

_encode = msgspec.json.Encoder().encode
_LENGTH = struct.Struct(">I")

_second = (-1, "")


def timestamp(at: int) -> str:
    """Nanoseconds since 1970 as RFC 3339."""
    global _second
    second, fraction = divmod(at, 1_000_000_000)
    if _second[0] != second:
        _second = (second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{_second[1]}.{fraction:09d}Z"


class Renderer:
    """Writes in the form that was asked for."""

    def __init__(self, asked: StreamLogs) -> None:
        self._form = asked.form
        self._plain = asked.plain
        self._levels = asked.levels
        self._prefix = asked.prefix
        self._timestamps = asked.timestamps
        self._heads: dict[ContainerId, bytes] = {}

    def forget(self, container: ContainerId) -> None:
        """A container that is gone."""
        self._heads.pop(container, None)

    def lines(self, container: ContainerId, lines: list[LogLine]) -> list[bytes]:
        """Lines of one container, each as one item of the form."""
        if self._plain:
            lines = [LogLine(one.at, without_ansi(one.text), one.whole) for one in lines]
        if self._form == "text":
            return self._text(container, lines)
        head = self._heads.get(container)
        if head is None:
            head = self._heads[container] = (
                b'","cluster":%b,"namespace":%b,"pod":%b,"container":%b,"message":'
                % (
                    *(_encode(part) for part in (container.cluster, container.namespace, container.pod)),
                    _encode(container.container),
                )
            )
        if self._levels:
            return [self._item(head, one) + self._level(one) + b"}" for one in lines]
        return [self._item(head, one) + b"}" for one in lines]

    def _item(self, head: bytes, line: LogLine) -> bytes:
        item = b'{"timestamp":"%b%b%b' % (
            timestamp(line.at).encode(),
            head,
            _encode(line.text.decode(errors="replace")),
        )
        return item if line.whole else item + b',"partial":true'

    def _level(self, line: LogLine) -> bytes:
        level = level_of(line.text if self._plain else without_ansi(line.text))
        return b',"level":"%b"' % level.encode() if level else b""

    def _text(self, container: ContainerId, lines: list[LogLine]) -> list[bytes]:
        origin = b""
        if self._prefix:
            origin = (
                f"[{container.cluster}/{container.namespace}/{container.pod}/{container.container}] ".encode()
            )
        if self._timestamps:
            return [b"%b%b %b" % (origin, timestamp(one.at).encode(), one.text) for one in lines]
        return [origin + one.text for one in lines] if origin else [one.text for one in lines]

    def batch(self, items: list[bytes], position: str) -> bytes:
        """Lines as they are sent together: a reader has all of them and the position behind them, or none."""
        if self._form == "text" or self._form == "lines":
            return b"\n".join(items) + b"\n" if items else b""
        return self._framed("lines", position, b'"items":[%b]' % b",".join(items))

    def event(self, name: str, body: dict[str, Any], position: str = "") -> bytes:
        """What else there is to say. In text, only what is missing is said."""
        if self._form == "text":
            return f"--- {body['text']}\n".encode() if name == "gap" else b""
        fields = _encode(body)[1:-1]
        if self._form == "lines":
            return b'{"event":%b%b}\n' % (_encode(name), b"," + fields if fields else b"")
        return self._framed(name, position, fields)

    def heartbeat(self, position: str) -> bytes:
        """A sign of life, which moves the position on where lines were passed over."""
        if self._form == "events":
            return b"id: %b\nevent: bookmark\ndata: {}\n\n" % position.encode()
        return self._framed("bookmark", position, b"") if self._form == "messages" else b""

    def _framed(self, name: str, position: str, fields: bytes) -> bytes:
        if self._form == "events":
            head = b"id: %b\n" % position.encode() if position else b""
            return b"%bevent: %b\ndata: {%b}\n\n" % (head, name.encode(), fields)
        head = b'{"event":%b' % _encode(name)
        if position:
            head += b',"id":"%b"' % position.encode()
        message = head + (b"," + fields if fields else b"") + b"}"
        return _LENGTH.pack(len(message)) + message
