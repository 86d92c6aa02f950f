"""What an entry of the audit log says, and how refusals that repeat become one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.identity import is_cluster_name

Outcome: TypeAlias = Literal["ok", "refused", "failed", "unknown"]
"""`unknown`: begun, and not ended in sight of whoever wrote it; perhaps still under way."""

MAX_RESOURCE = 400
MAX_NAME = 200
MAX_USER_AGENT = 80
REFUSED = frozenset({401, 403, 429})
_LOST_REPLY = 504

REFUSAL_WINDOW_S = 60.0
MAX_REFUSERS = 1024
MANY = "(many)"
"""Stands for actor and address once too many of them are refused within a window."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry. Never a body, a secret or the value of a query.

    An act has two: its intent (`outcome` unknown, no status), and its end, whose
    `closes` is the id of the intent. `at` is when the entry was made, in seconds
    since the epoch; `count` refusals since `since` were alike.
    """

    at: float
    action: str
    outcome: Outcome
    actor: str = ""
    credential: str = ""
    resource: str = ""
    cluster: str = ""
    address: str = ""
    user_agent: str = ""
    status: int = 0
    reason: str = ""
    operation_id: str = ""
    trace_id: str = ""
    took_ms: int = 0
    closes: str = ""
    count: int = 1
    since: float = 0.0


def outcome_of(status: int) -> Outcome:
    """How an act ended whose request was answered with an HTTP status."""
    if status < 400:
        return "ok"
    if status in REFUSED:
        return "refused"
    return "unknown" if status == _LOST_REPLY else "failed"


def one_line(text: str, limit: int) -> str:
    """What somebody wrote, fit to be stored and shown: cut short, without control characters."""
    kept = text[:limit].encode(errors="replace").decode()
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in kept)


def cluster_of(resource: str) -> str:
    """The cluster that a resource lies in: the first part of an id; empty for `tokens/…` and the like."""
    name = resource.partition(":")[0]
    return name if is_cluster_name(name) else ""


class _Repeated(msgspec.Struct):
    first: Entry
    until: float
    last_at: float
    again: int = 0
    alike: bool = True
    """Whether all of them were about the same resource."""


class Refusals:
    """The first refusal of a kind is an entry; those within a minute after it are one more, with their count."""

    def __init__(self, window_s: float = REFUSAL_WINDOW_S, most: int = MAX_REFUSERS) -> None:
        self._window_s = window_s
        self._most = most
        self._kinds: dict[tuple[str, str, str, str], _Repeated] = {}

    def add(self, entry: Entry) -> Entry | None:
        """The entry to write now, None when it was counted."""
        kind = (entry.actor, entry.address, entry.action, entry.reason)
        if kind not in self._kinds and len(self._kinds) >= self._most:
            entry = msgspec.structs.replace(
                entry, actor=MANY, address=MANY, credential="", user_agent="", resource="", cluster=""
            )
            kind = (MANY, MANY, "", "")
        known = self._kinds.get(kind)
        if known is not None and entry.at < known.until:
            known.again += 1
            known.last_at = entry.at
            known.alike = known.alike and entry.resource == known.first.resource
            return None
        self._kinds[kind] = _Repeated(entry, entry.at + self._window_s, entry.at)
        return entry if known is None or not known.again else _summary(known, entry)

    def due(self, now: float) -> Iterator[Entry]:
        """The counts of the windows that are over; with `now` infinite, of all."""
        for kind in [kind for kind, known in self._kinds.items() if known.until <= now]:
            known = self._kinds.pop(kind)
            if known.again:
                yield _summary(known)


def _summary(known: _Repeated, and_one: Entry | None = None) -> Entry:
    count = known.again + (and_one is not None)
    last = and_one or known.first
    first = known.first
    if not known.alike or last.resource != first.resource:
        first = msgspec.structs.replace(first, resource="", cluster="")
    at = and_one.at if and_one is not None else known.last_at
    return msgspec.structs.replace(first, at=at, since=known.first.at, count=count)
