"""Gaps and parked changes are shown as what they are, between the versions where they belong."""

from __future__ import annotations

import msgspec
import pytest

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.bus import Parked
from kubelore.common.callers import acting_as
from kubelore.common.contracts.changes import Gap, Synced
from kubelore.common.contracts.keeping import RedactVersion
from kubelore.common.contracts.timelines import ReadHistory
from kubelore.common.contracts.versions import GetVersion, ListVersions, TakeSnapshot, VerifyHistory
from kubelore.yaml_vcs import packing
from kubelore.yaml_vcs.redactions import Redacting
from kubelore.yaml_vcs.repository import resource_key
from kubelore.yaml_vcs.timelines import Timelines

WEB = "prod:configmaps:shop:web"
START = 1_700_000_000.0


def gap(after: int, at: float, namespace: str = "") -> Gap:
    return Gap(
        cluster="prod",
        incarnation=1,
        type="configmaps",
        after_rv=str(after),
        at=START + at,
        namespace=namespace,
    )


def synced(rv: int, at: float) -> Synced:
    return Synced(cluster="prod", incarnation=1, type="configmaps", rv=str(rv), count=1, at=START + at)


def parked(change, number: int = 7) -> Parked:
    return Parked(
        service="yaml-vcs",
        partition=0,
        sequence=1,
        index=0,
        reason="invalid: the object of a change cannot be unpacked",
        error_id="e",
        at=change.at,
        raw=msgspec.msgpack.encode(change),
        id=number,
    )


@pytest.fixture
def asking(repository, histories):
    timelines = Timelines(repository, histories)

    async def ask(request):
        with acting_as(ADMINISTRATOR):
            match request:
                case ListVersions():
                    return await histories.list(request)
                case GetVersion():
                    return await histories.get(request)
                case TakeSnapshot():
                    return await histories.snapshot(request)
                case _:
                    return await timelines.history(request)

    return ask


def places(gaps) -> list[tuple[str, int, int | None]]:
    return [(one.kind, one.after_version, one.before_version) for one in gaps]


async def test_a_gap_stands_between_the_versions_that_it_lies_between(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("updated", 2, {"a": "2"})])
    await recorder.take([gap(2, 5), changed("observed", 8, {"a": "3"}), synced(8, 9)])
    await recorder.take([changed("updated", 12, {"a": "4"})])
    whole = await asking(ListVersions(id=WEB))
    (shown,) = whole.gaps
    assert (shown.kind, shown.after_version, shown.before_version) == ("gap", 2, 3)
    assert (shown.type, shown.namespace, shown.resource_version) == ("configmaps", "", "2")
    assert (shown.since, shown.until) == ("2023-11-14T22:13:25.000Z", "2023-11-14T22:13:29.000Z")
    assert (await asking(ListVersions(id=WEB, limit=2))).gaps == []
    assert places((await asking(ListVersions(id=WEB, limit=2, before=3))).gaps) == [("gap", 2, 3)]
    assert [len((await asking(GetVersion(id=WEB, version=n))).gaps) for n in (1, 2, 3, 4)] == [0, 1, 1, 0]
    assert places((await asking(ReadHistory(id=WEB, limit=2))).gaps) == [("gap", 2, 3)]
    assert (await asking(ReadHistory(id=WEB, after=2))).gaps == []


async def test_an_open_gap_has_no_end_and_one_of_another_namespace_is_not_the_objects(
    recorder, changed, asking
) -> None:
    await recorder.take([changed("created", 1, {}), gap(1, 2, "shop"), gap(1, 3, "other")])
    (shown,) = (await asking(ListVersions(id=WEB))).gaps
    assert (shown.namespace, shown.until, shown.before_version) == ("shop", None, None)


async def test_a_parked_change_is_missing_where_it_belongs(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("updated", 5, {"a": "2"})])
    await recorder.placeholder(parked(changed("updated", 3, {"a": "x"})))
    (shown,) = (await asking(ListVersions(id=WEB))).gaps
    assert (shown.kind, shown.happened, shown.parked) == ("missing", "updated", 7)
    assert (shown.after_version, shown.before_version, shown.resource_version) == (1, 2, "3")
    assert "cannot be unpacked" in shown.reason


