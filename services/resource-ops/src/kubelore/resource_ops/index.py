"""The indexes over every held row of a replica: bitmaps of row numbers, searchable text, sorted orders.

One row number means the same row everywhere, so that a query is a few
intersections. Numbers are used again after a row has gone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from pyroaring import BitMap

from kubelore.common.kube.facts import Facts, indexed_fields
from kubelore.resource_ops.annotations import AnnotationKinds
from kubelore.resource_ops.rows import Row, Table, version
from kubelore.resource_ops.sorting import COLUMNS, Order
from kubelore.resource_ops.text_index import Lines, Postings

NAMESPACES = "namespaces"
_BETWEEN = "\0"
"""Stands between the pieces of a row's own text, where no search can match across."""
_SHARED_TUPLES = 8192


class Bitmaps:
    """Row numbers by some value that few rows differ in."""

    def __init__(self) -> None:
        self._rows: dict[str, BitMap] = {}

    def add(self, value: str, row: int) -> None:
        """Note that a row has the value."""
        rows = self._rows.get(value)
        if rows is None:
            self._rows[value] = BitMap((row,))
        else:
            rows.add(row)

    def discard(self, value: str, row: int) -> None:
        """Forget that a row has the value."""
        rows = self._rows.get(value)
        if rows is not None:
            rows.discard(row)
            if not rows:
                del self._rows[value]

    def get(self, value: str) -> BitMap:
        """The rows with the value; not to be changed by the caller."""
        return self._rows.get(value) or BitMap()

    def union(self, values: Iterable[str]) -> BitMap:
        """The rows with any of the values."""
        return BitMap.union(BitMap(), *(self.get(value) for value in values))

    def items(self) -> Iterable[tuple[str, BitMap]]:
        """Values and their rows."""
        return self._rows.items()


class Text:
    """What the index keeps of an object's texts, made from its facts."""

    __slots__ = ("labels", "line", "words")

    def __init__(self, labels: tuple[str, ...], words: tuple[str, ...], line: str) -> None:
        self.labels = labels
        self.words = words
        self.line = line


class Index:
    """Every row of the replica, and how to find it."""

    def __init__(self) -> None:
        self.rows: list[Row | None] = []
        self.types = Bitmaps()
        self.namespaces = Bitmaps()
        self.phases = Bitmaps()
        self.fields = Bitmaps()
        self.label_keys = Bitmaps()
        self.labels = Postings()
        self.words = Postings()
        self.lines = Lines()
        self._annotations = AnnotationKinds()
        self._free: list[int] = []
        self._orders: dict[tuple[str, str], Order] = {}
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self.rows) - len(self._free)

    def _share(self, strings: tuple[str, ...]) -> tuple[str, ...]:
        """One tuple for equal ones that arrive near each other, as a list's items do; bounded, not exact."""
        if len(self._tuples) >= _SHARED_TUPLES:
            self._tuples.clear()
        return self._tuples.setdefault(strings, strings)

    def add(self, table: Table, facts: Facts, packed: bytes) -> Row:
        """Take in an object that is not held."""
        meta = facts.meta
        number = self._free.pop() if self._free else len(self.rows)
        row = Row(
            number=number,
            home=table,
            namespace=sys.intern(meta.namespace),
            name=meta.name,
            uid=meta.uid,
            rv=version(meta.resource_version),
            created=facts.created,
            phase="",
            labels=(),
            words=(),
            fields=(),
            packed=packed,
        )
        if number == len(self.rows):
            self.rows.append(row)
        else:
            self.rows[number] = row
        self._describe(row, facts)
        table.put(row)
        self.types.add(table.type, number)
        self.namespaces.add(_scope(row), number)
        for column in COLUMNS:
            if (order := self._orders.get((table.type, column))) is not None:
                order.add(row)
        return row

    def change(self, row: Row, facts: Facts, packed: bytes) -> None:
        """Give a held row its new state."""
        by_phase = self._orders.get((row.home.type, "phase")) if facts.phase != row.phase else None
        if by_phase is not None:
            by_phase.remove(row)
        self._describe(row, facts)
        row.home.repack(row, packed)
        row.digest = b""
        row.rv = version(facts.meta.resource_version)
        if by_phase is not None:
            by_phase.add(row)

    def remove(self, row: Row) -> None:
        """Forget a held row."""
        table, number = row.home, row.number
        for column in COLUMNS:
            if (order := self._orders.get((table.type, column))) is not None:
                order.remove(row)
        self._label(row, ())
        self._word(row, ())
        self._field(row, ())
        self.lines.set(number, "")
        self.phases.discard(row.phase, number)
        self.types.discard(table.type, number)
        self.namespaces.discard(_scope(row), number)
        table.remove(row)
        self.rows[number] = None
        self._free.append(number)

    def _describe(self, row: Row, facts: Facts) -> None:
        number = row.number
        self._label(row, tuple(f"{key}={value}" for key, value in (facts.meta.labels or {}).items()))
        shared, own = self._annotations.sort(facts.meta.annotations or {}, self.words.__contains__)
        self._word(row, tuple(dict.fromkeys((*(image.lower() for image in facts.images), *shared))))
        line = _BETWEEN.join((row.name.lower(), *own))
        if self.lines.get(number) != line:
            self.lines.set(number, line)
        if row.phase != facts.phase or not row.packed:
            self.phases.discard(row.phase, number)
        self.phases.add(facts.phase, number)
        row.phase = sys.intern(facts.phase)
        if row.fields != facts.fields:
            self._field(row, facts.fields)

    def _field(self, row: Row, fields: tuple[str, ...]) -> None:
        for place, path in indexed_fields(row.home.type):
            if row.fields:
                self.fields.discard(f"{path}={row.fields[place]}", row.number)
            if fields:
                self.fields.add(f"{path}={fields[place]}", row.number)
        row.fields = self._share(tuple(map(sys.intern, fields)))

    def _label(self, row: Row, labels: tuple[str, ...]) -> None:
        if labels == row.labels:
            return
        number = row.number
        for label in row.labels:
            self.labels.discard(label, number)
            self.label_keys.discard(label.partition("=")[0], number)
        for label in labels:
            self.label_keys.add(label.partition("=")[0], number)
        row.labels = self._share(tuple([self.labels.add(label, number) for label in labels]))

    def _word(self, row: Row, words: tuple[str, ...]) -> None:
        if words == row.words:
            return
        for word in row.words:
            self.words.discard(word, row.number)
        row.words = self._share(tuple([self.words.add(word, row.number) for word in words]))

    def held(self, numbers: BitMap) -> Iterator[Row]:
        """The rows of these numbers, by number."""
        rows = self.rows
        return (row for number in numbers if (row := rows[number]) is not None)

    def order(self, type_name: str, column: str) -> Order:
        """The rows of a type in one order; made at the first question, kept up to date from then on."""
        order = self._orders.get((type_name, column))
        if order is None:
            rows = self.held(self.types.get(type_name))
            order = self._orders[type_name, column] = Order(rows, COLUMNS[column])
        return order

    def forget_type(self, type_name: str) -> None:
        """Drop the orders of a type that nobody holds any more."""
        for column in COLUMNS:
            self._orders.pop((type_name, column), None)

    def search(self, text: str) -> BitMap:
        """Rows whose name, labels, annotations or images contain the text, whatever its case."""
        needle = text.lower().replace("\n", " ")
        return BitMap.union(self.lines.search(needle), self.labels.search(needle), self.words.search(needle))


def _scope(row: Row) -> str:
    """The namespace a row belongs to; a Namespace object belongs to itself."""
    return row.name if row.home.type == NAMESPACES else row.namespace
