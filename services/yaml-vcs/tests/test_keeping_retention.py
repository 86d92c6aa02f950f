"""What retention keeps, and that what is left after pruning reads the same, verifies, and hides no tampering."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.keeping import (
    FieldRule,
    ListVersionPolicies,
    RedactVersion,
    Retention,
    VersionPolicy,
    VersionPolicyRef,
)
from kubelore.common.contracts.versions import DiffVersions, GetVersion, ListVersions, VerifyHistory
from kubelore.common.crypto import Signer
from kubelore.common.errors import BadRequest, Forbidden, NotFound
from kubelore.common.store import open_database
from kubelore.lab.waiting import wait_for
from kubelore.yaml_vcs import retention
from kubelore.yaml_vcs.history import MAIN
from kubelore.yaml_vcs.keeping_repository import KeepingRepository
from kubelore.yaml_vcs.policies import Policies
from kubelore.yaml_vcs.pruning import RUN, Pruner, holes
from kubelore.yaml_vcs.recorder import Recorder
from kubelore.yaml_vcs.redactions import Redacting
from kubelore.yaml_vcs.repository import Outline, resource_key, version_id

WEB = "prod:configmaps:shop:web"
DAY = 86_400
START = 1_700_000_000 // DAY * DAY
LATER = START + 1000 * DAY


class Fixed:
    """The same retention everywhere."""

    def __init__(self, rules: Retention) -> None:
        self.rules = rules

    def retention(self, cluster: str) -> Retention:
        return self.rules


@pytest.fixture
async def database(settings):
    async with await open_database(settings) as opened:
        yield opened


@pytest.fixture
def pruning(repository, histories, database, signer):
    def make(rules: Retention, now: float = LATER, by: Signer = signer) -> Pruner:
        return Pruner(repository, KeepingRepository(database), histories, Fixed(rules), by, lambda: now)

    return make


async def pass_over(pruner: Pruner) -> tuple[int, int]:
    pruned = broken = 0
    while True:
        done = await pruner.round()
        pruned, broken = pruned + done.versions, broken + done.broken
        if done.ended:
            return pruned, broken


async def texts(histories, id_: str = WEB) -> dict[int, str]:
    with acting_as(ADMINISTRATOR):
        page = await histories.list(ListVersions(id=id_, limit=1000))
        return {
            one.version: (await histories.get(GetVersion(id=id_, version=one.version))).yaml_content
            for one in page.items
        }


async def verified(histories, id_: str = WEB):
    with acting_as(ADMINISTRATOR):
        return await histories.verify(VerifyHistory(id=id_))


def test_all_of_thirty_days_are_kept_and_behind_them_the_last_of_each_day() -> None:
    now = 100 * DAY * 1000
    versions = [Outline(number=n, at=n * 6 * 3_600_000) for n in range(1, 401)]
    stay = retention.kept(versions, now, Retention(), ())
    assert {n for n in range(1, 401) if n * 6 >= 70 * 24} <= stay
    assert sorted(n for n in stay if n * 6 < 70 * 24) == [3 + 4 * day for day in range(70)]


def test_bounds_of_age_count_and_bytes_spare_what_is_tagged_new_or_the_last_with_a_content() -> None:
    now = 100 * DAY * 1000
    versions = [Outline(number=n, at=n * DAY * 1000, gone=n == 99, size=10) for n in range(1, 100)]
    assert min(retention.kept(versions, now, Retention(max_days=40), {7})) == 7
    assert retention.kept(versions, now, Retention(max_versions=1), {7}) == {7, 98, 99}
    assert len(retention.kept(versions, now, Retention(max_bytes=305), ())) == 30
    fresh = [Outline(number=n, at=now - 60_000) for n in (1, 2, 3)]
    assert retention.kept(fresh, now, Retention(max_versions=1), ()) == {1, 2, 3}


def test_a_long_run_is_cut_into_pieces_that_fit_a_checkpoint() -> None:
    versions = [Outline(number=n, at=0) for n in range(1, RUN * 2 + 10)]
    found = holes(versions, {versions[-1].number})
    assert found == [(0, RUN + 1), (RUN + 1, RUN * 2 + 2), (RUN * 2 + 2, RUN * 2 + 9)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "set", "delete"]), st.integers(0, 9), st.integers(0, 3 * DAY)),
    min_size=2,
    max_size=30,
)


@example_settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=STEPS,
    passes=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=3),
    altered=st.integers(0, 100),
)
async def test_after_any_pruning_every_version_kept_reads_the_same_and_the_chain_verifies(
    changed, start, pruning, histories, fresh_name, database, steps, passes, altered
) -> None:
    name = fresh_name()
    id_ = f"prod:configmaps:shop:{name}"
    at = await _record(changed, start(), name, steps)
    before = await texts(histories, id_)
    for days, count in passes:
        await pass_over(pruning(Retention(days=days, max_versions=count), at + days * DAY + 3 * 3600))
        left = await texts(histories, id_)
        assert left == {number: before[number] for number in left}
        assert max(before) in left
        assert (await verified(histories, id_)).ok
    await start().take([changed("updated", 10_000, {"a": "last"}, name=name, at=at + 1, uid=9)])
    assert (await verified(histories, id_)).ok
    numbers = sorted(left)
    victim = numbers[altered % len(numbers)]
    held = database.collection("versions")
    await held.update(version_id(resource_key(id_), MAIN, victim), {"t": 1})
    assert (await verified(histories, id_)).broken == victim


async def _record(changed, recorder: Recorder, name: str, steps) -> float:
    at, uid, alive = float(START), 1, False
    for rv, (step, value, wait) in enumerate(steps, 1):
        at += wait
        if step == "delete" and alive:
            await recorder.take([changed("deleted", rv, {}, name=name, uid=uid, at=at)])
            uid, alive = uid % 8 + 1, False
        else:
            kind = "updated" if alive else "created"
            data = {"a": f"{value}-{rv}"}
            await recorder.take([changed(kind, rv, data, name=name, uid=uid, at=at)])
            alive = True
    return at


@pytest.fixture
async def daily(recorder, changed):
    """Twelve versions, three a day."""
    for n in range(1, 13):
        kind = "created" if n == 1 else "updated"
        await recorder.take([changed(kind, n, {"a": str(n)}, at=START + n * 8 * 3600 - 1)])


async def test_a_hole_that_nobody_signed_is_found(daily, pruning, histories, database) -> None:
    assert await pass_over(pruning(Retention(days=0))) == (8, 0)
    assert sorted(await texts(histories)) == [3, 6, 9, 12]
    assert (await verified(histories)).ok
    held = database.collection("versions")
    place = version_id(resource_key(WEB), MAIN, 9)
    kept = await held.get(place)
    await held.delete(place)
    assert (await verified(histories)).broken == 7
    with acting_as(ADMINISTRATOR):
        assert (await histories.diff(DiffVersions(id=WEB))).from_version == 6
    await held.insert(kept)
    # Another's checkpoint, and one that was signed for another place.
    twelve = version_id(resource_key(WEB), MAIN, 12)
    checkpoint = (await held.get(twelve))["p"]
    for forged in ([6, kept["c"], 1, checkpoint[3]], [*checkpoint[:3], bytes(64)], kept["p"]):
        await held.update(twelve, {"p": forged})
        assert (await verified(histories)).broken == 10


async def test_a_history_that_does_not_verify_is_not_pruned(daily, pruning, histories, database) -> None:
    await database.collection("versions").update(version_id(resource_key(WEB), MAIN, 5), {"r": 77})
    assert await pass_over(pruning(Retention(days=0))) == (2, 1)
    assert (await verified(histories)).broken == 5


async def test_a_round_that_was_killed_in_between_is_finished_by_the_next(
    daily, pruning, histories, repository, monkeypatch
) -> None:
    class Killed(Exception):
        pass

    async def partly(key: bytes, after: int, before: int) -> int:
        await type(repository).prune(repository, key, after + 1, before)
        raise Killed

    monkeypatch.setattr(repository, "prune", partly)
    with pytest.raises(Killed):
        await pruning(Retention(days=0)).round()
    monkeypatch.undo()
    assert (await pass_over(pruning(Retention(days=0))))[1] == 0
    assert sorted(await texts(histories)) == [3, 6, 9, 12]
    assert (await verified(histories)).ok


async def test_rounds_are_bounded_and_go_on_where_they_stopped(recorder, changed, pruning) -> None:
    for number in range(5):
        for n in (1, 2, 3):
            kind = "created" if n == 1 else "updated"
            await recorder.take([changed(kind, n, {"a": str(n)}, name=f"cm-{number}", at=START + n)])
    rules = Retention(days=0)
    done = [await pruning(rules).round(objects=2) for _ in range(3)]
    assert [(one.objects, one.versions, one.ended) for one in done] == [
        (2, 4, False),
        (2, 4, False),
        (1, 2, True),
    ]


async def test_a_redacted_version_can_be_pruned_and_pruned_around(
    daily, pruning, histories, repository, signer
) -> None:
    redacting = Redacting(repository, histories, signer)
    with acting_as(ADMINISTRATOR):
        for number in (2, 6):
            await redacting.redact(RedactVersion(id=WEB, version=number, reason="leak"))
    assert await pass_over(pruning(Retention(days=0))) == (8, 0)
    assert (await verified(histories)).ok
    assert (await texts(histories))[6] == ""


# policies


async def test_a_policy_says_what_is_versioned_by_every_replica_within_seconds(
    changed, repository, histories, database, signer
) -> None:
    mine, other = (Policies(KeepingRepository(database), lambda: 5.0) for _ in range(2))
    following = asyncio.create_task(other.run())
    recorder = Recorder(repository, other, signer, lambda key: asyncio.sleep(0, b""))
    try:
        await recorder.take([changed("created", 1, {"a": "1"}, metadata={"annotations": {"ci/run": "1"}})])
        policy = VersionPolicy(
            cluster="prod",
            exclude_namespaces=("kube-*",),
            exclude_types=("*.example.io",),
            exclude_labels={"noise": "yes"},
            rules=[FieldRule(types="configmaps", paths=[["metadata", "annotations", "ci/*"]])],
        )
        with acting_as(ADMINISTRATOR):
            assert (await mine.put(policy)).number == 1

        async def heard() -> bool:
            return other.of("prod").policy.number == 1

        await wait_for(heard, "the other replica to know", 10)
    finally:
        following.cancel()
    await recorder.take([
        changed("updated", 2, {"a": "1"}, metadata={"annotations": {"ci/run": "2"}}),
        changed("updated", 3, {"a": "1"}, metadata={"annotations": {"ci/run": "3"}}),
        changed("created", 4, {}, name="left-out", metadata={"labels": {"noise": "yes"}}),
        changed("created", 5, {}, name="thing", type_name="things.example.io"),
    ])  # fmt: skip
    with acting_as(ADMINISTRATOR):
        page = await histories.list(ListVersions(id=WEB))
        assert [(one.version, one.rules) for one in page.items] == [(2, 1), (1, 0)]
    assert len(await repository.resources("prod")) == 1
    assert other.of("elsewhere").policy.number == 0


async def test_only_administrators_of_a_cluster_set_its_policy_and_it_says_who_did(database) -> None:
    policies = Policies(KeepingRepository(database), lambda: 5.0)
    theirs = Caller(subject="ada", grants=(Grant(role="admin", clusters=("prod",)),))
    partly = Caller(subject="nina", grants=(Grant(role="admin", namespaces=("shop",)),))
    with acting_as(theirs):
        kept = await policies.put(VersionPolicy(cluster="prod", retention=Retention(days=7), number=99))
        assert (kept.number, kept.changed_by, kept.changed_at) == (1, "ada", 5.0)
        assert policies.retention("prod") == Retention(days=7)
        assert [one.cluster for one in (await policies.list(ListVersionPolicies())).items] == ["prod"]
        with pytest.raises(NotFound):
            await policies.get(VersionPolicyRef("test"))
        assert (await policies.drop(VersionPolicyRef("prod"))).number == 2
        assert policies.retention("prod") == Retention()
    with acting_as(partly):
        for asked in (policies.get(VersionPolicyRef("prod")), policies.put(VersionPolicy(cluster="prod"))):
            with pytest.raises(Forbidden):
                await asked
        assert (await policies.list(ListVersionPolicies())).items == []


@pytest.mark.parametrize(
    "strange",
    [
        {"include_types": ()},
        {"exclude_types": ("x",) * 201},
        {"exclude_namespaces": ("a\0b",)},
        {"exclude_labels": {"a": "b" * 400}},
        {"rules": [FieldRule(types="*", paths=[[]])]},
        {"rules": [FieldRule(types="*", paths=[["a"] * 17])]},
        {"retention": Retention(days=-1)},
        {"retention": Retention(days=30, max_days=7)},
    ],
)
async def test_a_policy_without_sense_or_bounds_is_refused(database, strange) -> None:
    policies = Policies(KeepingRepository(database))
    with acting_as(ADMINISTRATOR), pytest.raises(BadRequest):
        await policies.put(VersionPolicy(cluster="prod", **strange))
