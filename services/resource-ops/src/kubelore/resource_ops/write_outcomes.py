"""What a write did, told from the object before and after; and whether one whose answer got lost happened. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from kubelore.common.contracts.writes import Action, FieldChange
from kubelore.common.errors import BadRequest, Conflict, Invalid, KubeloreError, UpstreamError
from kubelore.common.kube.differences import ABSENT, Difference, differences, quiet, render
from kubelore.common.kube.writing import FIELD_MANAGER

MAX_CHANGES = 200
MAX_VALUE = 4096
"""Bytes of one value as JSON; a longer one is hidden."""
MAX_SHOWN = 32 * 1024
"""Bytes of all values of one write together."""
EARLIEST = timedelta(seconds=5)
"""How far an API server's clock may be behind ours."""
LATEST = timedelta(seconds=65)
"""After the intent: the longest a write takes, and how far an API server's clock may be ahead of ours."""

Object = dict[str, Any]


class Told(msgspec.Struct, frozen=True):
    """Changes fit to be shown, and how many there are besides."""

    changes: list[FieldChange]
    more: int


class Evidence(msgspec.Struct, frozen=True):
    """What the cluster says about a write that nobody saw the end of; `rv` only where it is certain."""

    state: Literal["probable", "unknown"]
    rv: str = ""
    uid: str = ""


def told(before: Object | None, after: Object | None, hidden: Sequence[FieldChange] = ()) -> Told:
    """What changed between two states, without noise; `hidden` is what else changed, and is not to be seen."""
    found = list(hidden)
    room, more = MAX_SHOWN, 0
    for difference in differences(quiet(before or {}), quiet(after or {})):
        if len(found) >= MAX_CHANGES:
            more += 1
            continue
        change = _shown(difference, room)
        room -= _size(change)
        found.append(change)
    return Told(found[:MAX_CHANGES], more + len(found[MAX_CHANGES:]))


def hidden_changes(
    before: Mapping[str, bytes] | None, after: Mapping[str, bytes] | None
) -> list[FieldChange]:
    """Which keys of a Secret came, went or hold another value, by the keyed hashes of their values."""
    old, new = before or {}, after or {}
    return [
        FieldChange(
            path=render(("data", key)),
            hidden=True,
            old=None if key in old else ABSENT,
            new=None if key in new else ABSENT,
        )
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _shown(difference: Difference, room: int) -> FieldChange:
    path = render(difference.path)
    sizes = [
        len(msgspec.json.encode(side)) for side in (difference.old, difference.new) if side is not ABSENT
    ]
    if max(sizes) <= MAX_VALUE and sum(sizes) <= room:
        return FieldChange(path=path, old=difference.old, new=difference.new)
    old, new = (ABSENT if side is ABSENT else None for side in (difference.old, difference.new))
    return FieldChange(path=path, old=old, new=new, hidden=True)


def _size(change: FieldChange) -> int:
    return len(msgspec.json.encode(change))


_OWNER = re.compile(
    r'conflict with "(?P<manager>[^"]*)"(?: with subresource "(?P<subresource>[^"]*)")?(?P<rest>.*)'
)


def with_owners(error: KubeloreError, live: Object | None) -> KubeloreError:
    """A conflict of server-side apply, telling in `conflicts` who owns which fields; any other error as it is."""
    causes = error.extra.get("causes")
    if not isinstance(error, Conflict) or not causes:
        return error
    fields: dict[tuple[str, str, str], list[str]] = {}
    for cause in causes:
        if match := _OWNER.match(cause.get("message", "")):
            # Only what was updated, not applied, is told with its version and time.
            operation = "Update" if match["rest"] else "Apply"
            owner = match["manager"], match["subresource"] or "", operation
            fields.setdefault(owner, []).append(cause.get("field", "").lstrip("."))
    if not fields:
        return error
    times = _times(live)
    conflicts = [
        {
            "manager": manager,
            "operation": operation,
            "subresource": subresource,
            "at": times.get((manager, subresource, operation)),
            "fields": owned,
        }
        for (manager, subresource, operation), owned in fields.items()
    ]
    owners = "; ".join(f"{one['manager']} owns {', '.join(one['fields'])}" for one in conflicts)
    extra = {key: value for key, value in error.extra.items() if key != "causes"}
    return Conflict(
        f"others own what this would change: {owners}",
        remedy="Leave these fields out of the manifest, or take them over with force (`kubelore apply --force-conflicts`).",
        **(extra | {"conflicts": conflicts}),
    )


def without_quotes(error: KubeloreError) -> KubeloreError:
    """An API server's refusal of a Secret without its words, which may quote a value."""
    if not isinstance(error, BadRequest | Invalid | UpstreamError):
        return error
    kept = ("kubernetes_reason", "kubernetes_code", "outcome", "field", "code", "line")
    extra = {key: error.extra[key] for key in kept if key in error.extra}
    fields = sorted({cause.get("field", "") for cause in error.extra.get("causes", ())} - {""})
    where = f" because of {', '.join(fields)}" if fields else ""
    return type(error)(
        f"the API server refused the Secret{where}; its words are left out, since they may quote values",
        remedy="Check that data holds base64 and stringData text, and that the Secret is not immutable.",
        **extra,
    )


def evidence(action: Action, uid: str, at: datetime, live: Object | None) -> Evidence:
    """Whether a write intended at `at` shows in the object as it is now; `uid` is what it was then, if it was.

    A deletion shows by absence; anything else by what the field manager
    `kubelore` wrote last, whose time the API server keeps to the second.
    """
    metadata = (live or {}).get("metadata") or {}
    same = not uid or metadata.get("uid") == uid
    if action == "delete":
        ending = _within(at, metadata.get("deletionTimestamp"))
        return Evidence("probable") if uid and (not same or live is None or ending) else Evidence("unknown")
    if live is None or not same:
        return Evidence("unknown")
    times = _times(live)
    operation = "Apply" if action == "apply" else "Update"
    written = times.get((FIELD_MANAGER, "scale" if action == "scale" else "", operation))
    if not _within(at, written):
        return Evidence("unknown")
    last = max(times.values())
    # Only while nobody wrote since is the version that is there the one that it made.
    alone = written == last and list(times.values()).count(last) == 1
    rv = metadata.get("resourceVersion", "") if alone else ""
    return Evidence("probable", rv, metadata.get("uid", ""))


def _times(live: Object | None) -> dict[tuple[str, str, str], str]:
    """When each (manager, subresource, operation) last wrote, as managedFields say."""
    times: dict[tuple[str, str, str], str] = {}
    for entry in ((live or {}).get("metadata") or {}).get("managedFields") or ():
        key = entry.get("manager", ""), entry.get("subresource", ""), entry.get("operation", "")
        times[key] = max(times.get(key, ""), entry.get("time") or "")
    return times


def _within(at: datetime, time: str | None) -> bool:
    return bool(time) and at - EARLIEST <= datetime.fromisoformat(time) <= at + LATEST
