"""Histories that were tampered with in MongoDB are found, each by name."""

from __future__ import annotations

import itertools

import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.changes import Applied
from kubelore.common.contracts.verifying import VerifiedMany, VerifyMany
from kubelore.common.errors import BadRequest, NotFound
from kubelore.common.store import open_database
from kubelore.yaml_vcs.history import MAIN
from kubelore.yaml_vcs.repository import Attribution, resource_key, version_id
from kubelore.yaml_vcs.verifying import Verifying

UID = "6b1f0f4e-0000-4000-8000-00000000000{}"


def applied(uid: str, rv: str) -> Applied:
    """What resource-ops says of a write by ann."""
    return Applied(
        cluster="prod", uid=uid, rv=rv, actor="ann", reason="", change_log="", operation_id="o", at=1.0
    )


@pytest.fixture
def many(repository, histories):
    """Verify a namespace page by page, to its end."""
    verifying = Verifying(repository, histories)

    async def ask(caller: Caller = ADMINISTRATOR, limit: int = 200, **where) -> VerifiedMany:
        request, total = VerifyMany(**{"cluster": "prod", "limit": limit, **where}), VerifiedMany(broken=[])
        with acting_as(caller):
            while True:
                page = await verifying.many(request)
                total.objects += page.objects
                total.versions += page.versions
                total.broken += page.broken
                if not page.next:
                    return total
                request.after = page.next

    return ask


async def test_every_history_of_a_namespace_is_verified_in_pages(recorder, changed, many) -> None:
    await recorder.take([changed("created", n, {"a": "1"}, name=f"cm-{n}") for n in range(1, 24)])
    found = await many(limit=5)
    assert (found.objects, found.versions, found.broken) == (23, 23, [])
    assert (await many(namespace="shop")).objects == 23
    assert (await many(namespace="other")).objects == 0


async def test_the_history_that_was_altered_is_named_among_others(recorder, changed, many, settings) -> None:
    for name in ("one", "two", "three"):
        await recorder.take(
            [changed("created" if n == 1 else "updated", n, {"a": str(n)}, name=name) for n in range(1, 6)]
        )
    async with await open_database(settings) as database:
        place = version_id(resource_key("prod:configmaps:shop:two"), MAIN, 4)
        await database.collection("versions").update(place, {"t": 1})
    found = await many(limit=1)
    assert [(one.id, one.version) for one in found.broken] == [("prod:configmaps:shop:two", 4)]
    assert "does not follow" in found.broken[0].why


async def test_versions_that_were_dropped_or_put_in_are_named(recorder, changed, many, settings) -> None:
    for name in ("dropped", "inserted", "whole"):
        await recorder.take(
            [changed("created" if n == 1 else "updated", n, {"a": str(n)}, name=name) for n in range(1, 6)]
        )
    async with await open_database(settings) as database:
        versions = database.collection("versions")
        await versions.delete(version_id(resource_key("prod:configmaps:shop:dropped"), MAIN, 3))
        key = resource_key("prod:configmaps:shop:inserted")
        forged = await versions.get(version_id(key, MAIN, 5))
        await versions.insert({**forged, "_id": version_id(key, MAIN, 6)})
    broken = {one.id.rpartition(":")[2]: one.version for one in (await many()).broken}
    assert broken == {"dropped": 3, "inserted": 6}


async def test_a_version_that_is_put_down_to_somebody_else_is_named(
    recorder, changed, many, settings, repository
) -> None:
    for number, name in enumerate(("altered", "put-in", "whole"), 1):
        first = changed("created", 1, {"a": "1"}, name=name, uid=number)
        await recorder.take([first, changed("updated", 2, {"a": "2"}, name=name, uid=number)])
        if name != "put-in":
            await recorder.take([applied(first.uid, "2")])
    assert (await many()).broken == []
    async with await open_database(settings) as database:
        said = database.collection("version_attributions")
        await said.update(f"prod/{UID.format(1)}/2", {"actor": "eve"})
    forged = Attribution(cluster="prod", uid=UID.format(2), rv="1", actor="eve")
    await repository.attribute([forged])
    broken = {one.id.rpartition(":")[2]: (one.version, one.why) for one in (await many()).broken}
    assert {name: number for name, (number, _) in broken.items()} == {"altered": 2, "put-in": 1}
    assert "who made version 2" in broken["altered"][1]


async def test_only_what_the_caller_may_read_is_verified(recorder, changed, many) -> None:
    await recorder.take([changed("created", 1, {"a": "1"})])
    assert (
        await many(Caller(subject="bob", grants=(Grant(role="admin", namespaces=("other",)),)))
    ).objects == 0
    with pytest.raises(NotFound):
        await many(Caller(subject="eve", grants=(Grant(role="admin", clusters=("test",)),)))


@pytest.mark.parametrize("after", ["zz", "00", "a" * 21])
async def test_a_position_that_nobody_gave_is_refused(recorder, many, after: str) -> None:
    with pytest.raises(BadRequest):
        await many(after=after)


async def test_a_page_passes_over_nothing_however_slow_the_database_is(
    recorder, changed, many, monkeypatch
) -> None:
    await recorder.take([changed("created", n, {"a": "1"}, name=f"cm-{n}") for n in range(1, 6)])
    clock = itertools.count(0, 60)
    monkeypatch.setattr("kubelore.yaml_vcs.verifying.monotonic", lambda: next(clock))
    assert (await many()).objects == 5
