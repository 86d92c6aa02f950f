"""One held object, and the table of one type in one cluster."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from pyroaring import BitMap

from kubelore.resource_ops.codec import Codec


class Table:
    """The rows of one type in one cluster, by namespace and name.

    `floors` are the resourceVersions of the last complete lists, by the
    namespace that was listed (empty for all): what such a list did not hold,
    and is not newer, has gone. `partial` are the numbers of rows
    held as metadata only.
    """

    __slots__ = (
        "bytes",
        "cluster",
        "codec",
        "count",
        "floors",
        "metadata_only",
        "names",
        "numbers",
        "partial",
        "type",
    )

    def __init__(self, cluster: str, type_name: str, codec: Codec) -> None:
        self.cluster = cluster
        self.type = type_name
        self.codec = codec
        self.names: dict[str, dict[str, Row]] = {}
        self.numbers = BitMap()
        self.count = 0
        self.bytes = 0
        self.floors: dict[str, int | str] = {}
        self.metadata_only = False
        self.partial = BitMap()

    def get(self, namespace: str, name: str) -> Row | None:
        """The row of that name, if it is held."""
        names = self.names.get(namespace)
        return names.get(name) if names is not None else None

    def __iter__(self) -> Iterator[Row]:
        for names in self.names.values():
            yield from names.values()

    def within(self, namespace: str) -> Iterator[Row]:
        """The rows of a namespace; all of them when it is empty."""
        return iter(self.names.get(namespace, {}).values()) if namespace else iter(self)

    def floor(self, namespace: str) -> int | str:
        """The resourceVersion of the last complete list that an object of this namespace would have been in."""
        return self.floors.get(namespace) or self.floors.get("", 0)

    def put(self, row: Row) -> None:
        """Add a row that is not held yet."""
        self.names.setdefault(row.namespace, {})[row.name] = row
        self.numbers.add(row.number)
        self.count += 1
        self.bytes += len(row.packed)
        if self.metadata_only:
            self.partial.add(row.number)

    def repack(self, row: Row, packed: bytes) -> None:
        """Give a held row other bytes, packed as the table keeps them now."""
        self.bytes += len(packed) - len(row.packed)
        row.packed = packed
        (self.partial.add if self.metadata_only else self.partial.discard)(row.number)

    def remove(self, row: Row) -> None:
        """Take a held row out."""
        names = self.names[row.namespace]
        del names[row.name]
        if not names:
            del self.names[row.namespace]
        self.numbers.discard(row.number)
        self.partial.discard(row.number)
        self.count -= 1
        self.bytes -= len(row.packed)


class Row(msgspec.Struct, gc=False):
    """One object. `labels` are `key=value` strings and `words` shared annotations and images, as indexed.

    Not tracked by the garbage collector: a hundred thousand of them would be
    walked at every full collection. The only cycle (row and table) is opened
    when a row is removed from its table.
    """

    number: int
    home: Table
    namespace: str
    name: str
    uid: str
    rv: int | str
    created: int
    phase: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    fields: tuple[str, ...]
    packed: bytes
    hashes: dict[str, bytes] | None = None
    """Of a Secret: a keyed hash for each of its values, which are not held."""
    digest: bytes = b""
    """What comparing made of the object, until it changes; empty before anybody compared."""

    @property
    def id(self) -> str:
        """`cluster:type:namespace:name`."""
        home = self.home
        return f"{home.cluster}:{home.type}:{self.namespace}:{self.name}"

    def label_map(self) -> dict[str, str]:
        """The labels as Kubernetes writes them."""
        return dict(label.split("=", 1) for label in self.labels)

    def whole(self) -> bytes:
        """The object's bytes."""
        return self.home.codec.whole(self.packed)

    def lean(self) -> bytes:
        """The object's bytes without managedFields."""
        return self.home.codec.lean(self.packed)


def version(text: str) -> int | str:
    """A resourceVersion as a number where it is one (it always is on a real API server)."""
    return int(text) if text.isdecimal() else text


def older(version: int | str, held: int | str) -> bool:
    """Whether a version is certainly older than what is held; versions that are no numbers have no order."""
    return isinstance(version, int) and isinstance(held, int) and version < held
