"""An order that is kept row by row, whatever its blocks, equals sorting everything anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from kubelore.resource_ops.codec import Codec
from kubelore.resource_ops.rows import Row, Table
from kubelore.resource_ops.sorting import COLUMNS, Order

by_name = COLUMNS["name"]
HOMES = [Table(cluster, "pods", Codec()) for cluster in ("east", "west")]
numbers = st.integers(0, 39)


def row(number: int) -> Row:
    """Few names for many rows, so that equal ones lie in several blocks."""
    return Row(
        number=number,
        home=HOMES[number // 20],
        namespace=f"team-{number // 5 % 4}",
        name=f"pod-{number % 5}",
        uid="",
        rv=1,
        created=0,
        phase="",
        labels=(),
        words=(),
        fields=(),
        packed=b"",
    )


ROWS = [row(number) for number in range(40)]


@given(
    st.sets(numbers),
    st.lists(st.tuples(st.sampled_from(["add", "remove"]), numbers), max_size=60),
    st.sets(numbers),
    st.none() | numbers,
    st.integers(1, 12),
    st.booleans(),
    st.integers(1, 4),
)
def test_a_page_of_any_rows_is_what_sorting_gives(
    first: set[int],
    changes: list[tuple[str, int]],
    matching: set[int],
    after: int | None,
    limit: int,
    descending: bool,
    block: int,
) -> None:
    held = set(first)
    order = Order([ROWS[number] for number in first], by_name, block)
    for what, number in changes:
        if what == "add" and number not in held:
            held.add(number)
            order.add(ROWS[number])
        elif what == "remove":
            held.discard(number)
            order.remove(ROWS[number])
    assert len(order) == len(held)
    key = by_name(ROWS[after]) if after is not None else None
    ordered = sorted((ROWS[number] for number in held & matching), key=by_name, reverse=descending)
    behind = [
        found
        for found in ordered
        if key is None or (by_name(found) < key if descending else by_name(found) > key)
    ]
    assert order.pick(BitMap(matching), key, limit, descending=descending) == behind[:limit]
    for name in {found.name for found in ROWS} | {"", "pod", "z"}:
        expected = sorted((ROWS[number] for number in held if ROWS[number].name == name), key=by_name)
        assert order.named(name) == expected


@pytest.mark.parametrize("gone", ["one that was never there", "one of an empty order"])
def test_taking_out_what_is_not_there_changes_nothing(gone: str) -> None:
    order = Order(ROWS[:0] if "empty" in gone else ROWS[:9], by_name, 2)
    before = len(order)
    order.remove(ROWS[11])
    assert len(order) == before
