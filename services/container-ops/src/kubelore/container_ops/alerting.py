"""Alerts on logs: lines are looked at as they are collected, and whoever asked is told on the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.contracts.alerts import LOG_ALERT, CloudEvent, LogAlertData, alert_subject, source_of
from kubelore.common.contracts.containers import SERVICE
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.alert_counting import NS, Window
from kubelore.container_ops.lines import LogLine
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.log_rules import AlertRule, iso
from kubelore.container_ops.wanted import Wanted

log = get_logger(__name__)

OLDEST_S = 300
"""Lines from before an alert was made, or so long ago, raise none: they are read when a container is first seen."""
MAX_WINDOWS = 20_000
SHOWN = 512
TELL_EVERY_S = 1.0
LEFT_S = 10.0
"""An alert that was not told for so long is told by whoever sees it; by its id it is known for the same."""

_Where = tuple[str, str]
"""The alert's uid, and the container's id, or the cluster's name."""


class _Match(msgspec.Struct):
    """What matched last, and how many matched: to be raised, or to be counted together with what others saw."""

    rule: AlertRule
    container: str
    cluster: str
    line: LogLine
    count: int


class Alerting:
    """One replica's eye on the lines that it collects. `clock` tells seconds since 1970."""

    def __init__(
        self, repository: LogRuleRepository, bus: Bus, clock: Callable[[], float] = time.time
    ) -> None:
        self._repository = repository
        self._bus = bus
        self._clock = clock
        self._filters: dict[_Where, LineFilter] = {}
        self._windows: dict[_Where, Window] = {}
        self._due: dict[_Where, _Match] = {}
        self._counted: dict[_Where, _Match] = {}
        self._told_at = 0.0

    def hear(self, wanted: Wanted, lines: list[LogLine]) -> None:
        """Look at lines of a container; what follows from it is done by `tell`."""
        for rule in wanted.alerts:
            since = max(rule.updated_at, self._clock() - OLDEST_S - rule.spec.window_s) * NS
            matches = self._filter(rule).matches
            matched = [line for line in lines if line.at >= since and matches(line)]
            if matched:
                self._matched(rule, wanted, matched)

    async def tell(self) -> None:
        """Raise what is due, at most once a second; what cannot be raised now stays due."""
        now = self._clock()
        if not (self._due or self._counted) or now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        try:
            for where, match in list(self._counted.items()):
                await self._count(match, now)
                del self._counted[where]
            for where, match in list(self._due.items()):
                await self._raise(match, where[1], now)
                self._due.pop(where, None)
        except KubeloreError as error:
            log.info("log alert not told yet", reason=error.reason, detail=error.detail)

    async def run(self) -> None:
        """Tell what was left, until cancelled."""
        while True:
            await asyncio.sleep(LEFT_S)
            try:
                await self.tell_left()
            except KubeloreError as error:
                log.info("log alert not told yet", reason=error.reason, detail=error.detail)

    async def tell_left(self) -> None:
        """Tell what some replica has raised, and died or had no bus before it was told."""
        for left in await self._repository.untold(self._clock() - LEFT_S):
            alert = msgspec.json.decode(left.message, type=CloudEvent)
            await self._publish(alert, left.alert, left.what, left.at)

    def _matched(self, rule: AlertRule, wanted: Wanted, matched: list[LogLine]) -> None:
        container, cluster = str(wanted.container.id), wanted.container.id.cluster
        if rule.spec.per == "cluster":
            kept = self._counted.get((rule.uid, cluster))
            count = len(matched) + (kept.count if kept else 0)
            self._counted[rule.uid, cluster] = _Match(rule, container, cluster, matched[-1], count)
            return
        window = self._window(rule, container)
        for line in matched:
            count = window.add(line.at)
            if count >= rule.spec.count:
                self._due[rule.uid, container] = _Match(rule, container, cluster, line, count)
                window.clear()

    def _filter(self, rule: AlertRule) -> LineFilter:
        key = (rule.uid, str(rule.revision))
        found = self._filters.get(key)
        if found is None:
            if len(self._filters) > MAX_WINDOWS:
                self._filters.clear()
            found = self._filters[key] = LineFilter(rule.spec.filter)
        return found

    def _window(self, rule: AlertRule, container: str) -> Window:
        key = (f"{rule.uid}/{rule.revision}", container)
        found = self._windows.get(key)
        if found is None:
            if len(self._windows) >= MAX_WINDOWS:
                self._windows.pop(next(iter(self._windows)))
            found = self._windows[key] = Window(rule.spec.window_s)
        return found

    async def _count(self, match: _Match, now: float) -> None:
        """Add what was seen here to what others saw, and raise the alert when it is enough."""
        rule = match.rule
        await self._repository.add_count(rule.uid, match.cluster, now, match.count)
        since = max(now - rule.spec.window_s, rule.last_raised)
        match.count = await self._repository.counted(rule.uid, match.cluster, since)
        if match.count >= rule.spec.count:
            self._due[rule.uid, match.cluster] = match

    async def _raise(self, match: _Match, what: str, now: float) -> None:
        alert = alert_of(match, what, now)
        if await self._repository.claim_raise(match.rule, what, now, msgspec.json.encode(alert)):
            await self._publish(alert, match.rule.uid, what, now)

    async def _publish(self, alert: CloudEvent, uid: str, what: str, at: float) -> None:
        await self._bus.publish_alert(alert_subject(alert), alert)
        await self._repository.told(uid, what, at)


def alert_of(match: _Match, what: str, now: float) -> CloudEvent:
    """The alert that is published."""
    rule, spec = match.rule, match.rule.spec
    line = match.line.text.decode(errors="replace")[:SHOWN]
    times = "A line" if match.count == 1 else f"{match.count} lines within {spec.window_s} s"
    told = LogAlertData(
        alert=rule.name,
        cluster=match.cluster,
        container=match.container,
        count=match.count,
        window_s=spec.window_s,
        at=iso(match.line.at // NS),
        line=line,
        message=f"{times} of {what} matched the alert {rule.name}.",
        remedy=f"Read `kubelore logs` of {match.container}; `kubelore logs-alert get {rule.name}` shows what it asks.",
    )
    return CloudEvent(
        id=f"{rule.uid}:{what}:{int(now)}",
        source=source_of(SERVICE),
        type=LOG_ALERT,
        subject=match.cluster,
        time=iso(now),
        severity=spec.severity,
        data=msgspec.to_builtins(told),
    )
