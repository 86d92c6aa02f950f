"""The orders in which rows can be asked for, and the key of a row in each.

A key holds the value of the sort column, then cluster, type, namespace and
name, so that no two rows share one and a page can start behind any key, held
or not. Descending is the whole key reversed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

from pyroaring import BitMap

from kubelore.common.contracts.resources import SortKey
from kubelore.common.errors import BadRequest
from kubelore.resource_ops.rows import Row

Key = tuple[str | int, str, str, str, str]
KeyOf = Callable[[Row], Key]
_CHUNK = 512


def _by_name(row: Row) -> Key:
    home = row.home
    return (row.name, home.cluster, home.type, row.namespace, row.name)


def _by_namespace(row: Row) -> Key:
    home = row.home
    return (row.namespace, home.cluster, home.type, row.namespace, row.name)


def _by_cluster(row: Row) -> Key:
    home = row.home
    return (home.cluster, home.cluster, home.type, row.namespace, row.name)


def _by_type(row: Row) -> Key:
    home = row.home
    return (home.type, home.cluster, home.type, row.namespace, row.name)


def _by_created(row: Row) -> Key:
    home = row.home
    return (row.created, home.cluster, home.type, row.namespace, row.name)


def _by_phase(row: Row) -> Key:
    home = row.home
    return (row.phase, home.cluster, home.type, row.namespace, row.name)


_VALUES: dict[str, Callable[[Row], Any]] = {
    "name": attrgetter("name"),
    "namespace": attrgetter("namespace"),
    "cluster": attrgetter("home.cluster"),
    "type": attrgetter("home.type"),
    "created": attrgetter("created"),
    "phase": attrgetter("phase"),
}

COLUMNS: dict[str, KeyOf] = {
    "name": _by_name,
    "namespace": _by_namespace,
    "cluster": _by_cluster,
    "type": _by_type,
    "created": _by_created,
    "phase": _by_phase,
}


class Sort:
    """A parsed `sort`: `name`, `-created`; raises BadRequest for a column that does not exist."""

    def __init__(self, text: str) -> None:
        self.descending = text.startswith("-")
        self.column = text.removeprefix("-")
        key_of = COLUMNS.get(self.column)
        if key_of is None:
            raise BadRequest(
                f"cannot sort by {text[:80]!r}",
                remedy=f"Sort by {', '.join(COLUMNS)}; '-' before it for descending.",
            )
        self.key_of = key_of
        self._value_of = _VALUES[self.column]

    def check(self, after: SortKey | None) -> Key | None:
        """A key from outside as one of this order; raises BadRequest when it cannot be one."""
        if after is None:
            return None
        first = int if self.column == "created" else str
        match after:
            case [value, str(cluster), str(kind), str(namespace), str(name)] if type(value) is first:
                return (value, cluster, kind, namespace, name)
        raise BadRequest(f"`after` is no key of an order by {self.column}")

    def first(self, rows: Iterable[Row], after: Key | None, limit: int) -> list[Row]:
        """The first `limit` of some rows behind a key, in order.

        Keys are made only for rows that the column's value alone does not rule out.
        """
        value_of, key_of, down = self._value_of, self.key_of, self.descending
        if after is None:
            left = list(rows)
        elif down:
            left = [row for row in rows if value_of(row) <= after[0] and key_of(row) < after]
        else:
            left = [row for row in rows if value_of(row) >= after[0] and key_of(row) > after]
        if len(left) > 2 * limit:
            last = sorted(map(value_of, left), reverse=down)[limit - 1]
            left = [row for row in left if (value_of(row) >= last if down else value_of(row) <= last)]
        return sorted(left, key=key_of, reverse=down)[:limit]


class Order:
    """All rows of one type in one order, kept up to date row by row.

    Their numbers lie beside them, so that a walk touches only the rows it takes.
    """

    def __init__(self, rows: Iterable[Row], key_of: KeyOf) -> None:
        self._key_of = key_of
        self._rows = sorted(rows, key=key_of)
        self._numbers = array("I", [row.number for row in self._rows])

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Put a row in its place."""
        place = bisect_right(self._rows, self._key_of(row), key=self._key_of)
        self._rows.insert(place, row)
        self._numbers.insert(place, row.number)

    def remove(self, row: Row) -> None:
        """Take a row out; its key must be what it was when it was added."""
        place = bisect_left(self._rows, self._key_of(row), key=self._key_of)
        if place < len(self._rows) and self._rows[place] is row:
            del self._rows[place]
            del self._numbers[place]

    def named(self, name: str) -> list[Row]:
        """The rows of exactly this name; only an order by name can tell."""
        start = bisect_left(self._rows, (name,), key=self._key_of)
        return self._rows[start : bisect_left(self._rows, (name + "\0",), key=self._key_of)]

    def pick(self, matching: BitMap, after: Key | None, limit: int, *, descending: bool) -> list[Row]:
        """The first `limit` rows behind a key whose numbers match, in order."""
        rows, places = self._rows, []
        for at, numbers in self._chunks(after, descending=descending):
            found = [place for place, number in enumerate(numbers, at) if number in matching]
            places += reversed(found) if descending else found
            if len(places) >= limit:
                break
        return [rows[place] for place in places[:limit]]

    def _chunks(self, after: Key | None, *, descending: bool) -> Iterator[tuple[int, array[int]]]:
        """The numbers behind a key piece by piece, each with the place of its first."""
        rows, numbers = self._rows, self._numbers
        if descending:
            end = len(rows) if after is None else bisect_left(rows, after, key=self._key_of)
            for stop in range(end, 0, -_CHUNK):
                start = max(stop - _CHUNK, 0)
                yield start, numbers[start:stop]
        else:
            begin = 0 if after is None else bisect_right(rows, after, key=self._key_of)
            for start in range(begin, len(rows), _CHUNK):
                yield start, numbers[start : start + _CHUNK]
