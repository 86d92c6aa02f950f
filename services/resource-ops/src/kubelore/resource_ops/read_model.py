"""What a replica holds of its clusters: every object, newest state, findable.

Pure and in memory: no I/O, no clock, no locks; used from one thread. It is a
cache of the API servers: throw it away and the observers fill it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, Protocol

import msgspec
from pyroaring import BitMap

from kubelore.common.contracts.changes import Was
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.frames import Dictionary, metadata_only
from kubelore.common.kube.facts import Facts, field_paths, read
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.type_names import resolve
from kubelore.resource_ops.codec import Codec, split
from kubelore.resource_ops.index import Index
from kubelore.resource_ops.rows import Row, Table, older, version

SECRETS = "secrets"
MAX_MEANT = 256
"""Questions for types that are remembered."""


class Identified(Protocol):
    """What tells one object at one resourceVersion from others; `kube.ObjectMeta` does."""

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


class Upserted(msgspec.Struct, frozen=True):
    """What an arriving object did to the model.

    `older`: something newer is held (or known to be gone) and the arrival was
    ignored. `old_rv` is the resourceVersion held before, empty when none was.
    `was` says what selectors matched before, where that has changed.
    """

    kind: Literal["created", "updated", "unchanged", "older"]
    old_rv: str = ""
    was: Was | None = None


class Vanished(msgspec.Struct, frozen=True):
    """An object that a complete list no longer held, with its last known state."""

    id: str
    uid: str
    rv: str
    object: bytes


class ReadModel:
    """Every cluster that this replica observes, over one set of indexes."""

    def __init__(self) -> None:
        self.index = Index()
        self.clusters: dict[str, ClusterModel] = {}
        self._codecs: dict[str, Codec] = {}
        self._meant: dict[tuple[tuple[str, ...], tuple[str, ...]], frozenset[str]] = {}

    def open(self, cluster: str) -> ClusterModel:
        """The model of a cluster; an empty one when it is not held yet."""
        model = self.clusters.get(cluster)
        if model is None:
            model = self.clusters[cluster] = ClusterModel(cluster, self)
            self.types_changed()
        return model

    def close(self, cluster: str) -> None:
        """Forget a cluster and everything held of it."""
        model = self.clusters.pop(cluster, None)
        if model is not None:
            self.types_changed()
            for table in list(model.tables.values()):
                model.drop_type(table.type)

    def meant(self, written: Iterable[str], clusters: Iterable[ClusterModel]) -> frozenset[str]:
        """The types that are meant in these clusters (`type_names.resolve`), remembered while they serve the same.

        Raises BadRequest for one that none of them serves.
        """
        asked = list(clusters)
        key = tuple(written), tuple(model.cluster for model in asked)
        found = self._meant.get(key)
        if found is None:
            found = frozenset(resolve(key[0], [model.types for model in asked]))
            if len(self._meant) >= MAX_MEANT:
                self._meant.clear()
            self._meant[key] = found
        return found

    def types_changed(self) -> None:
        """A cluster serves other types than before."""
        self._meant.clear()

    def codec(self, type_name: str) -> Codec:
        """How objects of a type lie at rest; one dictionary for all clusters, none for Secrets."""
        codec = self._codecs.get(type_name)
        if codec is None:
            codec = self._codecs[type_name] = Codec(learn=type_name != SECRETS)
        return codec

    def dictionaries(self, fingerprints: Iterable[str]) -> dict[str, Dictionary]:
        """The dictionaries of these fingerprints, as far as they were learned here."""
        wanted = frozenset(fingerprints)
        return {
            fingerprint: dictionary
            for codec in self._codecs.values()
            for fingerprint, dictionary in codec.dictionaries().items()
            if fingerprint in wanted
        }

    def get(self, id: str) -> Row | None:
        """The row of an id, if it is held; raises BadRequest when it is no id."""
        of = ResourceId.parse(id)
        model = self.clusters.get(of.cluster)
        table = model.tables.get(of.type) if model else None
        return table.get(of.namespace, of.name) if table else None


class ClusterModel:
    """One cluster's objects. Made by `ReadModel.open`."""

    def __init__(self, cluster: str, model: ReadModel | None = None) -> None:
        self.cluster = cluster
        self.types: dict[str, ResourceType] = {}
        self.tables: dict[str, Table] = {}
        self.numbers = BitMap()
        self._model = model or ReadModel()
        self._index = self._model.index

    def learn(self, resource_type: ResourceType) -> None:
        """Make a type known, so that it can be asked for before any of its objects has arrived."""
        if self.types.get(resource_type.name) != resource_type:
            self.types[resource_type.name] = resource_type
            self._model.types_changed()

    def _table(self, resource_type: ResourceType) -> Table:
        name = resource_type.name
        table = self.tables.get(name)
        if table is None:
            if name not in self.types:
                self.learn(resource_type)
            table = self.tables[name] = Table(self.cluster, name, self._model.codec(name))
        return table

    def upsert(
        self,
        resource_type: ResourceType,
        raw: bytes,
        hashes: dict[str, bytes] | None = None,
        facts: Facts | None = None,
    ) -> Upserted:
        """Take in an object as a watch delivered it; with a Secret the `hashes` of its values.

        `facts` are those of `raw` where they have been read already.

        An arrival that is older than what is held is ignored, and so is one
        that the last complete list no longer held. Raises Invalid for bytes
        that are no object.
        """
        table = self._table(resource_type)
        facts = facts or read(table.type, raw)
        done = self._put(table, facts, raw, floor=table.floor(facts.meta.namespace))
        _keep(table, facts, done, hashes)
        return done

    def _put(
        self, table: Table, facts: Facts, raw: bytes, *, floor: int | str = 0, force: bool = False
    ) -> Upserted:
        rv = version(facts.meta.resource_version)
        row = table.get(facts.meta.namespace, facts.meta.name)
        if row is None:
            if older(rv, floor) or (rv == floor and rv):
                return Upserted("older")
            self._add(table, facts, raw)
            return Upserted("created")
        held = str(row.rv)
        if older(rv, row.rv) and not force:
            return Upserted("older", held)
        if row.uid != facts.meta.uid:
            self._remove(row)
            self._add(table, facts, raw)
            return Upserted("created")
        if rv == row.rv and not force:
            if row.number in table.partial and not table.metadata_only:
                self._index.change(row, facts, self._pack(table, facts, raw))
            return Upserted("unchanged", held)
        labels, fields = row.labels, row.fields
        self._index.change(row, facts, self._pack(table, facts, raw))
        changed = labels != row.labels or fields != row.fields
        return Upserted("updated", held, _was(table.type, labels, fields) if changed else None)

    def _pack(self, table: Table, facts: Facts, raw: bytes) -> bytes:
        parts = split(raw, facts.metadata, facts.managed)
        codec = table.codec
        return codec.pack_metadata(parts.metadata) if table.metadata_only else codec.pack(parts)

    def _add(self, table: Table, facts: Facts, raw: bytes) -> None:
        row = self._index.add(table, facts, self._pack(table, facts, raw))
        self.numbers.add(row.number)

    def _remove(self, row: Row) -> None:
        self.numbers.discard(row.number)
        self._index.remove(row)

    def delete(self, resource_type: ResourceType, meta: Identified) -> str:
        """Take an object out; returns the resourceVersion that was held, empty when none was.

        Ignored when what is held is newer, or another object of the same name.
        """
        table = self.tables.get(resource_type.name)
        row = table.get(meta.namespace, meta.name) if table else None
        if row is None or (meta.uid and row.uid != meta.uid) or older(version(meta.resource_version), row.rv):
            return ""
        held = str(row.rv)
        self._remove(row)
        return held

    def begin_list(
        self, resource_type: ResourceType, *, namespace: str = "", regressed: bool = False
    ) -> Listing:
        """Start taking in a complete list (of one namespace, when it is named), page by page.

        `regressed` when the server's resourceVersions went back (a restored
        etcd): then what is listed wins over what is held, whatever its number.
        """
        return Listing(self, self._table(resource_type), namespace=namespace, regressed=regressed)

    def replace(self, resource_type: ResourceType, items: Iterable[bytes], rv: str) -> list[Vanished]:
        """Take in a complete list at once; returns what it no longer held."""
        listing = self.begin_list(resource_type)
        for raw in items:
            listing.add(raw)
        return listing.finish(rv)

    def drop_type(self, name: str) -> None:
        """Forget a type that is no longer served, and its objects."""
        self.types.pop(name, None)
        self._model.types_changed()
        table = self.tables.pop(name, None)
        for row in list(table or ()):
            self._remove(row)
        if not self._index.types.get(name):
            self._index.forget_type(name)

    def hold_metadata_only(self, resource_type: ResourceType) -> None:
        """Keep only the metadata of a type from now on, since it is over the budget.

        What is indexed of held objects (images, phase, fields) stays until they change.
        """
        self._table(resource_type).metadata_only = True
        for row in self.tables[resource_type.name]:
            self.shrink(row)

    def shrink(self, row: Row) -> None:
        """Keep only the metadata of a row whose type is held so."""
        table = row.home
        if table.metadata_only and row.number not in table.partial and self._is_held(row):
            table.repack(row, table.codec.pack_metadata(table.codec.metadata(row.packed)))

    def complete(self, resource_type: ResourceType, raw: bytes) -> bool:
        """Hold an object whole of which only the metadata is held, at this very version; False for any other.

        Until it changes or is shrunk. Raises Invalid for bytes that are no object.
        """
        table = self.tables.get(resource_type.name)
        facts = read(resource_type.name, raw)
        row = table.get(facts.meta.namespace, facts.meta.name) if table else None
        if table is None or row is None or row.number not in table.partial:
            return False
        if (row.uid, row.rv) != (facts.meta.uid, version(facts.meta.resource_version)):
            return False
        table.repack(row, table.codec.pack(split(raw, facts.metadata, facts.managed)))
        table.partial.discard(row.number)
        return True

    def empty(self, name: str) -> None:
        """Let go of the objects of a type that is still served."""
        table = self.tables.get(name)
        for row in list(table or ()):
            self._remove(row)
        if table is not None:
            table.floors.clear()

    def _is_held(self, row: Row) -> bool:
        return self.tables.get(row.home.type) is row.home and row.home.get(row.namespace, row.name) is row

    def hold_whole(self, resource_type: ResourceType) -> None:
        """Keep whole objects again; those held turn whole as they arrive anew: list the type after this."""
        self._table(resource_type).metadata_only = False

    def count(self, name: str, namespace: str = "") -> int:
        """How many objects of a type (in one namespace, when it is named) are held."""
        table = self.tables.get(name)
        if table is None:
            return 0
        return len(table.names.get(namespace, ())) if namespace else table.count

    def total(self) -> int:
        """How many objects are held."""
        return len(self.numbers)

    def held_bytes(self, name: str | None = None) -> int:
        """Compressed bytes of one type or of all: what a memory budget counts (indexes come on top)."""
        return sum(table.bytes for table in self.tables.values() if name in (None, table.type))

    def metadata_bytes(self, name: str) -> int:
        """An estimate, from the first few, of what a type would take as metadata only."""
        table = self.tables.get(name)
        few = list(islice(table, 20)) if table is not None else []
        if table is None or not few:
            return 0
        share = sum(len(metadata_only(row.packed)) for row in few) / max(
            1, sum(len(row.packed) for row in few)
        )
        return round(table.bytes * share)

    def __iter__(self) -> Iterator[Row]:
        for table in self.tables.values():
            yield from table


