"""Hash chains whose heads are signed: a record of the past that cannot be changed without being seen.

Each writer has a chain of its own, so that writers need not agree on an order.
An entry's hash covers its content and the hash before it; a *head* is a signed
statement of how far the chain had come, kept apart from the entries and put
create-only. Whoever may write where the entries lie can alter all of them and
every hash, but not the heads:

- an entry that was changed, inserted, moved or doubled breaks the hashes;
- one that is missing leaves a hole in the numbers;
- a cut tail is shorter than the newest head says;
- a chain that is gone as a whole was announced by a head when it was opened.

What was appended after the newest head is the *tail*: it hangs together, but is
vouched for by nobody yet. Pruning leaves a signed *checkpoint*, from which the
rest goes on. Pure: where entries, heads and checkpoints lie is the caller's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from kubelore.common.crypto.context import bound
from kubelore.common.crypto.signing import Signer, Verifier
from kubelore.common.errors import IntegrityError

HASH_BYTES = 32

FaultKind: TypeAlias = Literal[
    "unannounced",  # no head says that the chain was opened
    "heads-missing",  # a head between others is gone, or they contradict each other
    "changed",  # an entry's hash is not what it and the one before say
    "missing",  # an entry between others is gone, or the first ones without a checkpoint
    "disordered",  # an entry comes where another number is due: doubled, inserted or moved
    "rewritten",  # the hashes agree with each other, but not with what was signed
    "cut",  # the chain ends before what was signed
    "appended",  # entries behind the head that closed the chain
    "hidden",  # an entry is marked as replaced by one that is not there
]


class Link(NamedTuple):
    """Where an entry stands in its chain. Numbers begin at 1; 0 is the chain without entries."""

    number: int
    hash: bytes


class Head(msgspec.Struct, frozen=True, kw_only=True, tag="head"):
    """How far a chain had come. `serial` counts the heads of a chain from 0, which opens it; 0 has number 0.

    `closed` is the writer's last word. `at` is in seconds since the epoch.
    """

    chain: str
    serial: int
    number: int
    hash: bytes
    at: float
    writer: str = ""
    closed: bool = False


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """Entries up to `number`, whose hash is given, and heads up to `serial` were pruned after they had verified.

    `closed` when the head that closes the chain is one of them.
    """

    chain: str
    number: int
    hash: bytes
    serial: int
    at: float
    closed: bool = False


Statement: TypeAlias = Head | Checkpoint
S = TypeVar("S", Head, Checkpoint)


class Fault(msgspec.Struct, frozen=True):
    """The first thing that does not verify, and the number of the entry where."""

    kind: FaultKind
    number: int
    detail: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one chain. `signed` is the number up to which heads vouch; behind it lies the tail."""

    chain: str
    entries: int
    first: int
    last: int
    signed: int
    closed: bool
    fault: Fault | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.fault is None


class Chain:
    """The end of one chain, and how it grows. `scope` is what chains of this kind are for (`audit`)."""

    def __init__(self, scope: str, name: str, end: Link | None = None) -> None:
        self.scope = scope
        self.name = name
        self._start = hashlib.sha256(bound(b"kubelore chain v1", scope, name))
        self.end = end or self.genesis

    @property
    def genesis(self) -> Link:
        """What the first entry hangs on."""
        return Link(0, self._start.digest())

    def append(self, content: bytes) -> Link:
        """Hang an entry on the end."""
        self.end = self.following(self.end, content)
        return self.end

    def following(self, before: Link, content: bytes) -> Link:
        """The link of an entry behind another one."""
        digest = self._start.copy()
        digest.update((before.number + 1).to_bytes(8, "big") + before.hash)
        digest.update(content)
        return Link(before.number + 1, digest.digest())


def canonical(entry: object) -> bytes:
    """The bytes of an entry that are hashed: JSON with sorted keys, the same for equal values.

    Whole numbers of a driver's own type count as what they are.
    """
    return msgspec.json.encode(entry, enc_hook=_plain, order="sorted")


def sign(statement: Statement, signer: Signer, scope: str) -> bytes:
    """A head or checkpoint as it is stored: a line of JSON, and the signature."""
    body = msgspec.json.encode(statement)
    signature = signer.sign(body, context=_context(statement, scope))
    return body + b"\n" + base64.b64encode(signature) + b"\n"


def read(stored: bytes, kind: type[S], verifier: Verifier, scope: str, chain: str, place: int) -> S:
    """What `sign` gave, for the place where it was found: a head's serial, a checkpoint's number.

    Raises IntegrityError when it is altered, or of another place, kind, scope or key.
    """
    body, _, signature = stored.rstrip(b"\n").rpartition(b"\n")
    try:
        statement = msgspec.json.decode(body, type=kind)
        raw = base64.b64decode(signature, validate=True)
    except (msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"{kind.__name__} {place} of the chain {chain} cannot be read") from error
    if (statement.chain, _place(statement)) != (chain, place):
        raise IntegrityError(f"{kind.__name__} {place} of the chain {chain} belongs elsewhere")
    verifier.verify(body, raw, context=_context(statement, scope))
    return statement


