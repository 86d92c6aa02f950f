"""Who may run what where: the rules, and the policies that hold them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.exec_policies import (
    ExecPolicy,
    ExecPolicyRef,
    ExecRule,
    ListExecPolicies,
    PutExecPolicy,
)
from kubelore.common.errors import AlreadyExists, Forbidden, Invalid, NotFound
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.container_ops.exec_policy import ExecPolicies
from kubelore.container_ops.exec_policy_repository import ExecPolicyRepository
from kubelore.container_ops.exec_rules import check_policy, objection

TARGET = ContainerId("prod-eu", "shop", "web-1", "web")
ANNA = Caller(subject="anna", grants=(Grant(role="operator", rights=("exec",)),))
WORDS = st.lists(st.text(max_size=20), min_size=1, max_size=5)


def policy(rule: ExecRule, name: str = "p") -> ExecPolicy:
    return ExecPolicy(name=name, rule=rule, updated_by="root", updated_at=datetime.now(UTC))


@given(WORDS)
def test_without_policies_every_command_may_be_run(command: list[str]) -> None:
    assert objection([], "anna", TARGET, command, "") is None


@given(WORDS)
def test_a_denial_without_commands_denies_every_command_with_and_without_a_reason(command: list[str]) -> None:
    rule = ExecRule(effect="deny", clusters=("prod-*",))
    assert isinstance(objection([policy(rule)], "anna", TARGET, command, "why"), Forbidden)
    assert objection([policy(rule)], "anna", ContainerId("test", "shop", "w"), command, "") is None


@pytest.mark.parametrize(
    "command", [["rm", "-rf", "/"], ["/bin/rm", "x"], ["sh", "-c", "rm x"]], ids=["name", "path", "shell"]
)
def test_a_command_is_denied_by_its_program_or_its_line(command: list[str]) -> None:
    rule = ExecRule(effect="deny", commands=("rm", "*sh -c *rm *"))
    assert isinstance(objection([policy(rule)], "anna", TARGET, command, ""), Forbidden)


def test_a_reason_is_asked_for_and_then_enough() -> None:
    rules = [policy(ExecRule(effect="reason", namespaces=("shop",)))]
    refused = objection(rules, "anna", TARGET, ["ls"], "  ")
    assert isinstance(refused, Invalid)
    assert refused.extra["code"] == "ReasonRequired"
    assert objection(rules, "anna", TARGET, ["ls"], "ticket 7") is None


def test_who_is_exempt_is_not_meant() -> None:
    rules = [policy(ExecRule(effect="deny", exempt=("on-call-*",)))]
    assert objection(rules, "on-call-anna", TARGET, ["ls"], "") is None
    assert objection(rules, "anna", TARGET, ["ls"], "") is not None


def test_a_denial_goes_before_a_missing_reason() -> None:
    rules = [policy(ExecRule(effect="reason"), "a"), policy(ExecRule(effect="deny"), "b")]
    assert isinstance(objection(rules, "anna", TARGET, ["ls"], ""), Forbidden)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Bad Name", ExecRule(effect="deny")),
        ("ok", ExecRule(effect="deny", clusters=())),
        ("ok", ExecRule(effect="deny", commands=("x" * 300,))),
        ("ok", ExecRule(effect="deny", subjects=("a",) * 101)),
        ("ok", ExecRule(effect="deny", message="x" * 501)),
    ],
)
def test_a_policy_that_cannot_be_one_is_refused(name: str, rule: ExecRule) -> None:
    with pytest.raises(Invalid):
        check_policy(name, rule)


@pytest_asyncio.fixture(loop_scope="session")
async def policies(settings: CommonSettings) -> AsyncIterator[ExecPolicies]:
    async with await open_database(settings) as database:
        kept = ExecPolicies(ExecPolicyRepository(database))
        yield kept
        with acting_as(ADMINISTRATOR):
            for one in (await kept.list(ListExecPolicies())).items:
                await kept.delete(ExecPolicyRef(one.name))


async def test_a_policy_holds_as_soon_as_it_is_made_and_no_longer_when_it_is_deleted(
    policies: ExecPolicies,
) -> None:
    await policies.check_exec(ANNA, TARGET, ["ls"])
    with acting_as(ADMINISTRATOR):
        await policies.put(PutExecPolicy(name="closed", rule=ExecRule(effect="deny"), create=True))
    with pytest.raises(Forbidden):
        await policies.check_exec(ANNA, TARGET, ["ls"])
    with acting_as(ADMINISTRATOR):
        await policies.delete(ExecPolicyRef("closed"))
    await policies.check_exec(ANNA, TARGET, ["ls"])


async def test_the_right_exec_is_needed_whatever_the_policies_say(policies: ExecPolicies) -> None:
    with pytest.raises(Forbidden):
        await policies.check_exec(
            Caller(subject="vera", grants=(Grant(role="admin"),)), TARGET, ["ls"], "why"
        )
    with pytest.raises(NotFound):
        await policies.check_exec(Caller(subject="nobody"), TARGET, ["ls"])


async def test_a_name_is_taken_once(policies: ExecPolicies) -> None:
    asked = PutExecPolicy(name="once", rule=ExecRule(effect="reason"), create=True)
    with acting_as(ADMINISTRATOR):
        await policies.put(asked)
        with pytest.raises(AlreadyExists):
            await policies.put(asked)


async def test_only_admins_of_whole_clusters_make_and_see_their_policies(policies: ExecPolicies) -> None:
    admin = Caller(subject="ada", grants=(Grant(role="admin", clusters=("prod-*",)),))
    with acting_as(admin):
        await policies.put(
            PutExecPolicy(name="mine", rule=ExecRule(effect="deny", clusters=("prod-us",)), create=True)
        )
        with pytest.raises(Forbidden):
            await policies.put(PutExecPolicy(name="all", rule=ExecRule(effect="deny"), create=True))
    with acting_as(ANNA):
        assert (await policies.list(ListExecPolicies())).items == []
        with pytest.raises(NotFound):
            await policies.get(ExecPolicyRef("mine"))
        with pytest.raises(NotFound):
            await policies.delete(ExecPolicyRef("mine"))
