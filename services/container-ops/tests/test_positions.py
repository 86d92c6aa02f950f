"""Where a stream of many logs is, in a text of bounded size."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest
from kubelore.container_ops.lines import Cursor
from kubelore.container_ops.positions import MAX_CONTAINERS, place_of, read_positions, write_positions

CURSORS = st.builds(
    Cursor,
    st.integers(0, (1 << 63) - 1),
    st.integers(0, 1 << 31),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 1 << 20),
)


@given(
    st.integers(0, (1 << 63) - 1),
    st.dictionaries(st.binary(min_size=8, max_size=8), st.none() | CURSORS, max_size=20),
)
def test_what_is_written_is_read(since: int, cursors: dict[bytes, Cursor | None]) -> None:
    found = read_positions(write_positions(since, cursors))
    assert (found.since, found.cursors) == (since, cursors)


def test_a_thousand_containers_fit_into_the_head_of_a_request() -> None:
    cursor = Cursor((1 << 61) - 1, 3, (1 << 32) - 1, 2)
    places = [place_of("prod", str(number), "web") for number in range(MAX_CONTAINERS)]
    assert len(write_positions(1, dict.fromkeys(places, cursor))) < 40_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "!!!!",
        "é",
        "A" * 100_000,
        base64.urlsafe_b64encode(msgspec.msgpack.encode([9, 0, {}])).decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode([1, -1, {}])).decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode([1, 0, {b"a": [-1, 0, 0, 0]}])).decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode([1, 0, {b"a": [1 << 63, 0, 0, 0]}])).decode(),
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        read_positions(text)
