"""Get, list and watch, with the real server's rules for resourceVersion and continue tokens."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec

from .call import Call
from .selection import Selection, asked_version
from .status import ApiError, Json, bad_request, expired, invalid, too_large_version
from .store import Change, Collection, Entry

_encode = msgspec.json.Encoder().encode
_PAGE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new "
    "list without the continue parameter, or use the continue token in this response to retrieve the "
    "remainder of the results."
)


class _Token(msgspec.Struct):
    """Where a list goes on: behind `start`, at revision `rv` (-1: whatever there is now)."""

    rv: int
    start: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(_encode(self)).decode()

    @classmethod
    def parse(cls, text: str) -> _Token:
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(text), type=cls)
        except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
            raise bad_request("continue key is not valid") from error


def get(call: Call) -> bytes:
    _check_fresh(call, call.request.query.get("resourceVersion", ""))
    return call.view.item(call.type, call.found())


def _check_fresh(call: Call, version: str) -> None:
    if version.isdigit() and int(version) > call.cluster.store.rv:
        raise too_large_version(int(version), call.cluster.store.rv)


def list_page(call: Call) -> bytes:
    """One page of a list; every page of it shows the revision of the first."""
    query = call.request.query
    version, match = asked_version(query)
    selection = Selection.parse(call.type, call.namespace, call.name, query)
    limit = int(query["limit"]) if query.get("limit", "").isdigit() else 0
    collection, now = call.cluster.store.of(call.type), call.cluster.store.rv
    if query.get("continue"):
        if version not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        token = _Token.parse(query["continue"])
        rv, after = (now, token.start) if token.rv < 0 else (token.rv, token.start)
        if rv < collection.floor:
            raise expired(_PAGE_EXPIRED, continue_=str(_Token(-1, after)))
    else:
        _check_fresh(call, version)
        rv, after = (int(version), "") if match == "Exact" else (now, "")
    page, meta = _page(collection, selection, rv, after, limit)
    return call.view.listing(call.type, page, meta)


def _page(
    collection: Collection, selection: Selection, rv: int, after: str, limit: int
) -> tuple[list[Entry], Json]:
    entries = collection.at(rv)
    page: list[Entry] = []
    meta: Json = {"resourceVersion": str(rv)}
    for entry in collection.within(entries, selection.namespace, after):
        if limit and len(page) == limit:
            meta["continue"] = str(_Token(rv, page[-1].key))
            if selection.everything:
                rest = collection.within(entries, selection.namespace, page[-1].key)
                meta["remainingItemCount"] = sum(1 for _ in rest)
            break
        if selection.everything or selection.matches(entry):
            page.append(entry)
    return page, meta


def start_of_watch(query: Mapping[str, str]) -> tuple[int, bool, bool]:
    """(revision to start behind or 0 for now, synthetic ADDED first, marked end of them)."""
    version, match = asked_version(query)
    marked = query.get("sendInitialEvents") == "true"
    if marked and match != "NotOlderThan":
        why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise invalid("meta.k8s.io", "ListOptions", "", "resourceVersionMatch", why)
    unset = version in ("", "0")
    initial = marked or (unset and query.get("sendInitialEvents") != "false")
    return (0 if initial or unset else int(version)), initial, marked


class Watch:
    """One watch of one client. It holds a position and no queue, so a slow client costs no memory."""

    def __init__(self, call: Call) -> None:
        query = call.request.query
        self.call = call
        self.position, self.initial, self.marked = start_of_watch(query)
        self.selection = Selection.parse(call.type, call.namespace, call.name, query)
        self.collection = call.cluster.store.of(call.type)
        self.view = call.view
        self.bookmarks = query.get("allowWatchBookmarks") == "true"
        timeout = query.get("timeoutSeconds", "")
        self.timeout_s = float(timeout) if timeout.isdigit() and timeout != "0" else 1800.0
        self._first_row = True

    async def lines(self) -> AsyncIterator[bytes]:
        """Batches of lines for the body; ends at timeoutSeconds, or with an ERROR event."""
        deadline = time.monotonic() + self.timeout_s
        bookmark_due = time.monotonic() + self.call.cluster.bookmark_interval_s
        self.position = self.position or self.call.cluster.store.rv
        if self.initial:
            for batch in self._initial_events():
                yield batch
        while time.monotonic() < deadline:
            try:
                changes = self.collection.since(self.position)
            except ApiError as error:
                yield _event("ERROR", _encode(error.status()))
                return
            if changes:
                self.position = changes[-1].rv
                yield b"".join(map(self._line, changes))
            elif self.collection.closed:
                return
            else:
                self.position = max(self.position, self.call.cluster.store.rv)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(bookmark_due, deadline) - time.monotonic()):
                        await self.collection.changed()
            if time.monotonic() >= bookmark_due:
                bookmark_due = time.monotonic() + self.call.cluster.bookmark_interval_s
                yield _bookmark(self.call, self.position) if self.bookmarks else b""

    def _initial_events(self) -> Iterator[bytes]:
        current = list(self.collection.within(self.collection.entries, self.selection.namespace))
        for start in range(0, len(current), 500):
            chosen = [entry for entry in current[start : start + 500] if self.selection.matches(entry)]
            yield b"".join(self._shown("ADDED", entry) for entry in chosen)
        if self.marked:
            yield _bookmark(self.call, self.position, ends_initial=True)

    def _line(self, change: Change) -> bytes:
        seen = _as_seen(self.selection, change)
        return self._shown(*seen) if seen else b""

    def _shown(self, kind: str, entry: Entry) -> bytes:
        line = _event(kind, self.view.item(self.call.type, entry, first=self._first_row))
        self._first_row = False
        return line


def _as_seen(selection: Selection, change: Change) -> tuple[str, Entry] | None:
    """What a watcher with this selection sees: objects come into it and leave it."""
    before = change.old is not None and selection.matches(change.old)
    after = change.kind != "DELETED" and selection.matches(change.entry)
    if after:
        return ("MODIFIED" if before else "ADDED"), change.entry
    return ("DELETED", change.entry) if before else None


def _event(kind: str, body: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"


def _bookmark(call: Call, rv: int, *, ends_initial: bool = False) -> bytes:
    meta: Json = {"resourceVersion": str(rv), "creationTimestamp": None}
    if ends_initial:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    partial = call.view.shape == "metadata"
    kind = "PartialObjectMetadata" if partial else call.type.kind
    api_version = "meta.k8s.io/v1" if partial else call.type.api_version
    return _event("BOOKMARK", _encode({"kind": kind, "apiVersion": api_version, "metadata": meta}))
