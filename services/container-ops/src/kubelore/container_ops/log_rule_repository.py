"""The queries about log policies and alerts, by name; and about what alerts counted and raised."""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple

import msgspec

from kubelore.common.contracts.log_policies import MAX_RULES
from kubelore.common.errors import AlreadyExists, Conflict, NotFound
from kubelore.common.store import Collection, Database, gt, lt
from kubelore.container_ops.log_rules import AlertRule, PolicyRule, Rule

MAX_COUNTS = 10_000
MAX_UNTOLD = 100
_KEPT_COUNTS_S = 2 * 86_400


class Untold(NamedTuple):
    """An alert that was raised: by the uid of its rule, about what, when, and what is to be told of it."""

    alert: str
    what: str
    at: float
    message: bytes


class RuleRepository(Generic[Rule]):
    """The rules of one kind, each under its name."""

    def __init__(self, rules: Collection, kind: type[Rule]) -> None:
        self._rules = rules
        self._kind = kind

    async def all(self) -> list[Rule]:
        """Every rule."""
        return [self._of(one) for one in await self._rules.find({}, limit=2 * MAX_RULES)]

    async def page(self, after: str, limit: int) -> list[Rule]:
        """Rules by name."""
        return [self._of(one) for one in await self._rules.find({"_id": gt(after)}, limit=limit)]

    async def get(self, name: str) -> Rule:
        """One rule. Raises NotFound."""
        return self._of(await self._rules.get(name))

    async def insert(self, rule: Rule) -> None:
        """Keep a new rule. Raises AlreadyExists, Conflict when there are too many."""
        if await self._rules.count() >= MAX_RULES:
            raise Conflict(f"there are {MAX_RULES} of these", remedy="Delete some first.")
        await self._rules.insert(_document(rule))

    async def replace(self, rule: Rule, expected: int) -> None:
        """Write what people say of a rule, if its revision is still `expected`. Raises NotFound, Conflict."""
        said = {"spec", "subject", "updated_at", "revision"}
        changes = {field: value for field, value in _document(rule).items() if field in said}
        await self._rules.update(rule.name, changes, expect={"revision": expected, "uid": rule.uid})

    async def delete(self, rule: Rule) -> None:
        """Forget a rule, if it is still this one."""
        with suppress(Conflict):
            await self._rules.delete(rule.name, expect={"uid": rule.uid})

    def _of(self, document: dict[str, Any]) -> Rule:
        return msgspec.convert({**document, "name": document["_id"]}, self._kind)


class LogRuleRepository:
    """Everything that is kept about policies and alerts."""

    def __init__(self, database: Database) -> None:
        self.policies = RuleRepository(database.collection("log_policies"), PolicyRule)
        self._alerts = database.collection("log_alerts")
        self.alerts = RuleRepository(self._alerts, AlertRule)
        self._gone = database.collection("log_policies_gone")
        self._counts = database.collection("log_alert_counts")
        self._raised = database.collection("log_alerts_raised")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._counts.ensure_index([("alert", 1), ("at", 1)])
        await self._counts.ensure_index([("kept_until", 1)], expire_after_s=0)
        await self._raised.ensure_index([("kept_until", 1)], expire_after_s=0)
        await self._raised.ensure_index([("told", 1), ("at", 1)])

    # policies that are gone, while they hold something

    async def bury(self, policy: PolicyRule) -> None:
        """Let a policy collect no more, and what it holds go by its limits."""
        await self._gone.put({**_document(policy), "_id": policy.uid, "name": policy.name, "gone": True})
        await self.policies.delete(policy)

    async def gone(self) -> list[PolicyRule]:
        """Policies that are gone and may hold something."""
        found = await self._gone.find({}, limit=10_000)
        return [msgspec.convert({**one, "uid": one["_id"]}, PolicyRule) for one in found]

    async def forget(self, policy: PolicyRule) -> None:
        """A policy that is gone holds nothing any more."""
        await self._gone.delete(policy.uid)

    # what alerts counted and raised

    async def add_count(self, alert: str, cluster: str, at: float, count: int) -> None:
        """So many lines matched, somewhere, at a moment."""
        await self._counts.insert(
            {
                "_id": secrets.token_hex(12),
                "alert": f"{alert}/{cluster}",
                "at": at,
                "count": count,
                "kept_until": datetime.now(UTC) + timedelta(seconds=_KEPT_COUNTS_S),
            }
        )

    async def counted(self, alert: str, cluster: str, since: float) -> int:
        """How many lines matched since a moment, in all collections together."""
        where = {"alert": f"{alert}/{cluster}", "at": gt(since)}
        found = await self._counts.find(where, sort=[("at", -1)], limit=MAX_COUNTS, fields=("count",))
        return sum(one["count"] for one in found)

    async def claim_raise(self, alert: AlertRule, what: str, now: float, message: bytes) -> bool:
        """Take it on to raise an alert about something, unless it rests; only one of many takes it.

        `message` is what is to be told: whoever takes it on may die before it is (`untold`).
        """
        key = f"{alert.uid}/{what}"
        until = datetime.now(UTC) + timedelta(seconds=alert.spec.rest_s + 3600)
        raised = {"at": now, "kept_until": until, "message": message, "told": False}
        try:
            await self._raised.insert({"_id": key, **raised})
        except AlreadyExists:
            try:
                rested = {"at": lt(now - alert.spec.rest_s)}
                await self._raised.update(key, raised, expect=rested)
            except (Conflict, NotFound):
                return False
        with suppress(NotFound, Conflict):
            changes = {"last_raised": now}
            await self._alerts.update(
                alert.name, changes, increments={"raised": 1}, expect={"uid": alert.uid}
            )
        return True

    async def told(self, alert: str, what: str, at: float) -> None:
        """What was raised (by the alert's uid, about something, at a moment) was told."""
        with suppress(NotFound, Conflict):
            await self._raised.update(f"{alert}/{what}", {"told": True, "message": b""}, expect={"at": at})

    async def untold(self, before: float) -> list[Untold]:
        """The oldest of what was raised before a moment, and that nobody has told."""
        where = {"told": False, "at": lt(before)}
        found = await self._raised.find(where, sort=[("at", 1)], limit=MAX_UNTOLD)
        return [_untold(one) for one in found]


def _untold(document: dict[str, Any]) -> Untold:
    alert, _, what = document["_id"].partition("/")
    return Untold(alert, what, document["at"], document["message"])


def _document(rule: PolicyRule | AlertRule) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(rule)
    return {"_id": document.pop("name"), **document}
