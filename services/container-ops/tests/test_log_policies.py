"""Log policies and alerts over a real MongoDB: who may make, see and change them, and what they may say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.log_policies import (
    DropLogPolicy,
    ListLogRules,
    LogAlertSpec,
    LogPolicySpec,
    LogRuleRef,
    LogScope,
    PutLogAlert,
    PutLogPolicy,
)
from kubelore.common.contracts.logs import LogFilter
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
)
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, open_database
from kubelore.container_ops.lines import Cursor, LogLine
from kubelore.container_ops.log_alerts import LogAlerts
from kubelore.container_ops.log_policies import LogPolicies
from kubelore.container_ops.log_retention import LogRetention
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.log_rules import AlertRule, PolicyRule, keeper, selection
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import SegmentBatch, StreamKey, StreamLines
from kubelore.container_ops.targets import PodSelection

PROD = LogScope(clusters=("prod",))
OPERATOR = Caller(subject="anna", grants=(Grant(role="operator"),))
STRANGER = Caller(subject="bert", grants=(Grant(role="admin", clusters=("test",)),))
SHOP_ADMIN = Caller(subject="carl", grants=(Grant(role="admin", namespaces=("shop",)),))
NOW = 1_800_000_000.0


@dataclass
class Desk:
    repository: LogRuleRepository
    policies: LogPolicies
    alerts: LogAlerts
    retention: LogRetention
    store: SegmentStore

    async def collect(self, policy: str, sequence: int, at: float, text: bytes = b"x") -> None:
        key = StreamKey(cluster="prod", namespace="shop", pod="web", uid="u", container="web")
        line = LogLine(int(at * 1e9), text)
        batch = SegmentBatch(
            owner=f"{policy}/n",
            sequence=sequence,
            policy=policy,
            cluster="prod",
            streams=[StreamLines(key, [line])],
            cursors={"u/web": Cursor(line.at, 1)},
        )
        await self.store.append(batch)

    async def uid(self, name: str) -> str:
        return (await self.repository.policies.get(name)).uid


@pytest_asyncio.fixture(loop_scope="session")
async def desk(settings: CommonSettings, tmp_path: Path) -> AsyncIterator[Desk]:
    async with await open_database(settings) as database:
        repository = LogRuleRepository(database)
        await repository.prepare()
        keyring = Keyring.create(tmp_path / "logs.json", "logs")
        (tmp_path / "blobs").mkdir()
        store = SegmentStore(database, BlobStore.open((tmp_path / "blobs").as_uri()), keyring)
        await store.prepare()
        retention = LogRetention(repository, store, lambda: NOW)
        policies = LogPolicies(repository, retention, lambda: NOW)
        yield Desk(repository, policies, LogAlerts(repository, lambda: NOW), retention, store)


def policy(name: str = "all", revision: int | None = None, **spec: Any) -> PutLogPolicy:
    return PutLogPolicy(name=name, spec=LogPolicySpec(**{"scope": PROD, **spec}), revision=revision)


def alert(name: str = "errors", revision: int | None = None, **spec: Any) -> PutLogAlert:
    return PutLogAlert(name=name, spec=LogAlertSpec(**{"scope": PROD, **spec}), revision=revision)


async def test_a_policy_is_made_shown_changed_and_deleted(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        made = await desk.policies.put(policy(days=3))
        assert (made.revision, made.subject, made.held.lines) == (1, "admin", 0)
        changed = await desk.policies.put(policy(revision=1, days=5))
        assert (changed.revision, changed.spec.days) == (2, 5)
        assert [one.name for one in (await desk.policies.list(ListLogRules())).items] == ["all"]
        await desk.policies.drop(DropLogPolicy(name="all"))
        with pytest.raises(NotFound):
            await desk.policies.get(LogRuleRef("all"))


async def test_a_second_policy_of_a_name_is_refused(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy())
        with pytest.raises(AlreadyExists):
            await desk.policies.put(policy())


async def test_a_change_of_what_somebody_else_changed_is_refused(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy())
        await desk.policies.put(policy(revision=1))
        with pytest.raises(Conflict):
            await desk.policies.put(policy(revision=1))
        assert (await desk.policies.put(policy(revision=0))).revision == 3


@pytest.mark.parametrize(
    ("caller", "error"), [(OPERATOR, Forbidden), (SHOP_ADMIN, Forbidden), (STRANGER, NotFound)]
)
async def test_only_who_administers_all_of_the_clusters_makes_rules(
    desk: Desk, caller: Caller, error: type[KubeloreError]
) -> None:
    with acting_as(caller):
        with pytest.raises(error):
            await desk.policies.put(policy())
        with pytest.raises(error):
            await desk.alerts.put(alert())


async def test_others_see_no_rule_and_cannot_delete_it(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy())
        await desk.alerts.put(alert())
    with acting_as(SHOP_ADMIN):
        assert (await desk.policies.list(ListLogRules())).items == []
        assert (await desk.alerts.list(ListLogRules())).items == []
        with pytest.raises(NotFound):
            await desk.policies.drop(DropLogPolicy(name="all"))
        with pytest.raises(NotFound):
            await desk.alerts.drop(LogRuleRef("errors"))


async def test_an_alert_is_made_shown_changed_and_deleted(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        made = await desk.alerts.put(alert(filter=LogFilter(search="boom"), count=3))
        assert (made.raised, made.last_raised) == (0, "")
        assert (await desk.alerts.put(alert(revision=1, severity="critical"))).spec.severity == "critical"
        await desk.alerts.drop(LogRuleRef("errors"))
        assert (await desk.alerts.list(ListLogRules())).items == []


@pytest.mark.parametrize(
    "spec",
    [
        {"filter": LogFilter(regex="(")},
        {"filter": LogFilter(since=1)},
        {"count": 0},
        {"window_s": 0},
        {"scope": LogScope(clusters=())},
        {"scope": LogScope(clusters=("prod",), labels="!!")},
        {"scope": LogScope(clusters=("prod",), namespaces=("",))},
    ],
)
async def test_an_alert_that_can_mean_nothing_is_refused(desk: Desk, spec: dict[str, Any]) -> None:
    with acting_as(ADMINISTRATOR), pytest.raises((Invalid, BadRequest)):
        await desk.alerts.put(alert(**spec))


@pytest.mark.parametrize("spec", [{"days": 0}, {"days": 4000}, {"max_bytes": -1}])
async def test_a_policy_that_can_mean_nothing_is_refused(desk: Desk, spec: dict[str, Any]) -> None:
    with acting_as(ADMINISTRATOR), pytest.raises(Invalid):
        await desk.policies.put(policy(**spec))


async def test_a_policy_says_what_it_holds(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy())
        await desk.collect(await desk.uid("all"), 1, NOW - 10, b"hello")
        held = (await desk.policies.get(LogRuleRef("all"))).held
    assert (held.lines, held.oldest, held.stored_bytes > 0) == (1, "2027-01-15T07:59:50Z", True)


async def test_lines_older_than_the_days_of_a_policy_go(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy(days=2))
        uid = await desk.uid("all")
        for sequence, days in ((1, 3), (2, 1)):
            await desk.collect(uid, sequence, NOW - days * 86_400)
        await desk.retention.enforce()
    assert (await desk.store.held(uid)).lines == 1


async def test_the_oldest_lines_go_when_a_policy_holds_too_many_bytes(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy())
        uid = await desk.uid("all")
        for sequence in (1, 2, 3):
            await desk.collect(uid, sequence, NOW - 100 + sequence)
        size = (await desk.store.held(uid)).stored_bytes
        await desk.policies.put(policy(revision=1, max_bytes=size - 1))
        await desk.retention.enforce()
    held = await desk.store.held(uid)
    assert (held.lines, held.oldest) == (2, int((NOW - 98) * 1e9))


async def test_what_a_deleted_policy_held_goes_by_its_limits(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy(days=1))
        uid = await desk.uid("all")
        await desk.collect(uid, 1, NOW - 10)
        assert (await desk.policies.drop(DropLogPolicy(name="all"))).kept.lines == 1
        await desk.retention.enforce()
        assert [one.uid for one in await desk.repository.gone()] == [uid]
        later = LogRetention(desk.repository, desk.store, lambda: NOW + 2 * 86_400)
        await later.enforce()
    assert await desk.repository.gone() == []
    assert (await desk.store.held(uid)).lines == 0


async def test_the_logs_of_a_policy_can_be_deleted_with_it(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.policies.put(policy())
        await desk.collect(await desk.uid("all"), 1, NOW - 10)
        assert (await desk.policies.drop(DropLogPolicy(name="all", logs=True))).kept.lines == 0


async def test_one_of_many_raises_an_alert_and_it_rests_then(desk: Desk) -> None:
    with acting_as(ADMINISTRATOR):
        await desk.alerts.put(alert(rest_s=60))
    rule = await desk.repository.alerts.get("errors")
    what = "prod:shop:web:web"
    claims = [await desk.repository.claim_raise(rule, what, NOW + at, b"{}") for at in (0, 1, 59, 62)]
    assert claims == [True, False, False, True]
    with acting_as(ADMINISTRATOR):
        assert (await desk.alerts.get(LogRuleRef("errors"))).raised == 2


async def test_what_several_count_of_a_cluster_adds_up(desk: Desk) -> None:
    for at, count in ((0, 5), (50, 7), (90, 2)):
        await desk.repository.add_count("a", "prod", NOW + at, count)
    assert await desk.repository.counted("a", "prod", NOW + 40) == 9


def _rule(name: str, **spec: Any) -> PolicyRule:
    return PolicyRule(
        uid=name, name=name, spec=LogPolicySpec(scope=PROD, **spec), subject="", created_at=0, updated_at=0
    )


def test_of_several_policies_the_one_that_keeps_longest_collects() -> None:
    few, many, bounded = _rule("a", days=3), _rule("b", days=30), _rule("c", days=30, max_bytes=5)
    assert keeper([few, bounded, many]) is many
    assert keeper([]) is None


def test_globs_of_namespaces_are_watched_as_the_whole_cluster() -> None:
    assert selection(LogScope(clusters=("prod",), namespaces=("shop-*",))) == PodSelection()
    assert selection(LogScope(clusters=("prod",), namespaces=("shop",), labels="a=b")) == PodSelection(
        namespaces=("shop",), labels="a=b"
    )


def test_rules_survive_being_written_down() -> None:
    rule = AlertRule(
        uid="u",
        name="n",
        spec=LogAlertSpec(scope=PROD, filter=LogFilter(search="x", fields=("status>=500",))),
        subject="s",
        created_at=1,
        updated_at=2,
    )
    assert msgspec.convert(msgspec.to_builtins(rule), AlertRule) == rule
