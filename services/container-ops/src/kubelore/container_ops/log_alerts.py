"""Alerts on logs, as administrators make, see, change and delete them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from kubelore.common.callers import current_caller
from kubelore.common.contracts.log_policies import (
    ListLogRules,
    LogAlert,
    LogAlertPage,
    LogRuleRef,
    PutLogAlert,
)
from kubelore.container_ops.log_policies import insert_new, replace_rule, rule_page, visible_rule
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.log_rules import AlertRule, check_administers, check_alert, check_name, iso


class LogAlerts:
    """What administrators do with alerts. `clock` tells seconds since 1970."""

    def __init__(self, repository: LogRuleRepository, clock: Callable[[], float] = time.time) -> None:
        self._rules = repository.alerts
        self._clock = clock

    async def put(self, asked: PutLogAlert) -> LogAlert:
        """Make or replace an alert. Raises Invalid, Forbidden, NotFound, AlreadyExists, Conflict."""
        check_name(asked.name)
        check_alert(asked.spec)
        check_administers(current_caller(), asked.spec.scope, "watch the logs of")
        now = self._clock()
        if asked.revision is None:
            rule = AlertRule(
                uid=secrets.token_hex(8),
                name=asked.name,
                spec=asked.spec,
                subject=current_caller().subject,
                created_at=now,
                updated_at=now,
            )
            await insert_new(self._rules, rule, "alert")
            return shown(rule)
        rule = await visible_rule(self._rules, asked.name, "alert")
        rule.spec = asked.spec
        await replace_rule(self._rules, rule, asked.revision, now)
        return shown(rule)

    async def get(self, asked: LogRuleRef) -> LogAlert:
        """One alert. Raises NotFound."""
        return shown(await visible_rule(self._rules, asked.name, "alert"))

    async def list(self, asked: ListLogRules) -> LogAlertPage:
        """A page of those alerts whose clusters the caller administers."""
        page, following = await rule_page(self._rules, asked)
        return LogAlertPage([shown(rule) for rule in page], following)

    async def drop(self, asked: LogRuleRef) -> LogAlert:
        """Delete an alert. Raises NotFound."""
        rule = await visible_rule(self._rules, asked.name, "alert")
        await self._rules.delete(rule)
        return shown(rule)


def shown(rule: AlertRule) -> LogAlert:
    """An alert as people see it."""
    return LogAlert(
        name=rule.name,
        spec=rule.spec,
        subject=rule.subject,
        created_at=iso(rule.created_at),
        updated_at=iso(rule.updated_at),
        revision=rule.revision,
        raised=rule.raised,
        last_raised=iso(rule.last_raised),
    )
