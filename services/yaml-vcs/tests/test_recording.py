"""What the change stream becomes: versions, once each, in order, whoever dies in between."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from kubelore.common.contracts.changes import Applied, Change, Gap, Synced
from kubelore.common.errors import Unavailable
from kubelore.yaml_vcs import packing
from kubelore.yaml_vcs.history import GONE, MAIN, NO_COMMIT, Entry, first_broken
from kubelore.yaml_vcs.recorder import Recorder
from kubelore.yaml_vcs.repository import VersionRepository, resource_key

UID = "6b1f0f4e-0000-4000-8000-00000000000{}"
WEB = "prod:configmaps:shop:web"


async def history(repository: VersionRepository, id_: str = WEB) -> list[Entry]:
    return await repository.all_of(resource_key(id_))


async def content_of(repository: VersionRepository, entry: Entry, id_: str = WEB) -> bytes:
    if entry.kind in GONE:
        return b""
    chain = await repository.chain(resource_key(id_), MAIN, entry)
    return packing.unpack_all([one.frame for one in chain])[-1]


async def test_every_change_is_a_version_and_the_object_can_be_read_at_each(
    changed, recorder, repository
) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("updated", 2, {"a": "2"})])
    await recorder.take([changed("updated", 3, {"a": "3"}), changed("deleted", 4, {"a": "3"})])
    entries = await history(repository)
    assert [(one.number, one.kind) for one in entries] == [
        (1, "created"),
        (2, "updated"),
        (3, "updated"),
        (4, "deleted"),
    ]
    contents = [await content_of(repository, one) for one in entries[:3]]
    assert [json.loads(one)["data"] for one in contents] == [{"a": "1"}, {"a": "2"}, {"a": "3"}]
    assert [one.manager for one in entries] == ["kubectl"] * 4


async def test_what_the_cluster_writes_beside_what_was_asked_for_is_no_version(
    changed, recorder, repository
) -> None:
    noise = {"generation": 7, "annotations": {"deployment.kubernetes.io/revision": "3"}}
    await recorder.take(
        [
            changed("created", 1, {"a": "1"}, type_name="deployments.apps"),
            changed("updated", 2, {"a": "1"}, type_name="deployments.apps", status={"ready": 1}),
            changed("updated", 3, {"a": "1"}, type_name="deployments.apps", metadata=noise),
        ]
    )
    assert len(await history(repository, "prod:deployments.apps:shop:web")) == 1


async def test_events_and_leases_have_no_versions(changed, recorder, repository) -> None:
    await recorder.take(
        [
            changed("created", 1, type_name="events"),
            changed("created", 2, type_name="leases.coordination.k8s.io"),
        ]
    )
    assert await repository.resources("prod") == []


async def test_an_object_made_again_goes_on_in_the_history_of_its_name(changed, recorder, repository) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("deleted", 2, {"a": "1"})])
    await recorder.take([changed("created", 3, {"a": "1"}, uid=2)])
    entries = await history(repository)
    assert [(one.number, one.kind, one.uid) for one in entries] == [
        (1, "created", UID.format(1)),
        (2, "deleted", UID.format(1)),
        (3, "created", UID.format(2)),
    ]


async def test_a_batch_that_comes_again_makes_nothing_new_whoever_takes_it(
    changed, start, repository
) -> None:
    batch = [changed("created", 1, {"a": "1"}), changed("updated", 2, {"a": "2"}), changed("deleted", 3, {})]
    await start().take(batch)
    before = await history(repository)
    again = start()
    await again.take(batch)
    await again.take(batch[1:])
    assert await history(repository) == before


async def test_of_two_replicas_that_record_at_once_one_reads_again(changed, start, repository) -> None:
    first, second = start(), start()
    await first.take([changed("created", 1, {"a": "1"})])
    await second.take([changed("created", 1, {"a": "1"})])
    await first.take([changed("updated", 2, {"a": "2"})])
    with pytest.raises(Unavailable):
        await second.take([changed("updated", 3, {"a": "3"})])
    await second.take([changed("updated", 3, {"a": "3"})])
    assert [one.rv for one in await history(repository)] == ["1", "2", "3"]


async def test_a_store_that_does_not_answer_is_told_as_that_so_that_nothing_is_parked(
    changed, start, repository, monkeypatch
) -> None:
    await start().take([changed("created", 1, {"a": "1"}), changed("created", 1, {}, name="other", uid=2)])

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("MongoDB does not answer")

    monkeypatch.setattr(repository, "last", away)
    with pytest.raises(Unavailable):
        await start().take(
            [changed("updated", 2, {"a": "2"}), changed("updated", 2, {}, name="other", uid=2)]
        )
    with pytest.raises(Unavailable):
        await repository.heads([resource_key(WEB)])


async def test_after_a_gap_what_changed_is_observed_and_what_is_gone_has_vanished(
    changed, start, repository
) -> None:
    recorder = start()
    await recorder.take([changed("created", 1, {"a": "1"}), changed("created", 2, {"b": "1"}, name="other")])
    await recorder.take([changed("created", 3, {"c": "1"}, name="gone", uid=3)])
    gap = Gap(cluster="prod", incarnation=1, type="configmaps", after_rv="3", at=1_700_000_100.0)
    await start().take([gap, changed("observed", 9, {"a": "2"})])
    await start().take(
        [changed("observed", 2, {"b": "1"}, name="other"), changed("observed", 8, {}, name="new", uid=4)]
    )
    await start().take(
        [Synced(cluster="prod", incarnation=1, type="configmaps", rv="9", count=3, at=1_700_000_101.0)]
    )
    assert [one.kind for one in await history(repository)] == ["created", "observed"]
    assert [one.kind for one in await history(repository, "prod:configmaps:shop:other")] == ["created"]
    assert [one.kind for one in await history(repository, "prod:configmaps:shop:gone")] == [
        "created",
        "vanished",
    ]
    assert [one.kind for one in await history(repository, "prod:configmaps:shop:new")] == ["observed"]


async def test_a_cluster_that_was_put_back_counts_its_versions_anew(changed, recorder, repository) -> None:
    await recorder.take([changed("created", 500, {"a": "1"}), changed("updated", 501, {"a": "2"})])
    await recorder.take([changed("observed", 400, {"a": "1"}, incarnation=2)])
    await recorder.take([changed("updated", 502, {"a": "late"}, incarnation=1)])
    assert [(one.incarnation, one.rv) for one in await history(repository)] == [
        (1, "500"),
        (1, "501"),
        (2, "400"),
    ]


async def test_who_wrote_the_many_objects_of_a_restore_is_kept_however_many_come_at_once(
    recorder, repository
) -> None:
    places = [("prod", UID.format(1), str(number)) for number in range(1, 1202)]
    said = [
        Applied(
            cluster=cluster, uid=uid, rv=rv, actor="ann", reason="", change_log="", operation_id=rv, at=1.0
        )
        for cluster, uid, rv in places
    ]
    await recorder.take(list(said))
    assert set(await repository.attributions(places)) == set(places)


async def test_who_wrote_through_kubelore_is_known_whichever_comes_first(
    changed, recorder, repository
) -> None:
    said = Applied(
        cluster="prod",
        uid=UID.format(1),
        rv="1",
        actor="alice",
        reason="",
        change_log="first",
        operation_id="o",
        at=1.0,
    )
    await recorder.take([said, changed("created", 1, {"a": "1"}), said])
    (found,) = (await repository.attributions([("prod", UID.format(1), "1")])).values()
    assert (found.actor, found.change_log) == ("alice", "first")


STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "status", "delete"]), st.integers(0, 3)), min_size=1, max_size=25
)


@example_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS,
    cuts=st.lists(st.integers(0, 24), max_size=6),
    repeats=st.lists(st.integers(0, 24), max_size=4),
)
async def test_any_stream_however_cut_and_repeated_gives_one_history_that_verifies(
    changed: Callable[..., Change],
    start: Callable[[], Recorder],
    repository: VersionRepository,
    fresh_name,
    steps,
    cuts,
    repeats,
) -> None:
    name = fresh_name()
    changes, expected = _stream(changed, steps, name)
    edges = sorted({0, len(changes), *(cut % (len(changes) + 1) for cut in cuts)})
    recorder = start()
    for begin, end in itertools.pairwise(edges):
        await recorder.take(list(changes[begin:end]))
        for repeat in repeats:
            recorder = start()
            await recorder.take(list(changes[min(repeat, begin) : end]))
    entries = await history(repository, f"prod:configmaps:shop:{name}")
    contents = [await content_of(repository, one, f"prod:configmaps:shop:{name}") for one in entries]
    assert [json.loads(one)["data"] if one else None for one in contents] == expected
    assert first_broken(entries, contents, NO_COMMIT) is None


def _stream(
    changed: Callable[..., Change], steps: list[tuple[str, int]], name: str
) -> tuple[list[Change], list[object]]:
    """Changes of one object, and the data that each of its versions must hold (None for a tombstone)."""
    changes: list[Change] = []
    expected: list[object] = []
    data: object = None
    uid = 1
    for rv, (step, value) in enumerate(steps, 1):
        if step == "delete":
            if data is None:
                continue
            changes.append(changed("deleted", rv, data, name=name, uid=uid))
            expected.append(None)
            data, uid = None, uid % 9 + 1
        elif step == "status" and data is not None:
            changes.append(changed("updated", rv, data, name=name, uid=uid, status={"n": value}))
        else:
            new = {"a": str(value)}
            kind = "created" if data is None else "updated"
            changes.append(changed(kind, rv, new, name=name, uid=uid))
            if new != data:
                expected.append(new)
            data = new
    return changes, expected
