"""Log policies: what is collected and how long it is kept, as administrators make, see, change and delete them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from kubelore.common.callers import current_caller
from kubelore.common.contracts.log_policies import (
    DropLogPolicy,
    DroppedLogPolicy,
    ListLogRules,
    LogPolicy,
    LogPolicyPage,
    LogRuleRef,
    PutLogPolicy,
)
from kubelore.common.errors import AlreadyExists, Conflict, NotFound
from kubelore.container_ops.log_retention import LogRetention
from kubelore.container_ops.log_rule_repository import LogRuleRepository, RuleRepository
from kubelore.container_ops.log_rules import (
    PolicyRule,
    Rule,
    administers,
    check_administers,
    check_name,
    check_policy,
    iso,
)

MAX_PAGE = 500


class LogPolicies:
    """What administrators do with policies. `clock` tells seconds since 1970."""

    def __init__(
        self, repository: LogRuleRepository, holdings: LogRetention, clock: Callable[[], float] = time.time
    ) -> None:
        self._repository = repository
        self._holdings = holdings
        self._clock = clock

    async def put(self, asked: PutLogPolicy) -> LogPolicy:
        """Make or replace a policy. Raises Invalid, Forbidden, NotFound, AlreadyExists, Conflict."""
        check_name(asked.name)
        check_policy(asked.spec)
        check_administers(current_caller(), asked.spec.scope, "collect the logs of")
        rules, now = self._repository.policies, self._clock()
        if asked.revision is None:
            rule = PolicyRule(
                uid=secrets.token_hex(8),
                name=asked.name,
                spec=asked.spec,
                subject=current_caller().subject,
                created_at=now,
                updated_at=now,
            )
            await insert_new(rules, rule, "policy")
            return await self._shown(rule)
        rule = await visible_rule(rules, asked.name, "policy")
        rule.spec = asked.spec
        await replace_rule(rules, rule, asked.revision, now)
        return await self._shown(rule)

    async def get(self, asked: LogRuleRef) -> LogPolicy:
        """One policy. Raises NotFound."""
        return await self._shown(await visible_rule(self._repository.policies, asked.name, "policy"))

    async def list(self, asked: ListLogRules) -> LogPolicyPage:
        """A page of those policies whose clusters the caller administers."""
        page, following = await rule_page(self._repository.policies, asked)
        return LogPolicyPage([await self._shown(rule) for rule in page], following)

    async def drop(self, asked: DropLogPolicy) -> DroppedLogPolicy:
        """Collect no more by a policy; with `logs` what it holds goes at once. Raises NotFound."""
        rule = await visible_rule(self._repository.policies, asked.name, "policy")
        await self._repository.bury(rule)
        if asked.logs:
            await self._holdings.drop(rule.uid)
        return DroppedLogPolicy(name=rule.name, kept=await self._holdings.held(rule.uid))

    async def _shown(self, rule: PolicyRule) -> LogPolicy:
        return LogPolicy(
            name=rule.name,
            spec=rule.spec,
            subject=rule.subject,
            created_at=iso(rule.created_at),
            updated_at=iso(rule.updated_at),
            revision=rule.revision,
            held=await self._holdings.held(rule.uid),
        )


async def insert_new(rules: RuleRepository[Rule], rule: Rule, what: str) -> None:
    """Keep a new rule. Raises AlreadyExists with a remedy."""
    try:
        await rules.insert(rule)
    except AlreadyExists as error:
        raise AlreadyExists(
            f"there is a log {what} {rule.name!r}", remedy="Take another name, or change that one."
        ) from error


async def visible_rule(rules: RuleRepository[Rule], name: str, what: str) -> Rule:
    """A rule whose clusters the caller administers. Raises NotFound for any other."""
    missing = NotFound(
        f"there is no log {what} {name[:80]!r}", remedy=f"`kubelore logs-{what} list` shows them."
    )
    try:
        rule = await rules.get(check_name(name))
    except NotFound:
        raise missing from None
    if not administers(current_caller(), rule.spec.scope):
        raise missing
    return rule


async def replace_rule(rules: RuleRepository[Rule], rule: Rule, revision: int, now: float) -> None:
    """Write a changed rule, for the caller. Raises Conflict when another revision was expected (0: any)."""
    if revision not in (0, rule.revision):
        raise Conflict(f"{rule.name!r} was changed by somebody else", remedy="Read it again and try again.")
    expected, rule.revision = rule.revision, rule.revision + 1
    rule.subject, rule.updated_at = current_caller().subject, now
    await rules.replace(rule, expected)


async def rule_page(rules: RuleRepository[Rule], asked: ListLogRules) -> tuple[list[Rule], str]:
    """Rules that the caller sees behind `after`, and the `after` of what comes then."""
    caller, limit = current_caller(), max(1, min(asked.limit, MAX_PAGE))
    seen = [one for one in await rules.page(asked.after, MAX_PAGE) if administers(caller, one.spec.scope)]
    return seen[:limit], seen[limit - 1].name if len(seen) > limit else ""