class Verification:
    """Goes along one chain, entry by entry, in bounded memory.

    `heads` and `checkpoint` must have come from `read`. They are to be fetched
    before the entries, as a chain may grow meanwhile.
    """

    def __init__(
        self, scope: str, name: str, heads: Iterable[Head], checkpoint: Checkpoint | None = None
    ) -> None:
        self._chain = Chain(scope, name)
        self._checkpoint = checkpoint
        base = Link(checkpoint.number, checkpoint.hash) if checkpoint else self._chain.genesis
        self._chain.end = self._base = base
        ordered = sorted(heads, key=lambda head: head.serial)
        self._due = [head for head in ordered if head.number >= base.number]
        self._due.reverse()
        self._closed_at = next((head.number for head in ordered if head.closed), None)
        if checkpoint is not None and checkpoint.closed:
            self._closed_at = checkpoint.number
        self.fault = _fault_of_heads(name, ordered, checkpoint, self._chain.genesis)
        self._entries = 0
        self._vouched = base.number
        self._serial = checkpoint.serial if checkpoint else -1
        self._meet_heads()

    def add(self, number: int, hash: bytes, content: bytes) -> bool:
        """The next entry, by rising number; whether all is well so far. What a checkpoint covers is passed over."""
        if self.fault is not None:
            return False
        if self._checkpoint is not None and number <= self._base.number:
            return True
        due = self._chain.end.number + 1
        if number > due:
            first = self._chain.end == self._base and self._checkpoint is None
            why = "no checkpoint says that it was pruned" if first else f"{number} is the next there is"
            return self._fail("missing", due, f"entry {due} is gone: {why}")
        if number < due:
            return self._fail("disordered", number, f"entry {number} comes where {due} is due")
        if self._closed_at is not None and number > self._closed_at:
            return self._fail("appended", number, f"the chain was closed at {self._closed_at}")
        if self._chain.append(content).hash != hash:
            return self._fail("changed", number, f"entry {number} is not what was written, or the one before")
        self._entries += 1
        self._meet_heads()
        return self.fault is None

    @property
    def end(self) -> Link:
        """How far it has come."""
        return self._chain.end

    def finish(self) -> Verdict:
        """The verdict, after the last entry."""
        end = self._chain.end
        if self.fault is None and self._due:
            signed = self._due[0].number
            self._fail("cut", end.number + 1, f"the chain ends at {end.number}; {signed} entries were signed")
        return Verdict(
            chain=self._chain.name,
            entries=self._entries,
            first=self._base.number + 1,
            last=end.number,
            signed=self._vouched,
            closed=self._closed_at is not None,
            fault=self.fault,
        )

    def checkpoint(self, at: float) -> Checkpoint:
        """What to leave when everything up to here is pruned. Raises IntegrityError when it did not verify."""
        if self.fault is not None:
            raise IntegrityError(f"the chain {self._chain.name} does not verify, and is left as it is")
        number, digest = self._chain.end
        closed = self._closed_at is not None and self._closed_at <= number
        return Checkpoint(
            chain=self._chain.name, number=number, hash=digest, serial=self._serial, at=at, closed=closed
        )

    def _meet_heads(self) -> None:
        while self._due and self._due[-1].number <= self._chain.end.number and self.fault is None:
            head = self._due.pop()
            if head.hash != self._chain.end.hash:
                self._fail(
                    "rewritten",
                    self._vouched + 1,
                    f"entries {self._vouched + 1} to {head.number} are not those that were signed",
                )
                return
            self._vouched, self._serial = head.number, head.serial

    def _fail(self, kind: FaultKind, number: int, detail: str) -> bool:
        self.fault = self.fault or Fault(kind, number, detail)
        return False


def _fault_of_heads(
    name: str, heads: Sequence[Head], checkpoint: Checkpoint | None, genesis: Link
) -> Fault | None:
    """What is wrong with the heads among themselves."""
    due, number = 0, 0
    if checkpoint is not None:
        due, number = checkpoint.serial + 1, 0
        heads = [head for head in heads if head.serial >= due]
    elif not heads or heads[0].serial != 0:
        return Fault("unannounced", 0, f"no head says that the chain {name} was opened")
    elif (heads[0].number, heads[0].hash) != genesis:
        return Fault("unannounced", 0, f"the first head of the chain {name} does not open it")
    for head in heads:
        if head.serial != due:
            return Fault("heads-missing", head.number, f"head {due} of the chain {name} is gone")
        if head.number < number:
            return Fault("heads-missing", head.number, f"head {due} of the chain {name} goes back")
        due, number = due + 1, head.number
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    raise NotImplementedError(f"a {type(value).__name__} cannot stand in an entry")


def _place(statement: Statement) -> int:
    return statement.serial if isinstance(statement, Head) else statement.number


def _context(statement: Statement, scope: str) -> str:
    return f"chain {scope} {type(statement).__name__.lower()} {statement.chain} {_place(statement)}"
