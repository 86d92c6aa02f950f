"""Filters and positions as pure values: what they compile to, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest
from kubelore.common.store.filters import compile_filter, gt, gte, lt, one_of, starts_with
from kubelore.common.store.paging import behind, position

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
texts = st.text(max_size=12)


@given(value=json_values)
def test_whatever_json_comes_in_is_compared_or_refused_and_never_an_operator(value: Any) -> None:
    try:
        compiled = compile_filter({"field": value})
    except BadRequest:
        assert isinstance(value, (dict, list))
    else:
        assert list(compiled["field"]) == ["$eq"]
        assert not isinstance(compiled["field"]["$eq"], (dict, list))


@given(prefix=texts, text=texts)
def test_a_prefix_is_a_range_that_holds_just_what_begins_with_it(prefix: str, text: str) -> None:
    bounds = compile_filter({"name": starts_with(prefix)})["name"]
    raw = text.encode()
    inside = raw >= bounds["$gte"].encode() and ("$lt" not in bounds or raw < bounds["$lt"].encode())
    assert inside == text.startswith(prefix)


def test_conditions_are_joined_and_not_overwritten() -> None:
    assert compile_filter({"n": gt(1) & lt(5)}) == {"n": {"$gt": 1, "$lt": 5}}
    with pytest.raises(BadRequest, match="twice"):
        gte(1) & gte(2)


def test_half_a_character_is_refused() -> None:
    for attempt in (lambda: compile_filter({"name": "\ud800"}), lambda: starts_with("\ud800")):
        with pytest.raises(BadRequest, match="Unicode"):
            attempt()


def test_a_number_over_64_bits_is_refused() -> None:
    with pytest.raises(BadRequest, match="range"):
        compile_filter({"n": 2**63})


def test_choices_are_bounded() -> None:
    assert len(compile_filter({"n": one_of(range(1000))})["n"]["$in"]) == 1000
    with pytest.raises(BadRequest, match="1001"):
        one_of(range(1001))


def test_a_position_follows_the_order_with_the_id_last() -> None:
    row = {"_id": 7, "name": "x", "meta": {"rank": 2}}
    assert position(row) == [7]
    assert position(row, [("meta.rank", -1), ("name", 1)]) == [2, "x", 7]
    assert position(row, [("absent.deeper", 1)]) == [None, 7]


def test_a_forged_position_is_no_operator() -> None:
    with pytest.raises(BadRequest):
        behind([{"$gt": ""}], [("_id", 1)])


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import kubelore.common.store", []),
        ("from kubelore.common.store import gt, blob_key, position", []),
        ("from kubelore.common.store import BlobStore", ["obstore"]),
        ("from kubelore.common.store import open_database", ["pymongo"]),
    ],
)
def test_a_process_loads_only_the_driver_that_it_uses(statement: str, loaded: list[str]) -> None:
    script = f"import sys; {statement}; print([m for m in ('obstore', 'pymongo') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(loaded)