class Listing:
    """A complete list being taken in: `add` every item, then `finish` with the list's resourceVersion.

    What was held before and did not come is removed at the end; a list that is
    given up halfway removes nothing.
    """

    def __init__(self, model: ClusterModel, table: Table, *, namespace: str, regressed: bool) -> None:
        self._model = model
        self._table = table
        self._namespace = namespace
        self._regressed = regressed
        self._unseen = BitMap(row.number for row in table.within(namespace))

    def add(self, raw: bytes, hashes: dict[str, bytes] | None = None, facts: Facts | None = None) -> Upserted:
        """Take in one item as `upsert` does; raises Invalid for bytes that are no object."""
        facts = facts or read(self._table.type, raw)
        done = self._model._put(self._table, facts, raw, force=self._regressed)  # pyright: ignore[reportPrivateUsage]
        _keep(self._table, facts, done, hashes)
        row = self._table.get(facts.meta.namespace, facts.meta.name)
        if row is not None:
            self._unseen.discard(row.number)
        return done

    def finish(self, rv: str) -> list[Vanished]:
        """Remove what did not come, and return it with its last known state."""
        table, gone = self._table, []
        newer = version(rv)
        for row in [row for row in table.within(self._namespace) if row.number in self._unseen]:
            if not self._regressed and older(newer, row.rv):
                continue
            gone.append(Vanished(row.id, row.uid, str(row.rv), row.whole()))
            self._model._remove(row)  # pyright: ignore[reportPrivateUsage]
        table.floors[self._namespace] = newer
        return gone


def _keep(table: Table, facts: Facts, done: Upserted, hashes: dict[str, bytes] | None) -> None:
    """Put the hashes of a Secret's values beside the row that has just arrived."""
    if hashes is not None and done.kind in ("created", "updated"):
        row = table.get(facts.meta.namespace, facts.meta.name)
        if row is not None:
            row.hashes = hashes


def _was(type_name: str, labels: tuple[str, ...], fields: tuple[str, ...]) -> Was:
    paths = field_paths(type_name)
    return Was(dict(label.split("=", 1) for label in labels), dict(zip(paths, fields, strict=False)))
