"""How errors and large things travel on the bus: header names, limits, and errors to headers and back.

An error goes out in ADR-32's two headers, for any NATS tool to read, and whole
(reason, remedy, extra) as JSON in the body, for our own callers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
import nats.errors
import nats.js.errors

from kubelore.common.errors import (
    DeadlineExceeded,
    KubeloreError,
    TooLarge,
    Unavailable,
    error_from_parts,
)

ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"
DEADLINE = "Kubelore-Deadline"
"""Milliseconds the caller will still wait: relative, so that clocks of two machines need not agree."""
CALLER = "Kubelore-Caller"
"""The gateway's word for whom the request is made (`kubelore.common.callers`)."""
OPERATION = "Kubelore-Operation"
"""The id of the operation that the request is part of (`kubelore.common.operations`)."""
SESSION = "Kubelore-Session"
SIZE = "Kubelore-Size"

INLINE_REPLY_BYTES = 512 * 1024
"""A larger reply travels as a session, so that it cannot hold up what shares the connection."""
MAX_REPLY_BYTES = 128 * 1024 * 1024
"""No reply may be larger; lists are paged far below this."""


class _Problem(msgspec.Struct):
    reason: str
    status: int
    detail: str
    remedy: str | None = None
    extra: dict[str, Any] = {}


def error_headers(error: KubeloreError) -> dict[str, str]:
    """The two headers ADR-32 knows; one printable line, whatever the detail holds."""
    line = "".join(c if c.isprintable() else " " for c in error.detail)[:300]
    return {ERROR: line or error.reason, ERROR_CODE: str(error.status)}


def error_body(error: KubeloreError) -> bytes:
    """The whole error as JSON."""
    return msgspec.json.encode(
        _Problem(error.reason, error.status, error.detail, error.remedy, error.extra), enc_hook=str
    )


def error_of_reply(headers: Mapping[str, str], body: bytes) -> KubeloreError | None:
    """The error that a reply carries, None when it is an answer."""
    if ERROR not in headers and ERROR_CODE not in headers:
        return None
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        code = headers.get(ERROR_CODE, "500")
        return error_from_parts("", int(code) if code.isdigit() else 500, headers.get(ERROR, "unknown error"))
    return error_from_parts(problem.reason, problem.status, problem.detail, problem.remedy, problem.extra)


def bus_error(error: Exception, what: str) -> KubeloreError:
    """Our error for what the NATS client raised while doing `what`."""
    match error:
        case nats.errors.NoRespondersError():
            return NobodyAnswers(f"{what}: nobody answers", remedy="Is the service running and healthy?")
        case TimeoutError():
            return DeadlineExceeded(f"{what}: no answer in time")
        case nats.errors.MaxPayloadError():
            return TooLarge(f"{what}: larger than the bus carries in one message")
        case nats.js.errors.APIError():
            return JetStreamRefused(f"{what}: {error.description}", code=error.err_code or error.code or 0)
        case _:
            return Unavailable(f"{what}: not connected to the bus", remedy="Is the NATS server reachable?")


class NobodyAnswers(Unavailable):
    """The bus knows nobody who serves this: not a slow process, but none that is connected."""


class JetStreamRefused(Unavailable):
    """JetStream answered with an error; `code` is its own (`err_code`, 10071 for a wrong last sequence)."""

    reason = "JetStreamRefused"

    def __init__(self, detail: str, *, code: int = 0, remedy: str | None = None, **extra: Any) -> None:
        super().__init__(detail, remedy=remedy, code=code, **extra)
        self.code = code


WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
MESSAGE_NOT_FOUND = 10037
STREAM_FULL = frozenset({10077, 10123, 10047, 10023})
"""max_bytes reached, limits reached, and storage or resources of the server exhausted."""


def stored_headers(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a message as STREAM.MSG.GET returns it."""
    lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)
