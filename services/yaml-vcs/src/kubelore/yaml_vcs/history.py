"""What a change makes of an object's history: the next version, or nothing. Pure.

A history belongs to a resource id, not to a uid: an object that is deleted and
made again under its name goes on in it, and each version says which object it
was of. Versions count 1, 2, 3 … per branch, in the order of the cluster's change
stream, and each names the one before by its commit hash, so that nothing in
between can be changed, dropped or put in unseen.

Redelivery is harmless: whatever is not newer than the head was recorded, or made
no version, and makes none now.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from kubelore.common.contracts.changes import Change, Kind
from kubelore.yaml_vcs import packing
from kubelore.yaml_vcs.normalising import HASH_BYTES, Writer, content_hash, who_wrote

Happened = Literal["observed", "created", "updated", "deleted", "vanished", "recorded", "missing"]
"""`vanished`: a list no longer held it, when and by whom it was deleted is not known. `recorded`: written here
by hand. `missing`: a change that could not be taken, and waits parked."""

KINDS: tuple[Happened, ...] = (
    "observed",
    "created",
    "updated",
    "deleted",
    "vanished",
    "recorded",
    "missing",
)
GONE = frozenset({"deleted", "vanished"})
NO_COMMIT = bytes(HASH_BYTES)
MAIN = 0
"""The branch that follows the cluster."""

_COMMIT = struct.Struct(">IBqB")


class Redaction(msgspec.Struct, frozen=True, array_like=True):
    """Who took a content out of the history, when (milliseconds since 1970) and why; signed."""

    by: str
    at: int
    reason: str
    signature: bytes = b""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """What stands for the versions between this one and the one numbered `before`, which were pruned; signed.

    `parent` is the commit of the last of them, which this version names.
    """

    before: int
    parent: bytes
    at: int
    signature: bytes = b""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One version as it is kept. Times are milliseconds since 1970; `rv` is the API server's.

    `frame` packs the content against the version before, or stands alone when
    `base` is this very version; a tombstone has none.
    """

    number: int
    kind: Happened
    at: int
    incarnation: int
    uid: str
    rv: str
    hash: bytes
    commit: bytes
    base: int
    frame: bytes = b""
    manager: str = ""
    operation: str = ""
    sealed: bytes = b""
    rules: int = 0
    """The number of the policy that it was normalised by."""
    redaction: Redaction | None = None
    checkpoint: Checkpoint | None = None


class Head(msgspec.Struct, kw_only=True):
    """The newest version of a branch with its content: what the next one is decided and packed against."""

    entry: Entry
    content: bytes = b""
    writers: tuple[Writer, ...] = ()
    """Who owned what when the object was heard of last; empty when that was before this process began."""

    @property
    def gone(self) -> bool:
        """Whether the object is deleted as of now."""
        return self.entry.kind in GONE


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a change says, taken apart: its normalised content, and who owns what by managedFields."""

    kind: Kind
    at: float
    incarnation: int
    uid: str
    rv: str
    content: bytes
    writers: tuple[Writer, ...] = ()
    sealed: bytes = b""
    rules: int = 0

    @classmethod
    def of(cls, change: Change, content: bytes, writers: tuple[Writer, ...], rules: int = 0) -> Seen:
        """A change and what was read from its object."""
        return cls(
            kind=change.kind,
            at=change.at,
            incarnation=change.incarnation,
            uid=change.uid,
            rv=change.rv,
            content=content,
            writers=writers,
            sealed=change.sealed,
            rules=rules,
        )


def follow(head: Head | None, seen: Seen) -> Head | None:
    """The new head after a change; None when it makes no version, though the head then knows who wrote last."""
    if head is not None and is_known(head.entry, seen):
        return None
    if seen.kind == "deleted":
        return None if head is None or head.gone else _tombstone(head, "deleted", seen)
    same = head is not None and not head.gone and head.entry.uid == seen.uid
    if head is not None and same and content_hash(seen.content) == head.entry.hash:
        head.writers = seen.writers
        return None
    # A watch that begins in the middle tells `updated` of what is new here.
    kind: Happened = seen.kind if head is not None or seen.kind != "updated" else "observed"
    if head is not None and not same and kind == "updated":
        kind = "created"
    return _next(head, kind, seen, seen.content)


def vanish(head: Head, *, at: float, incarnation: int) -> Head | None:
    """The tombstone of an object that a complete list no longer held; None when it was gone already."""
    if head.gone:
        return None
    entry = head.entry
    unknown = Seen(kind="deleted", at=at, incarnation=incarnation, uid=entry.uid, rv=entry.rv, content=b"")
    return _tombstone(head, "vanished", unknown)


def record(head: Head | None, base: Entry, content: bytes, *, at: float) -> Head:
    """The next version of a draft, written by hand; its first follows the version that it was branched off."""
    seen = Seen(kind="observed", at=at, incarnation=base.incarnation, uid=base.uid, rv="", content=content)
    return _next(head, "recorded", seen, content, parent=base.commit)


def commit_hash(parent: bytes, number: int, kind: Happened, at: int, seen: bytes, identity: str) -> bytes:
    """What names a version: over its parent, number, time, content and which object it was of.

    The actor is no part of it: it may become known later, and is signed by itself.
    """
    head = _COMMIT.pack(number, KINDS.index(kind), at, len(parent))
    return hashlib.sha256(head + parent + seen + identity.encode()).digest()[:HASH_BYTES]


def identity_of(uid: str, incarnation: int, rv: str) -> str:
    """Which object at which moment of which cluster's life, for the commit hash."""
    return f"{uid}/{incarnation}/{rv}"


