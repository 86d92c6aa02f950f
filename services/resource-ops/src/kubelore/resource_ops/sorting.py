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
BLOCK = 256
"""Rows of an order that lie together; at twice as many a block is cut in two."""


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


class _Block:
    """Neighbours in an order: their numbers beside them, and as a set, so that a walk touches only rows it takes."""

    __slots__ = ("members", "numbers", "rows")

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.numbers = array("I", [row.number for row in rows])
        self.members = BitMap(self.numbers)

    def insert(self, place: int, row: Row) -> None:
        self.rows.insert(place, row)
        self.numbers.insert(place, row.number)
        self.members.add(row.number)

    def delete(self, place: int) -> None:
        self.members.discard(self.numbers[place])
        del self.rows[place], self.numbers[place]


class Order:
    """All rows of one type in one order, kept up to date row by row.

    They lie in blocks. One that holds nothing of what a question is about is
    passed over in a microsecond, so that rows which stand together far behind
    the beginning are found as quickly as others.
    """

    def __init__(self, rows: Iterable[Row], key_of: KeyOf, block: int = BLOCK) -> None:
        self._block = block
        self._key_of = key_of
        self._last_of = lambda block: key_of(block.rows[-1])
        everything = sorted(rows, key=key_of)
        self._blocks = [
            _Block(everything[start : start + block]) for start in range(0, len(everything), block)
        ]

    def __len__(self) -> int:
        return sum(len(block.rows) for block in self._blocks)

    def add(self, row: Row) -> None:
        """Put a row in its place."""
        key = self._key_of(row)
        if not self._blocks:
            self._blocks.append(_Block([row]))
            return
        at = min(self._block_of(key), len(self._blocks) - 1)
        block = self._blocks[at]
        block.insert(bisect_right(block.rows, key, key=self._key_of), row)
        if len(block.rows) > 2 * self._block:
            halves = block.rows[: self._block], block.rows[self._block :]
            self._blocks[at : at + 1] = map(_Block, halves)

    def remove(self, row: Row) -> None:
        """Take a row out; its key must be what it was when it was added."""
        key = self._key_of(row)
        at = self._block_of(key)
        if at == len(self._blocks):
            return
        block = self._blocks[at]
        place = bisect_left(block.rows, key, key=self._key_of)
        if place < len(block.rows) and block.rows[place] is row:
            block.delete(place)
            if not block.rows:
                del self._blocks[at]

    def named(self, name: str) -> list[Row]:
        """The rows of exactly this name; only an order by name can tell."""
        found: list[Row] = []
        for at in range(self._block_of((name,)), len(self._blocks)):
            rows = self._blocks[at].rows
            start = bisect_left(rows, (name,), key=self._key_of)
            stop = bisect_left(rows, (name + "\0",), key=self._key_of)
            found += rows[start:stop]
            if stop < len(rows):
                break
        return found

    def pick(self, matching: BitMap, after: Key | None, limit: int, *, descending: bool) -> list[Row]:
        """The first `limit` rows behind a key whose numbers match, in order."""
        found: list[Row] = []
        for block, start, stop in self._behind(after, descending=descending):
            if not block.members.intersect(matching):
                continue
            picked = block.rows[start:stop]
            if not block.members <= matching:
                numbers = block.numbers[start:stop]
                picked = [row for row, number in zip(picked, numbers, strict=True) if number in matching]
            found += reversed(picked) if descending else picked
            if len(found) >= limit:
                break
        return found[:limit]

    def _behind(self, after: Key | None, *, descending: bool) -> Iterator[tuple[_Block, int, int]]:
        """The blocks behind a key in turn, each with the places in it that are."""
        blocks, key_of = self._blocks, self._key_of
        if descending:
            begin = len(blocks) - 1 if after is None else min(self._block_of(after), len(blocks) - 1)
            for at in range(begin, -1, -1):
                rows = blocks[at].rows
                behind = len(rows) if after is None or at < begin else bisect_left(rows, after, key=key_of)
                yield blocks[at], 0, behind
        else:
            begin = 0 if after is None else self._block_of(after)
            for at in range(begin, len(blocks)):
                rows = blocks[at].rows
                first = 0 if after is None or at > begin else bisect_right(rows, after, key=key_of)
                yield blocks[at], first, len(rows)

    def _block_of(self, key: tuple[str | int, ...]) -> int:
        """The place of the first block that ends at or behind a key; the number of blocks when none does."""
        return bisect_left(self._blocks, key, key=self._last_of)
