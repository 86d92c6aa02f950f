"""Faults that a cluster can be told to have, to test what clients make of them."""

from __future__ import annotations

import asyncio
import random
import re

import msgspec
from aiohttp import web

from .status import ApiError, expired

_REASONS = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
_PIECE_S = 0.05  # a slow body is written in pieces of this long


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong; the defaults are a healthy cluster. Times in seconds, rates per second."""

    refuse: bool = False  # nobody listens, connections are cut: the plug is pulled
    latency: float = 0.0  # before every answer
    error_rate: float = 0.0  # share of the requests, 0 to 1, that get `error_code`
    error_code: int = 503
    retry_after: int = 1  # of 429 and 503
    expired: bool = False  # watches and further pages answer 410 by their HTTP status
    watch_lifetime: float = 0.0  # watches are cut, without a word, after this long
    body_rate: int = 0  # bytes per second of answers and watches
    paths: str = ""  # regular expression: only requests whose path it finds are touched


class FaultInjector:
    """Applies the present faults to one cluster's requests; random by seed."""

    def __init__(self, seed: str) -> None:
        self.faults = Faults()
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def touches(self, request: web.BaseRequest) -> bool:
        return self.faults != Faults() and re.search(self.faults.paths, request.path) is not None

    async def before(self, request: web.BaseRequest) -> None:
        """Waits, or raises the ApiError that this request is to get."""
        if not self.touches(request):
            return
        faults = self.faults
        if faults.latency:
            await asyncio.sleep(faults.latency)
        if faults.expired and request.query.keys() & {"watch", "continue"}:
            raise expired("too old resource version: injected")
        if self._random.random() < faults.error_rate:
            code = faults.error_code
            details = {"retryAfterSeconds": faults.retry_after} if code in (429, 503) else None
            raise ApiError(code, _REASONS.get(code, "Unknown"), "injected fault", details=details)

    async def send(self, request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
        """Passes a complete answer on, slowly where told so."""
        if not (isinstance(response, web.Response) and self.faults.body_rate and self.touches(request)):
            return response
        body = response.body if isinstance(response.body, bytes) else b""
        slow = web.StreamResponse(status=response.status, headers=response.headers)
        slow.content_length = len(body)
        await slow.prepare(request)
        step = max(1, int(self.faults.body_rate * _PIECE_S))
        for start in range(0, len(body), step):
            await slow.write(body[start : start + step])
            await asyncio.sleep(_PIECE_S)
        return slow

    async def pace(self, request: web.BaseRequest, size: int) -> None:
        """Waits as long as `size` bytes of a watch take at the present rate."""
        if self.faults.body_rate and self.touches(request):
            await asyncio.sleep(size / self.faults.body_rate)
