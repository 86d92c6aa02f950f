"""Records the change stream as versions: every change of every versioned object, once, in order.

A batch of records is decided in memory against the heads of its objects, then
written in an order that a death at any point leaves mendable by redelivery:
the objects first, then their versions, which are the commit. A batch that comes
again finds its versions there and makes none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic

import msgspec
import zstandard

from kubelore.common.bus import Parked
from kubelore.common.contracts.changes import Applied, Change, Gap, Record, Synced
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.keeping import Outcome
from kubelore.common.crypto import Signer
from kubelore.common.errors import Conflict, Invalid, Unavailable
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs import packing
from kubelore.yaml_vcs.gap_repository import Mark, parked_scope
from kubelore.yaml_vcs.history import GONE, MAIN, Entry, Head, Seen, follow, is_known, vanish
from kubelore.yaml_vcs.normalising import Normalisers, content_hash, versioned
from kubelore.yaml_vcs.repository import Attribution, Resource, VersionRepository, resource_key
from kubelore.yaml_vcs.statements import attribution_bytes
from kubelore.yaml_vcs.together import together

log = get_logger(__name__)

HEADS_BYTES = 96 * 1024 * 1024
HEADS_OVERHEAD = 1024
"""What a head costs beside its content."""
TRUSTED_S = 3600.0
"""How long a head that nobody wrote behind is believed in; half of the age that nothing younger is pruned of."""
READ_AT_ONCE = 2
"""By one batch: sixteen partitions share the connections to the database."""
MAX_OBJECT = 64 * 1024 * 1024


class Heads:
    """The newest version of the objects that changed last, bounded in bytes; what is not here is read again."""

    def __init__(self, repository: VersionRepository, limit_bytes: int = HEADS_BYTES) -> None:
        self._repository = repository
        self._limit = limit_bytes
        self._held: OrderedDict[bytes, Head] = OrderedDict()
        self._kept_at: dict[bytes, float] = {}
        self._bytes = 0

    async def load(self, keys: Iterable[bytes]) -> dict[bytes, Head | None]:
        """The heads of objects; None for those without a history."""
        found: dict[bytes, Head | None] = {key: self._fresh(key) for key in keys}
        for key, head in found.items():
            if head is not None:
                self._held.move_to_end(key)
        missing = [key for key, head in found.items() if head is None]
        known = iter(await self._repository.known(missing) if missing else ())

        async def read() -> None:
            for key in known:
                found[key] = head = await self._read(key)
                if head is not None:
                    self.keep(key, head)

        async with together() as group:
            for _ in range(min(READ_AT_ONCE, len(missing))):
                group.create_task(read())
        return found

    def _fresh(self, key: bytes) -> Head | None:
        # What another replica wrote behind an older one may be pruned, and would not be in the way of a new one.
        if monotonic() - self._kept_at.get(key, 0.0) > TRUSTED_S:
            self.forget(key)
        return self._held.get(key)

    async def _read(self, key: bytes) -> Head | None:
        entry = await self._repository.last(key)
        if entry is None:
            return None
        if entry.kind in GONE:
            return Head(entry=entry)
        chain = await self._repository.chain(key, MAIN, entry)
        return Head(entry=entry, content=packing.unpack_all([one.frame for one in chain])[-1])

    def keep(self, key: bytes, head: Head) -> None:
        """Hold a head that has been written."""
        self.forget(key)
        self._held[key] = head
        self._kept_at[key] = monotonic()
        self._bytes += len(head.content) + HEADS_OVERHEAD
        while self._bytes > self._limit and len(self._held) > 1:
            old, dropped = self._held.popitem(last=False)
            self._kept_at.pop(old, None)
            self._bytes -= len(dropped.content) + HEADS_OVERHEAD

    def forget(self, key: bytes) -> None:
        """Read a head anew next time: what is here may not be what is written."""
        held = self._held.pop(key, None)
        self._kept_at.pop(key, None)
        if held is not None:
            self._bytes -= len(held.content) + HEADS_OVERHEAD


class Recorder:
    """Takes batches of records; `read_blob` opens what was too large for the stream.

    `heard` is told the keys of the objects that have new versions.
    """

    def __init__(
        self,
        repository: VersionRepository,
        normaliser: Normalisers,
        signer: Signer,
        read_blob: Callable[[str], Awaitable[bytes]],
        heads: Heads | None = None,
        heard: Callable[[Iterable[bytes]], None] = lambda _: None,
    ) -> None:
        self._repository = repository
        self._normaliser = normaliser
        self._signer = signer
        self._read_blob = read_blob
        self._heads = heads or Heads(repository)
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._heard = heard
        self.recorded = 0

    async def take(self, records: list[Record]) -> None:
        """Record a batch; returns when it is written. Idempotent.

        Raises Unavailable while something is away, and Invalid for a change that can never be read.
        """
        # At whatever moment it is heard: who wrote what is joined when it is read.
        await self._attribute([record for record in records if isinstance(record, Applied)])
        run: list[Change] = []
        for record in records:
            if isinstance(record, Change):
                run.append(record)
                continue
            if isinstance(record, Applied):
                continue
            await self._take_changes(run)
            run = []
            await (self._begin_gap(record) if isinstance(record, Gap) else self._end_gap(record))
        await self._take_changes(run)

    async def _take_changes(self, changes: Sequence[Change]) -> None:
        seen = [
            (resource_key(change.id), change, one) for change in changes if (one := await self._seen(change))
        ]
        if not seen:
            return
        heads = await self._heads.load({key for key, _, _ in seen})
        entries: list[tuple[bytes, int, Entry]] = []
        resources: dict[bytes, Resource] = {}
        alive: dict[bytes, bool] = {}
        for key, change, one in seen:
            following = follow(heads[key], one)
            if heads[key] is None and following is not None:
                resources[key] = Resource.of(change.id)
            if following is not None:
                heads[key] = following
                entries.append((key, MAIN, following.entry))
                alive[key] = not following.gone
        await self._write(entries, resources, alive, heads)
        await self._mark_seen(seen)

    async def _write(
        self,
        entries: Sequence[tuple[bytes, int, Entry]],
        resources: dict[bytes, Resource],
        alive: dict[bytes, bool],
        heads: dict[bytes, Head | None],
    ) -> None:
        if not entries:
            return
        keys = {key for key, _, _ in entries}
        try:
            if resources:
                await self._repository.add_resources(resources)
            # A change of a known object seldom makes it come or go; only then is there something to note.
            await self._note_lives(alive, resources, entries)
            await self._repository.append(entries)
        except Conflict as error:
            for key in keys:
                self._heads.forget(key)
            raise Unavailable("another replica records these objects; reading them again") from error
        except BaseException:
            for key in keys:
                self._heads.forget(key)
            raise
        for key in keys:
            head = heads[key]
            if head is not None:
                self._heads.keep(key, head)
        self.recorded += len(entries)
        self._heard(keys)

    async def _note_lives(
        self,
        alive: dict[bytes, bool],
        new: dict[bytes, Resource],
        entries: Sequence[tuple[bytes, int, Entry]],
    ) -> None:
        turned = {key for key, _, entry in entries if entry.kind not in ("updated",)}
        for live in (True, False):
            keys = [key for key in turned if alive[key] is live and not (live and key in new)]
            if keys:
                await self._repository.set_live(keys, live=live)

    async def _seen(self, change: Change) -> Seen | None:
        """What a change says, None for what is not versioned."""
        normaliser = self._normaliser.of(change.cluster)
        policy = normaliser.policy
        identity = ResourceId.parse(change.id)
        if not versioned(policy, change.type, identity.namespace, {}):
            return None
        frame = await self._read_blob(change.blob) if change.blob else change.object
        try:
            raw = self._decompress(frame, max_output_size=MAX_OBJECT)
        except zstandard.ZstdError as error:
            raise Invalid("the object of a change cannot be unpacked") from error
        read = normaliser.read(change.type, raw, change.hmacs)
        if policy.excluded_labels and not versioned(policy, change.type, identity.namespace, read.labels):
            return None
        return Seen.of(change, read.content, read.writers, policy.number)

    async def _attribute(self, applied: Iterable[Applied]) -> None:
        """Keep who wrote what, all together: a restore says so of each of its objects."""
        said = [
            Attribution(
                cluster=one.cluster,
                uid=one.uid,
                rv=one.rv,
                actor=one.actor,
                reason=one.reason,
                change_log=one.change_log,
                operation_id=one.operation_id,
                probable=one.probable,
            )
            for one in applied
            # Where somebody else has written since, nobody knows which version it led to.
            if one.rv or one.action == "delete"
        ]
        await self._repository.attribute([signed(one, self._signer) for one in said])

    # gaps

    async def _begin_gap(self, gap: Gap) -> None:
        scope = gap_scope(gap.cluster, gap.type, gap.namespace)
        name = f"{scope}/{gap.incarnation}/{gap.after_rv}/{int(gap.at * 1000)}"
        await self._repository.open_gap(scope, name, {"after_rv": gap.after_rv, "at": gap.at})

    async def _mark_seen(self, seen: Sequence[tuple[bytes, Change, Seen]]) -> None:
        scopes: dict[str, set[bytes]] = {}
        for key, change, _ in seen:
            if change.kind == "observed":
                namespace = ResourceId.parse(change.id).namespace
                for place in {namespace, ""}:
                    scopes.setdefault(gap_scope(change.cluster, change.type, place), set()).add(key)
        for scope, keys in scopes.items():
            gap = await self._repository.gap_of(scope)
            if gap:
                await self._repository.mark_seen(keys, gap)

    async def _end_gap(self, synced: Synced) -> None:
        """What was there before the gap and is not listed any more has vanished."""
        scope = gap_scope(synced.cluster, synced.type, synced.namespace)
        gap = await self._repository.gap_of(scope)
        if not gap:
            return
        after: bytes | None = None
        while True:
            gone = await self._repository.unseen(synced.cluster, synced.type, synced.namespace, gap, after)
            if not gone:
                break
            await self._vanish([key for key, _ in gone], synced)
            after = gone[-1][0]
        await self._repository.close_gap(scope, synced.at)

    async def _vanish(self, keys: Sequence[bytes], synced: Synced) -> None:
        heads = await self._heads.load(keys)
        entries: list[tuple[bytes, int, Entry]] = []
        for key in keys:
            head = heads[key]
            following = vanish(head, at=synced.at, incarnation=synced.incarnation) if head else None
            if following is not None:
                heads[key] = following
                entries.append((key, MAIN, following.entry))
        await self._write(entries, {}, {key: False for key, _, _ in entries}, heads)

    async def replay(self, change: Change, parked: int) -> Outcome:
        """Take a change that was parked: as a version, or beside the chain where newer ones are.

        Idempotent. Raises Invalid while it still cannot be read.
        """
        key, scope = resource_key(change.id), parked_scope(change.id)
        seen = await self._seen(change)
        # Another replica may have written behind the head that this one remembers.
        self._heads.forget(key)
        head = (await self._heads.load([key]))[key]
        at = int(change.at * 1000)
        there = await self._repository.last(key, until=at)
        if seen is None or (there is not None and (there.uid, there.rv) == (change.uid, change.rv)):
            await self._repository.marks.settle(scope, parked)
            return "unchanged" if seen is None else "recorded"
        if head is not None and is_known(head.entry, seen):
            await self._repository.marks.keep_late(await self._late(key, change, seen, parked))
            return "late"
        before = head.entry.number if head is not None else 0
        await self._take_changes([change])
        last = await self._repository.last(key)
        await self._repository.marks.settle(scope, parked)
        return "recorded" if last is not None and last.number > before else "unchanged"

    async def _late(self, key: bytes, change: Change, seen: Seen, parked: int) -> Mark:
        hashed = content_hash(seen.content)
        hidden = change.kind == "deleted" or await self._repository.redacted(key, hashed)
        scope = parked_scope(change.id)
        return Mark(
            id=f"{scope}/{parked}",
            scope=scope,
            at=change.at,
            after_rv=change.rv,
            kind=change.kind,
            parked=parked,
            open=False,
            late=True,
            hash=hashed,
            frame=b"" if hidden else packing.pack(seen.content, None),
        )

    async def placeholder(self, parked: Parked) -> None:
        """A change that could not be taken leaves a mark where it belongs, until it is replayed."""
        record = parked.record
        if not isinstance(record, Change):
            return
        scope = parked_scope(record.id)
        details = {
            "at": record.at,
            "after_rv": record.rv,
            "kind": record.kind,
            "parked": parked.id,
            "reason": parked.reason[:200],
        }
        await self._repository.open_gap(scope, f"{scope}/{parked.id}", details)


def gap_scope(cluster: str, type_name: str, namespace: str = "") -> str:
    """What a gap is about: a type of a cluster, or of one of its namespaces."""
    return f"{cluster}/{type_name}/{namespace}"


def signed(said: Attribution, signer: Signer) -> Attribution:
    """An attribution with the signature of who heard it."""
    signature = signer.sign(attribution_bytes(said), context="attribution")
    return msgspec.structs.replace(said, signature=signature)
