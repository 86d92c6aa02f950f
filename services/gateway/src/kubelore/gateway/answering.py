"""Answers as the JSON that goes out; objects of clusters are copied into it, never parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kubelore.common.contracts.resources import ClusterState
from kubelore.common.frames import Buffer
from kubelore.gateway.fanout import Found
from kubelore.gateway.items import Items

AT_ONCE = 256
"""Objects that are unpacked and sent in one go: about a megabyte of pods, and a millisecond."""

_encode = msgspec.json.Encoder().encode


def json_answer(value: object, status: int = 200) -> Response:
    """An answer as JSON, written by msgspec: raw objects go in as they are."""
    return Response(_encode(value), status, media_type="application/json")


def list_answer(found: Found, token: str | None, watch_from: str) -> Response:
    """The answer of `unified/resources`. Raises TooLarge."""
    tail: dict[str, Any] = {
        **freshness_of(found.clusters),
        "total": found.total,
        "continue": token,
        "watch_from": watch_from,
    }
    if found.columns:
        tail["columns"] = found.columns
    return _ListResponse(found.items, b"]," + _encode(tail)[1:])


def freshness_of(states: Sequence[ClusterState]) -> dict[str, Any]:
    """How far the rows of each cluster can be trusted, and whether those of any cannot."""
    return {
        "clusters": [freshness(state) for state in states],
        "partial": any(state.status != "live" for state in states),
    }


def freshness(state: ClusterState) -> dict[str, Any]:
    """How far the rows of a cluster can be trusted, as it is shown."""
    as_of = datetime.fromtimestamp(state.as_of, UTC) if state.as_of is not None else None
    return {
        "name": state.name,
        "status": state.status,
        "as_of": as_of,
        "error": state.error,
        "count": state.count,
        "note": state.note,
    }


class _ListResponse(Response):
    """Its body is made while it is sent; its length is known before, so that a client sees when it was cut short."""

    media_type = "application/json"

    def __init__(self, items: Items, tail: bytes) -> None:
        self.status_code = 200
        self.background = None
        self._items = items
        self._before = [_before(id) for id in items.ids]  # noqa: A001
        if items.ids:
            self._before[0] = _BEGIN + self._before[0].removeprefix(_BETWEEN)
        self._tail = b"}" + tail if items.ids else _BEGIN + tail
        length = sum(items.sizes()) + sum(map(len, self._before)) + len(self._tail)
        self.init_headers({"content-length": str(length)})

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it in pieces, and let others work in between."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        count = len(self._items)
        for start in range(0, count - AT_ONCE, AT_ONCE):
            part = b"".join(self._pieces(start, start + AT_ONCE))
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        rest = max(0, (count - 1) // AT_ONCE * AT_ONCE)
        body = b"".join((*self._pieces(rest, count), self._tail))
        await send({"type": "http.response.body", "body": body})

    def _pieces(self, start: int, stop: int) -> list[Buffer]:
        found: list[Buffer] = []
        for before, pieces in zip(self._before[start:stop], self._items.pieces(start, stop), strict=True):
            found.append(before)
            found += pieces
        return found


_BEGIN, _BETWEEN = b'{"items":[', b"},"


def _before(id: str) -> bytes:
    """What stands between the object before this one and its own."""
    quoted = _encode(id)
    # No quote, backslash or control character is in a cluster's name, so that its part of the id is whole.
    return b'},{"id":%b,"cluster":%b","object":' % (quoted, quoted.partition(b":")[0])
