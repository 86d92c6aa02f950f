"""Which operation is under way: one id for all that one mutating request sets going.

The gateway makes the id, answers it in `Operation-Id`, and it travels over the
bus beside the caller. So audit, history and whoever asks what became of a lost
request all name the same thing. It is a UUID of version 7 (RFC 9562): sorted by
the time at which the operation began.
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_current: ContextVar[str] = ContextVar("operation", default="")


def new_operation_id(clock: Callable[[], float] = time.time) -> str:
    """An id that no other operation has; `clock` tells seconds since 1970."""
    milliseconds = int(clock() * 1000) & (1 << 48) - 1
    value = milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def is_operation_id(text: str) -> bool:
    """Whether a text, from wherever it came, has the form of an operation's id."""
    return _FORM.fullmatch(text) is not None


def current_operation() -> str:
    """The id of the operation under way; empty outside of one, as while something is only read."""
    return _current.get()


@contextmanager
def operating(operation_id: str) -> Iterator[None]:
    """Let `current_operation` be this one within the block, and in tasks started there."""
    before = _current.set(operation_id)
    try:
        yield
    finally:
        _current.reset(before)
