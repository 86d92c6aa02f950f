"""Whole histories: which objects have one, and their versions from the oldest on, page by page."""

from __future__ import annotations

import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.timelines import ListObjects, ReadHistory
from kubelore.common.errors import BadRequest, NotFound
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.timelines import Timelines

WEB = "prod:configmaps:shop:web"


@pytest.fixture
def asking(repository):
    """Ask as a caller; contexts of fixtures do not reach into tests."""
    timelines = Timelines(repository, Histories(repository))

    async def ask(method: str, request, caller: Caller = ADMINISTRATOR):
        with acting_as(caller):
            return await getattr(timelines, method)(request)

    return ask


async def test_a_history_is_read_from_its_beginning_in_pages_that_meet(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"})])
    await recorder.take([changed("updated", number, {"a": str(number)}) for number in range(2, 5)])
    await recorder.take([changed("deleted", 5, {"a": "4"})])
    steps, after = [], 0
    while after is not None:
        page = await asking("history", ReadHistory(id=WEB, after=after, limit=2))
        steps += page.items
        after = page.next
    assert [one.version.version for one in steps] == [1, 2, 3, 4, 5]
    assert [("a: " in one.yaml_content) for one in steps] == [True, True, True, True, False]
    assert "-  a: '2'\n+  a: '3'\n" in steps[2].diff_content.replace('"', "'")
    assert steps[4].diff_content.startswith(f"--- {WEB} version 4\n+++ {WEB} version 5\n")


async def test_objects_that_are_gone_have_a_history_too_and_pages_hold_each_once(
    recorder, changed, asking
) -> None:
    await recorder.take(
        [changed("created", number, {}, name=f"c{number}", uid=number) for number in range(1, 8)]
    )
    await recorder.take([changed("deleted", 9, {}, name="c3", uid=3)])
    found, after = [], None
    while after != "":
        page = await asking("objects", ListObjects(cluster="prod", after=after or "", limit=3))
        found += page.items
        after = page.next
    assert sorted(one.name for one in found) == [f"c{number}" for number in range(1, 8)]
    assert {one.name: (one.live, one.version) for one in found}["c3"] == (False, 2)


async def test_what_may_not_be_read_is_not_there(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {})])
    stranger = Caller(
        subject="eve", grants=(Grant(role="viewer", clusters=("prod",), namespaces=("other",)),)
    )
    assert (await asking("objects", ListObjects(cluster="prod"), stranger)).items == []
    with pytest.raises(NotFound):
        await asking("history", ReadHistory(id=WEB), stranger)


@pytest.mark.parametrize("after", ["zz", "00", "0" * 22])
async def test_a_made_up_position_is_refused(asking, after: str) -> None:
    with pytest.raises(BadRequest):
        await asking("objects", ListObjects(cluster="prod", after=after))


@pytest.mark.parametrize("limit", [0, 201])
async def test_pages_are_bounded(asking, limit: int) -> None:
    with pytest.raises(BadRequest):
        await asking("history", ReadHistory(id=WEB, limit=limit))
