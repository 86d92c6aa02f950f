"""A watch: lines of JSON split from the stream, typed, with silence and error events told apart.

What the caller sees is the API server's bytes and the resourceVersion to go on
from. Every way in which a watch can end has its own face: the iterator ends
(the server's own timeout: open it again), `Gone` (list again), `WatchSilent`
(open it again from the last resourceVersion), `Unavailable` (the connection
broke), or the error that the API server sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import aiohttp
import msgspec

from kubelore.common.errors import KubeloreError, TooLarge, Unavailable, UpstreamError
from kubelore.common.kube.errors import WatchListUnsupported, WatchSilent, error_from_status, parse_status
from kubelore.common.kube.nesting import UNREADABLE, without_depths
from kubelore.common.kube.transport import NETWORK_ERRORS, Query, Transport

MAX_LINE = 32 * 1024 * 1024
IDLE_S = 150.0
"""An API server sends a bookmark once a minute, but none that says what the watch began with: against 1.34 the
first one of a quiet type came after 120 s. A watch silent for longer may be dead."""

EventKind = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class WatchEvent(msgspec.Struct, frozen=True):
    """One event. `object` is raw JSON, of a bookmark only its kind and metadata.

    `initial_end` marks the bookmark behind the last object of an initial list.
    """

    kind: EventKind
    rv: str
    object: bytes
    initial_end: bool = False


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _EventMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct):
    metadata: _EventMeta


class _VersionMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct):
    metadata: _VersionMeta


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode
_decode_version = msgspec.json.Decoder(_Versioned).decode


class LineSplitter:
    """Cuts chunks into lines. Each byte is looked at once, however many chunks a line spans.

    A line over `max_bytes` raises TooLarge, so that no peer can fill the memory.
    """

    def __init__(self, max_bytes: int = MAX_LINE) -> None:
        self._max = max_bytes
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, without their newline; empty lines are left out."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
        if self._held > self._max or any(len(line) > self._max for line in lines):
            raise TooLarge(f"a line of a watch is larger than {self._max} bytes")
        return [line for line in lines if line]

    @property
    def unfinished(self) -> bool:
        """Whether the stream ended within a line."""
        return bool(self._parts)


def parse_event(line: bytes) -> WatchEvent:
    """One line as an event; an ERROR event is raised as the error that it carries.

    An object that is nested too deep to be decoded is UNREADABLE; its place in the stream is known all the same.
    """
    try:
        return _parsed(line)
    except RecursionError:
        # What is kept ends above `metadata.managedFields`, which is as deep as the object.
        return msgspec.structs.replace(_parsed(without_depths(line, 3)), object=UNREADABLE)


def _parsed(line: bytes) -> WatchEvent:
    try:
        event = _decode_event(line)
        raw = bytes(event.object)
        if event.type == "ERROR":
            raise _event_error(raw)
        if event.type == "BOOKMARK":
            meta = _decode_bookmark(raw).metadata
            ended = (meta.annotations or {}).get("k8s.io/initial-events-end") == "true"
            return WatchEvent("BOOKMARK", meta.resource_version, raw, ended)
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            raise UpstreamError(f"the API server sent a watch event of unknown type {event.type[:40]!r}")
        return WatchEvent(event.type, _decode_version(raw).metadata.resource_version, raw)
    except msgspec.MsgspecError as error:
        raise UpstreamError("the API server sent a watch event that is no JSON") from error


def _event_error(raw: bytes) -> KubeloreError:
    status = parse_status(raw)
    if status is None:
        return UpstreamError("the API server ended the watch with an error that says nothing")
    # etcd before 3.5.8 has no progress requests; the API server finds out after it answered 200.
    if "RequestWatchProgress" in status.message:
        return WatchListUnsupported("this cluster's etcd cannot stream initial lists")
    return error_from_status(status)


def object_version(raw: bytes) -> str:
    """The resourceVersion of an object; raises UpstreamError when it is none."""
    try:
        return _decode_version(raw).metadata.resource_version
    except msgspec.MsgspecError as error:
        raise UpstreamError("the API server sent something that is no object") from error


async def watch_stream(
    transport: Transport, path: str, query: Query, *, accept: str, idle_s: float = IDLE_S
) -> AsyncGenerator[WatchEvent, None]:
    """The events of one watch request, until the server ends it; see the module for how it can end.

    Close the iterator (`contextlib.aclosing`) when leaving early: it holds a connection.
    """
    async with (
        transport.stream(path, query=query, accept=accept) as response,
        aclosing(_lines(transport, response, path, idle_s)) as batches,
    ):
        async for lines in batches:
            for line in lines:
                yield parse_event(line)


async def _lines(
    transport: Transport, response: aiohttp.ClientResponse, path: str, idle_s: float
) -> AsyncGenerator[list[bytes], None]:
    splitter = LineSplitter()
    chunks = response.content.iter_any()
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(chunks, b"")
        except TimeoutError as error:
            raise WatchSilent(
                f"the watch of {path} was silent for {idle_s:g} s",
                remedy="it is opened again from where it was",
            ) from error
        except NETWORK_ERRORS as error:
            raise transport.broken(error, "GET", path, idle_s) from error
        if not chunk:
            break
        yield splitter.feed(chunk)
    if splitter.unfinished:
        raise Unavailable(f"the watch of {path} ended within an event", step="http")