class Vouching(Protocol):
    """Tells whether what changed a history afterwards was signed."""

    def redaction(self, entry: Entry) -> bool:
        """Whether the content of a version was taken out by who may."""
        ...

    def checkpoint(self, entry: Entry, commit: bytes) -> bool:
        """Whether the versions before an entry were pruned, back to the one with that commit."""
        ...


def first_broken(
    entries: Sequence[Entry],
    contents: Sequence[bytes],
    parent: bytes,
    *,
    after: int = 0,
    vouching: Vouching | None = None,
) -> int | None:
    """The number of the first version that does not follow from the one before; None when all do.

    `parent` is the commit of version `after`, behind which `entries` come, and `contents` are theirs.
    """
    for entry, content in zip(entries, contents, strict=True):
        due = after + 1
        if entry.number != due:
            pruned = entry.checkpoint
            if pruned is None or pruned.before != after or entry.number < due or vouching is None:
                return due
            if not vouching.checkpoint(entry, parent):
                return due
            parent = pruned.parent
        expected = commit_hash(
            parent,
            entry.number,
            entry.kind,
            entry.at,
            entry.hash,
            identity_of(entry.uid, entry.incarnation, entry.rv),
        )
        if entry.commit != expected or not _whole(entry, content, vouching):
            return entry.number
        parent, after = entry.commit, entry.number
    return None


def _whole(entry: Entry, content: bytes, vouching: Vouching | None) -> bool:
    if entry.redaction is not None:
        return vouching is not None and vouching.redaction(entry)
    return entry.kind in GONE or content_hash(content) == entry.hash


def is_known(entry: Entry, seen: Seen) -> bool:
    """Whether a change was taken before: its life of the cluster is past, or its version not newer."""
    if seen.incarnation != entry.incarnation:
        return seen.incarnation < entry.incarnation
    if not (seen.rv.isdecimal() and entry.rv.isdecimal()):
        return seen.rv == entry.rv
    # What vanished from a list and is listed again was there all the time, unchanged.
    newest = int(entry.rv) - (entry.kind == "vanished")
    return int(seen.rv) <= newest


def _tombstone(head: Head, kind: Happened, seen: Seen) -> Head:
    return _next(head, kind, seen, b"")


def _next(
    head: Head | None, kind: Happened, seen: Seen, content: bytes, *, parent: bytes = NO_COMMIT
) -> Head:
    last = head.entry if head is not None else None
    number = last.number + 1 if last is not None else 1
    at = max(int(seen.at * 1000), last.at if last is not None else 0)
    gone = kind in GONE
    hashed = NO_COMMIT if gone else content_hash(content)
    chained = head is not None and not head.gone and number - head.entry.base < packing.CHAIN
    before = head.content if head is not None and chained else None
    manager, operation = who_wrote(head.writers if head is not None else (), seen.writers)
    entry = Entry(
        number=number,
        kind=kind,
        at=at,
        incarnation=seen.incarnation,
        uid=seen.uid,
        rv=seen.rv,
        hash=hashed,
        commit=commit_hash(
            last.commit if last is not None else parent,
            number,
            kind,
            at,
            hashed,
            identity_of(seen.uid, seen.incarnation, seen.rv),
        ),
        base=last.base if last is not None and (chained or gone) else number,
        frame=b"" if gone else packing.pack(content, before),
        manager=manager,
        operation=operation,
        sealed=seen.sealed,
        rules=seen.rules,
    )
    return Head(entry=entry, content=content, writers=seen.writers)
