"""Which operation is under way, and how that travels."""

from __future__ import annotations

import asyncio
import uuid

from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.operations import current_operation, is_operation_id, new_operation_id, operating


@given(st.floats(0, 2**47 / 1000), st.floats(0, 2**47 / 1000))
def test_ids_sort_by_the_millisecond_in_which_they_were_made(first: float, second: float) -> None:
    earlier, later = sorted((first, second))
    one, other = new_operation_id(lambda: earlier), new_operation_id(lambda: later)
    assert is_operation_id(one)
    assert uuid.UUID(one).version == 7
    assert uuid.UUID(one).variant == uuid.RFC_4122
    assert one != other
    assert int(earlier * 1000) == int(later * 1000) or one < other


def test_nothing_else_is_taken_for_an_id() -> None:
    for text in ("", "x", str(uuid.uuid4()), new_operation_id().upper(), new_operation_id() + "\n", "*.>"):
        assert not is_operation_id(text)


async def test_an_operation_is_current_within_its_block_and_in_tasks_started_there() -> None:
    async def seen() -> str:
        return current_operation()

    assert current_operation() == ""
    with operating("one"):
        task = asyncio.create_task(seen())
        with operating("two"):
            assert current_operation() == "two"
        assert current_operation() == "one"
    assert await task == "one"
    assert current_operation() == ""