async def test_a_snapshot_says_what_it_cannot_know(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("created", 1, {}, name="calm", uid=2)])
    await recorder.take([gap(1, 5), changed("observed", 8, {"a": "2"}, at=START + 6)])
    during = await asking(TakeSnapshot(cluster="prod", namespace="shop", at=START + 7))
    assert {one.version.name: places(one.gaps) for one in during.items} == {
        "web": [],
        "calm": [("gap", 1, None)],
    }
    await recorder.take([changed("observed", 1, {}, name="calm", uid=2, at=START + 6), synced(8, 9)])
    doubts = {}
    for at in (3, 7, 20):
        page = await asking(TakeSnapshot(cluster="prod", namespace="shop", at=START + at))
        doubts[at] = {one.version.name: places(one.gaps) for one in page.items}
    # What was there before the gap may have changed before it was found; what stayed is known to have stayed.
    assert doubts[3] == {"web": [("gap", 1, 2)], "calm": []}
    assert doubts[7] == doubts[20] == {"web": [], "calm": []}


async def test_a_history_goes_on_behind_a_version_that_was_pruned(
    recorder, changed, asking, repository
) -> None:
    for number in range(1, 6):
        await recorder.take([changed("created" if number == 1 else "updated", number, {"a": str(number)})])
    key = resource_key(WEB)
    content = (await asking(GetVersion(id=WEB, version=4))).yaml_content
    entry = await repository.get(key, 0, 4)
    chain = await repository.chain(key, 0, entry)
    whole = packing.pack(packing.unpack_all([one.frame for one in chain])[-1], None)
    await repository.make_whole(key, 0, 4, whole)
    await repository.prune(key, 1, 4)
    page = await asking(ReadHistory(id=WEB, after=3))
    assert [one.version.version for one in page.items] == [4, 5]
    assert page.items[0].yaml_content == content
    assert page.items[0].diff_content.startswith(f"--- {WEB} version 1\n+++ {WEB} version 4\n")


async def test_a_change_replayed_behind_newer_versions_is_shown_as_late_and_the_chain_stays(
    recorder, changed, asking, histories
) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("updated", 5, {"a": "2"})])
    late = changed("updated", 3, {"a": "x"})
    await recorder.placeholder(parked(late))
    assert [await recorder.replay(late, 7) for _ in range(2)] == ["late", "late"]
    (shown,) = (await asking(ListVersions(id=WEB))).gaps
    assert (shown.kind, shown.after_version, shown.before_version, shown.yaml_content) == ("late", 1, 2, "")
    (whole,) = (await asking(GetVersion(id=WEB, version=1))).gaps
    assert "a: x" in whole.yaml_content
    with acting_as(ADMINISTRATOR):
        verified = await histories.verify(VerifyHistory(id=WEB))
    assert (verified.ok, verified.versions) == (True, 2)


async def test_a_change_replayed_before_anything_newer_is_a_version_and_missing_no_more(
    recorder, start, changed, asking
) -> None:
    await recorder.take([changed("created", 1, {"a": "1"})])
    late = changed("updated", 3, {"a": "x"})
    await recorder.placeholder(parked(late))
    assert await start().replay(late, 7) == "recorded"
    assert await start().replay(late, 7) == "recorded"
    page = await asking(ListVersions(id=WEB))
    assert ([one.version for one in page.items], page.gaps) == ([2, 1], [])


async def test_a_redaction_takes_the_same_content_out_of_late_changes(
    recorder, changed, asking, repository, histories, signer
) -> None:
    await recorder.take([changed("created", 1, {"a": "x"}), changed("updated", 5, {"a": "2"})])
    before, after = changed("updated", 3, {"a": "x"}), changed("updated", 4, {"a": "x"})
    await recorder.replay(before, 7)
    with acting_as(ADMINISTRATOR):
        await Redacting(repository, histories, signer).redact(
            RedactVersion(id=WEB, version=1, reason="leaked")
        )
    await recorder.replay(after, 8)
    found = (await asking(GetVersion(id=WEB, version=2))).gaps
    assert [(one.kind, one.yaml_content) for one in found] == [("late", ""), ("late", "")]
